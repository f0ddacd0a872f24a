//! What the operator writes about our kinds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// State of an LLMDeployment, written by the operator.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LLMDeploymentStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, its parts, and `Reconciling` or `Stalled` while they hold (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Name that clients send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub model: Option<String>,
    /// Where clients reach the model, inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub url: Option<String>,
    /// Ready and wanted pods per pool, such as `decode 2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub summary: Option<String>,
    /// Complete units that are ready: the least over all pools of ready pods by pods per unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Label selector of the engines' pods, for `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// State of each pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub pools: Vec<PoolStatus>,
    /// State of the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterStatus>,
    /// The well-lit path in use. Its version is pinned at the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathStatus>,
    /// Accelerators of all engines that are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<i32>,
}

/// State of a pool.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Name of the pool.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Name of its Deployment or LeaderWorkerSet.
    #[schemars(length(max = 253))]
    pub workload: String,
    /// Engines that are wanted: pods, or groups of pods.
    pub desired: i32,
    /// Engines that take requests.
    pub ready: i32,
    /// Engines of the newest template.
    pub updated: i32,
}

/// State of the router.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterStatus {
    /// Pods that are wanted.
    pub desired: i32,
    /// Pods that take requests.
    pub ready: i32,
    /// How the Endpoint Picker finds engines: `InferencePool` or `EndpointSelector`.
    #[schemars(length(max = 63))]
    pub discovery: String,
}

/// The well-lit path in use.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStatus {
    /// Name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Version.
    #[schemars(length(max = 63))]
    pub version: String,
    /// `Builtin` or `Resource`.
    #[schemars(length(max = 63))]
    pub source: String,
    /// Tag of llmd's own images in engines' pods: of the operator that used this version of the path first. An upgrade
    /// of the operator leaves it; another path or version moves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub release: Option<String>,
}

impl PathStatus {
    /// The release that stays in use, as long as path and version do.
    pub fn release_of(&self, name: &str, version: &str) -> Option<&str> {
        let same = self.name == name && self.version == version;
        self.release.as_deref().filter(|_| same)
    }
}

/// State of a WellLitPath or an AcceleratorProfile, written by the operator.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many deployments use it.
    #[serde(default)]
    pub used_by: i32,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
