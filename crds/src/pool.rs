//! A group of equal engines.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::engine::Engine;
use crate::scheduling::Scheduling;

/// A group of equal engines; becomes one workload called `<deployment>-<pool>`: a Deployment, or a
/// LeaderWorkerSet where an engine needs several pods.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// Name, a DNS label of at most 30 characters.
    #[schemars(
        length(min = 1, max = 30),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// What the engines do of a request. Unset: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Engines in the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: Option<i32>,
    /// How one engine is split over accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<Parallelism>,
    /// Who spreads requests over data-parallel ranks. Unset: External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// Which accelerators, and how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// CPU, memory and further resources of one engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Merged over `spec.engine`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Merged over `spec.scheduling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
}

/// What engines do of a request.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Role {
    /// All of it.
    #[default]
    Both,
    /// The prompt; the KV cache then goes to a decode engine.
    Prefill,
    /// The answer, with the KV cache of a prefill engine or the encodings of an encode engine.
    Decode,
    /// Images, videos and audio of a prompt; their encodings then go to a prefill or decode engine.
    Encode,
}

/// How one engine is split over accelerators.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.pipeline) || !has(self.pipelineLocal) || (self.pipeline % self.pipelineLocal == 0)").message("pipelineLocal: must divide pipeline: every pod of an engine has the same number of parts").field_path(".pipelineLocal").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!has(self.data) || !has(self.dataLocal) || (self.data % self.dataLocal == 0)").message("dataLocal: must divide data: every pod of an engine has the same number of ranks").field_path(".dataLocal").reason(Reason::FieldValueInvalid)
)]
pub struct Parallelism {
    /// Accelerators that share each layer (tensor parallelism).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub tensor: Option<i32>,
    /// Parts of the layers that accelerators work on one after the other (pipeline parallelism).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub pipeline: Option<i32>,
    /// Parts in one pod. Unset: as many as fit with at most 8 accelerators. More parts than these make an engine of
    /// several pods, a LeaderWorkerSet whose leader alone takes requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub pipeline_local: Option<i32>,
    /// Ranks of one engine that each hold the attention layers and serve requests of their own (data parallelism).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub data: Option<i32>,
    /// Ranks in one pod. Unset: all, but at most 8. More ranks than these make an engine of several pods, a
    /// LeaderWorkerSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub data_local: Option<i32>,
    /// Spread the experts of a mixture-of-experts model over all accelerators of the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<bool>,
}

/// Who spreads requests over data-parallel ranks.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum LoadBalancing {
    /// The Endpoint Picker: each rank has a port of its own.
    #[default]
    External,
    /// The engine, in each pod: one port for its ranks.
    Hybrid,
}

/// Which accelerators, and how many.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accelerator {
    /// Maker of the accelerators; decides the resource name and the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Vendor>,
    /// Accelerators of one pod; tensor parallelism times local ranks when unset, and it must equal that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub count: Option<i32>,
    /// Class of devices that a pod claims in place of an extended resource (Kubernetes 1.34 or newer). Unset: that of
    /// vendor Intel, and none for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub device_class_name: Option<String>,
    /// Name of an AcceleratorProfile: resource name, node selector and tolerations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub profile: Option<String>,
}

/// Maker of accelerators.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Vendor {
    /// `nvidia.com/gpu`.
    Nvidia,
    /// `amd.com/gpu`.
    Amd,
    /// `google.com/tpu`.
    Google,
    /// Claims of `gpu.intel.com`.
    Intel,
    /// No accelerator: the engine computes on CPU.
    Cpu,
    /// No accelerator: the engine computes nothing (simulator).
    None,
}

/// Resources of one engine.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Requests by resource name, as Kubernetes quantities.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "quantities"
    )]
    #[schemars(schema_with = "crate::schema::quantities::<16>")]
    pub requests: Option<BTreeMap<String, String>>,
    /// Limits by resource name, as Kubernetes quantities.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "quantities"
    )]
    #[schemars(schema_with = "crate::schema::quantities::<16>")]
    pub limits: Option<BTreeMap<String, String>>,
}

/// Quantities as Kubernetes takes them: `cpu: 8` as well as `cpu: "8"`.
fn quantities<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let values: Option<BTreeMap<String, IntOrString>> = Option::deserialize(deserializer)?;
    let text = |value| match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text,
    };
    Ok(values.map(|values| {
        values
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect()
    }))
}
