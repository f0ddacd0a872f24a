//! The KV cache: its blocks, and how they move between engines.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The KV cache of all engines. What engines, sidecars and the Endpoint Picker must agree on is written here once.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kv {
    /// Tokens of one block, the same in every engine. Unset: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub block_size: Option<i32>,
    /// How blocks go from prefill to decode engines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<KvTransfer>,
    /// Where blocks go that accelerators have no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<KvOffload>,
}

/// Where blocks go that accelerators have no room for.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KvOffload {
    /// Who moves them. Unset: Native.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<KvOffloadConnector>,
    /// Memory for blocks of each rank of a pod, as a quantity such as `100Gi`. With Mooncake: what each engine gives to the
    /// store; unset, the store has memory of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub cpu: Option<String>,
    /// Engines fetch blocks from each other's memory: a request goes where there is room, its blocks come from where they
    /// are. With connector Native only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_to_peer: Option<bool>,
    /// The store of connector Mooncake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mooncake: Option<KvMooncake>,
    /// A second tier below the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<KvFilesystem>,
}

/// Who moves blocks out of accelerators.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum KvOffloadConnector {
    /// The engine itself.
    #[default]
    Native,
    /// `LMCache`, which the engine's image must have.
    #[serde(rename = "LMCache")]
    LmCache,
    /// A store that engines share over the network.
    Mooncake,
}

/// A Mooncake store. Its master is somebody's own Deployment and Service.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KvMooncake {
    /// `host:port` of the master.
    #[schemars(
        length(min = 3, max = 260),
        regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[0-9]{1,5}$")
    )]
    pub master: String,
    /// How blocks travel. Unset: Tcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<MooncakeProtocol>,
    /// Memory of each engine through which blocks pass, as a quantity. Unset: `4Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub buffer: Option<String>,
}

/// How blocks travel to and from a Mooncake store.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum MooncakeProtocol {
    /// TCP over the pod network.
    #[default]
    Tcp,
    /// RDMA, with a device of `kv.transfer.network` or of `resources`.
    Rdma,
}

/// A file system of a claim that engines share.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KvFilesystem {
    /// A PersistentVolumeClaim of the namespace; `ReadWriteMany` for engines on several nodes.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Most that `LMCache` keeps there, as a quantity; Native never removes anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub size: Option<String>,
    /// Threads that read, for Native. Unset: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub read_threads: Option<i32>,
    /// Threads that write, for Native. Unset: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub write_threads: Option<i32>,
}

/// How blocks go from prefill to decode engines: NIXL.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KvTransfer {
    /// Library below NIXL. Unset: its own choice, which is UCX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<KvBackend>,
    /// What a decode engine does when blocks do not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<KvFailurePolicy>,
    /// Network devices for the transfer, such as RDMA. Unset: TCP over the pod network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<KvNetwork>,
}

/// Library below NIXL.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum KvBackend {
    /// UCX: TCP, InfiniBand, RoCE and others.
    #[serde(rename = "UCX")]
    Ucx,
    /// Libfabric: AWS EFA.
    Libfabric,
}

/// What a decode engine does when blocks do not arrive.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum KvFailurePolicy {
    /// Answer the request with an error.
    Fail,
    /// Compute the blocks itself.
    Recompute,
}

/// Network devices of an engine pod: of a device plugin, or claimed.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.resourceName) != has(self.deviceClassName)").message("resourceName: give either the resource of a device plugin, or deviceClassName for claims").field_path(".resourceName").reason(Reason::FieldValueInvalid)
)]
pub struct KvNetwork {
    /// Resource that a device plugin offers, such as `rdma/ib`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub resource_name: Option<String>,
    /// Class of devices that a pod claims, such as `mrdma.google.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub device_class_name: Option<String>,
    /// Attribute that an accelerator and the device that is claimed with it must share, such as
    /// `resource.kubernetes.io/pcieRoot`. Then each accelerator has one device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z_][A-Za-z0-9_]*$")
    )]
    pub match_attribute: Option<String>,
    /// Devices of each pod. Unset: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<i32>,
}
