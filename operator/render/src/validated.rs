//! A deployment that is right: every default resolved, every contradiction gone.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use llmd_crds::{
    EngineType, EnvVar, FailureMode, GatewayMatch, GatewayRef, ImagePullPolicy, KvBackend, KvFailurePolicy,
    KvOffloadConnector, LoadBalancing, MooncakeProtocol, PodSecurity, Role, RolloutStrategy, Scheduling,
    Vendor,
};

use crate::engine_images::EngineImages;
use crate::names;

/// What [`crate::render`] takes.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedDeployment {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, or the installation's.
    pub namespace: String,
    /// Where defaults came from.
    pub path: ResolvedPath,
    /// The text of a path that a resource defines, to keep: see [`crate::kept_path_name`].
    pub kept_path: Option<String>,
    /// Images of engines that name none.
    pub images: &'static EngineImages,
    /// What is served.
    pub model: ValidatedModel,
    /// At least one.
    pub pools: Vec<ValidatedPool>,
    /// The KV cache of all engines.
    pub kv: ValidatedKv,
    /// Endpoint Picker and proxy.
    pub router: ValidatedRouter,
    /// Secrets for pulling images.
    pub image_pull_secrets: Vec<String>,
    /// What engines may do.
    pub pod_security: PodSecurity,
    /// How engine pods are replaced.
    pub rollout: ValidatedRollout,
    /// Labels for every object and pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations for every object.
    pub annotations: BTreeMap<String, String>,
}

/// A well-lit path as used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ResolvedPath {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Compiled in or supplied.
    pub source: PathSource,
}

/// Where a path came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum PathSource {
    /// Compiled in.
    Builtin,
    /// A WellLitPath resource.
    Resource,
}

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedModel {
    /// Name that clients send, then the aliases.
    pub served_names: Vec<String>,
    /// Where the weights are.
    pub source: ModelSource,
    /// Secret name and key of the access token.
    pub token: Option<(String, String)>,
    /// Let the engine run the model's own code.
    pub trust_remote_code: bool,
    /// Claim that keeps downloads, and whether it is only read.
    pub downloads: Option<(String, bool)>,
}

impl ValidatedDeployment {
    /// Whether a routing sidecar stands before the engines of `pool`: it fetches what other roles computed.
    pub fn has_sidecar(&self, pool: &ValidatedPool) -> bool {
        pool.role == Role::Decode || pool.role == Role::Both && self.kv.shares_memory()
    }

    /// Whether some engines only encode images, videos and audio.
    pub fn encodes(&self) -> bool {
        self.pools.iter().any(|pool| pool.role == Role::Encode)
    }

    /// Whether the engines of `pool` take encodings of others: the first that read a prompt.
    pub fn takes_encodings(&self, pool: &ValidatedPool) -> bool {
        let first = if self.kv.transfer.is_some() {
            Role::Prefill
        } else {
            Role::Decode
        };
        self.encodes() && pool.role == first
    }

    /// Whether engines depend on each other, and so on running the same.
    pub fn is_disaggregated(&self) -> bool {
        self.kv.transfer.is_some() || self.encodes()
    }

    /// Whether devices are claimed.
    pub fn has_claims(&self) -> bool {
        let network = self
            .kv
            .transfer
            .as_ref()
            .and_then(|transfer| transfer.network.as_ref());
        let accelerators = self.pools.iter().filter_map(|pool| pool.accelerators.as_ref());
        accelerators
            .chain(network)
            .any(|devices| devices.class().is_some())
    }

    /// Whether engines read each other's memory.
    pub fn reads_peers(&self) -> bool {
        self.is_disaggregated() || self.kv.shares_memory()
    }

    /// Ports of a pod that take requests; the same in all pools, because an InferencePool has one list.
    pub fn routed_ports(&self) -> std::ops::Range<i32> {
        let ports = self.pools.first().map_or(1, |pool| pool.parallelism.ports());
        names::ENGINE_PORT..names::ENGINE_PORT + ports
    }
}

impl ValidatedModel {
    /// Name that clients send.
    pub fn name(&self) -> &str {
        self.served_names.first().map_or("", String::as_str)
    }
}

/// Where weights are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// Hugging Face: `org/name` and revision.
    Hub {
        /// `org/name`.
        id: String,
        /// Commit, tag or branch.
        revision: Option<String>,
    },
    /// A directory of a PersistentVolumeClaim.
    Claim {
        /// Claim name.
        claim: String,
        /// Path in it.
        path: String,
    },
    /// Nowhere: the simulator needs none.
    Nothing,
}

/// A group of equal engines.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedPool {
    /// Pool name.
    pub name: String,
    /// What its engines do of a request.
    pub role: Role,
    /// Engines, the multiplier applied: pods, or groups of pods.
    pub replicas: i32,
    /// How one engine runs.
    pub engine: ValidatedEngine,
    /// How one engine is split.
    pub parallelism: ValidatedParallelism,
    /// Maker of the accelerators.
    pub vendor: Vendor,
    /// Accelerators of one pod.
    pub accelerators: Option<Devices>,
    /// Resource requests without accelerators.
    pub requests: BTreeMap<String, String>,
    /// Resource limits without accelerators.
    pub limits: BTreeMap<String, String>,
    /// Where pods may run.
    pub scheduling: Scheduling,
}

/// How one engine is split over accelerators and pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidatedParallelism {
    /// Accelerators that share each layer.
    pub tensor: i32,
    /// Parts of the layers.
    pub pipeline: i32,
    /// Parts in a pod; divides `pipeline`.
    pub pipeline_local: i32,
    /// Ranks of the engine.
    pub data: i32,
    /// Ranks of a pod; divides `data`.
    pub data_local: i32,
    /// Experts are spread over all accelerators.
    pub expert: bool,
    /// Who spreads requests over ranks.
    pub balancing: LoadBalancing,
}

impl ValidatedParallelism {
    /// Pods of one engine.
    pub fn nodes(&self) -> i32 {
        self.data / self.data_local.max(1) * self.stages()
    }

    /// Pods over which the layers of one rank are spread; the first of them takes its requests.
    pub fn stages(&self) -> i32 {
        self.pipeline / self.pipeline_local.max(1)
    }

    /// Accelerators of one pod.
    pub fn per_pod(&self) -> i32 {
        self.tensor * self.pipeline_local * self.data_local
    }

    /// Ports of one pod that take requests.
    pub fn ports(&self) -> i32 {
        match self.balancing {
            LoadBalancing::External => self.data_local,
            LoadBalancing::Hybrid => 1,
        }
    }
}

impl ValidatedKv {
    /// Whether engines fetch blocks from each other's memory.
    pub fn shares_memory(&self) -> bool {
        self.offload.as_ref().is_some_and(|offload| offload.peer_to_peer)
    }
}

/// The KV cache of all engines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidatedKv {
    /// Tokens of one block; `None` leaves it to the engine.
    pub block_size: Option<i32>,
    /// How blocks move between roles; `None` where one engine does all of a request.
    pub transfer: Option<ValidatedTransfer>,
    /// Where blocks go that accelerators have no room for.
    pub offload: Option<ValidatedOffload>,
}

/// Where KV blocks go that accelerators have no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedOffload {
    /// Who moves them.
    pub connector: KvOffloadConnector,
    /// Bytes of memory for blocks of each rank; 0 where a store has all of them.
    pub cpu_bytes: i64,
    /// Engines fetch blocks from each other's memory.
    pub peer_to_peer: bool,
    /// The store of connector Mooncake.
    pub mooncake: Option<ValidatedMooncake>,
    /// The tier below.
    pub filesystem: Option<ValidatedFilesystem>,
}

/// A store that engines share over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedMooncake {
    /// `host:port` of the master.
    pub master: String,
    /// How blocks travel.
    pub protocol: MooncakeProtocol,
    /// Bytes of an engine's memory through which blocks pass.
    pub buffer_bytes: i64,
}

/// A file system of a claim that engines share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedFilesystem {
    /// Name of the claim.
    pub claim: String,
    /// Bytes that `LMCache` keeps there at most.
    pub bytes: Option<i64>,
    /// Threads that read and that write, for the engine's own connector.
    pub threads: (i32, i32),
}

/// How KV blocks move from prefill to decode engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedTransfer {
    /// Library below NIXL; `None` is its own choice.
    pub backend: Option<KvBackend>,
    /// What a decode engine does without the blocks; `None` is the engine's own choice.
    pub failure_policy: Option<KvFailurePolicy>,
    /// Network devices of a pod.
    pub network: Option<Devices>,
    /// Attribute that an accelerator and the network device that is claimed with it share.
    pub match_attribute: Option<String>,
}

/// Equal devices of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Where they come from.
    pub source: DeviceSource,
    /// How many.
    pub count: i32,
}

/// Where devices come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSource {
    /// An extended resource, by name.
    Resource(String),
    /// Claims of a class, by name.
    Class(String),
}

impl Devices {
    /// Name and count, where they are an extended resource.
    pub fn resource(&self) -> Option<(&str, i32)> {
        match &self.source {
            DeviceSource::Resource(name) => Some((name, self.count)),
            DeviceSource::Class(_) => None,
        }
    }

    /// Name and count, where they are claimed.
    pub fn class(&self) -> Option<(&str, i32)> {
        match &self.source {
            DeviceSource::Class(name) => Some((name, self.count)),
            DeviceSource::Resource(_) => None,
        }
    }
}

/// How one engine runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedEngine {
    /// Which engine.
    pub kind: EngineType,
    /// Image in place of the table's.
    pub image: Option<String>,
    /// When the image is pulled.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Flags without dashes.
    pub args: BTreeMap<String, String>,
    /// Arguments appended as they are.
    pub extra_args: Vec<String>,
    /// Environment.
    pub env: Vec<EnvVar>,
    /// Seconds that loading may take.
    pub startup_seconds: i32,
}

/// Endpoint Picker and proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedRouter {
    /// Image in place of our own.
    pub image: Option<String>,
    /// Resource requests of the Endpoint Picker.
    pub requests: BTreeMap<String, String>,
    /// Resource limits of the Endpoint Picker.
    pub limits: BTreeMap<String, String>,
    /// Further flags.
    pub flags: BTreeMap<String, String>,
    /// EndpointPickerConfig as YAML.
    pub config: String,
    /// For gateways.
    pub failure_mode: FailureMode,
    /// In front of the engines.
    pub proxy: ValidatedProxy,
}

/// The proxy in front of the engines.
#[derive(Clone, Debug, PartialEq)]
pub enum ValidatedProxy {
    /// Envoy beside the Endpoint Picker.
    Envoy {
        /// Image in place of the table's.
        image: Option<String>,
        /// Let requests pass unrouted when the Endpoint Picker does not answer.
        fail_open: bool,
    },
    /// The Endpoint Picker's own.
    Builtin,
    /// Gateways of the cluster.
    Gateway(ValidatedGateway),
}

impl ValidatedProxy {
    /// The Gateways, where they are the proxy.
    pub fn gateway(&self) -> Option<&ValidatedGateway> {
        match self {
            Self::Gateway(gateway) => Some(gateway),
            Self::Envoy { .. } | Self::Builtin => None,
        }
    }
}

/// Gateways that lead to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedGateway {
    /// At least one.
    pub parents: Vec<GatewayRef>,
    /// Host names; none takes those of the listeners.
    pub hostnames: Vec<String>,
    /// Which requests.
    pub matches: GatewayMatch,
    /// Longest answer in seconds; 0 is the gateway's own longest.
    pub timeout_seconds: i32,
}

/// How engine pods are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedRollout {
    /// How pools move to another template.
    pub strategy: RolloutStrategy,
    /// Pods above the wanted number.
    pub max_surge: IntOrString,
    /// Pods below the wanted number.
    pub max_unavailable: IntOrString,
    /// Seconds for requests in flight.
    pub drain_seconds: i64,
}
