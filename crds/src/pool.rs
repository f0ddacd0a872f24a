//! A group of equal engines.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::engine::Engine;
use crate::scheduling::Scheduling;

/// A group of equal engines; becomes one workload called `<deployment>-<pool>`.
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
    /// The answer, with the KV cache of a prefill engine.
    Decode,
}

/// How one engine is split over accelerators.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parallelism {
    /// Accelerators that share each layer (tensor parallelism).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub tensor: Option<i32>,
}

/// Which accelerators, and how many.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accelerator {
    /// Maker of the accelerators; decides the resource name and the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Vendor>,
    /// Accelerators of one engine; the tensor parallelism when unset, and it must equal it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub count: Option<i32>,
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
