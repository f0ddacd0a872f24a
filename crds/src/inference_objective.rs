//! The part of `InferenceObjective` that the picker reads: the priority of requests that name it.
//! Source: llm-d-router, `api/v1alpha2`; the older group is the Gateway API Inference Extension's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// API groups that serve the llm-d kinds as `v1alpha2`; the first one that is served is read.
pub const TRAFFIC_GROUPS: [&str; 2] = ["llm-d.ai", "inference.networking.x-k8s.io"];
/// Version of the kinds in [`TRAFFIC_GROUPS`].
pub const TRAFFIC_VERSION: &str = "v1alpha2";

/// A priority that requests ask for by name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct InferenceObjective {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: InferenceObjectiveSpec,
}

impl InferenceObjective {
    /// `kind` of the kind.
    pub const KIND: &'static str = "InferenceObjective";
    /// Plural of the kind.
    pub const PLURAL: &'static str = "inferenceobjectives";
}

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceObjectiveSpec {
    /// Higher comes first, below 0 is sheddable; 0 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The pool it is meant for.
    pub pool_ref: PoolRef,
}

/// A pool of the same namespace.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PoolRef {
    /// API group of the pool.
    #[serde(default = "default_group")]
    pub group: String,
    /// Kind of the pool.
    #[serde(default = "default_kind")]
    pub kind: String,
    /// Name of the pool.
    pub name: String,
}

impl Default for PoolRef {
    fn default() -> Self {
        Self {
            group: default_group(),
            kind: default_kind(),
            name: String::new(),
        }
    }
}

fn default_group() -> String {
    "inference.networking.k8s.io".to_owned()
}

fn default_kind() -> String {
    "InferencePool".to_owned()
}
