//! The part of `LeaderWorkerSet` (`leaderworkerset.x-k8s.io/v1`) that we write and read.
//! Source: kubernetes-sigs/lws v0.9, `api/leaderworkerset/v1/leaderworkerset_types.go`.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

/// Groups of pods that live and die together: one leader each, and its workers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderWorkerSet {
    /// Name (at most 51 characters), namespace, labels.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: LeaderWorkerSetSpec,
}

impl LeaderWorkerSet {
    /// `apiVersion` of the kind.
    pub const API_VERSION: &'static str = "leaderworkerset.x-k8s.io/v1";
    /// `kind` of the kind.
    pub const KIND: &'static str = "LeaderWorkerSet";
}

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderWorkerSetSpec {
    /// Groups.
    pub replicas: i32,
    /// A group.
    pub leader_worker_template: LeaderWorkerTemplate,
    /// How groups are replaced.
    pub rollout_strategy: GroupRollout,
    /// `LeaderCreated` or `LeaderReady`: when workers begin.
    pub startup_policy: String,
}

/// A group.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderWorkerTemplate {
    /// Pods of a group, the leader among them.
    pub size: i32,
    /// The leader, where it is another pod than the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_template: Option<PodTemplateSpec>,
    /// Every pod of a group, or every one but the leader.
    pub worker_template: PodTemplateSpec,
    /// `RecreateGroupOnPodRestart`, `RecreateGroupAfterStart` or `None`.
    pub restart_policy: String,
}

/// How groups are replaced.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRollout {
    /// `RollingUpdate`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its limits.
    pub rolling_update_configuration: GroupRolling,
}

/// Limits of a rollout, in groups.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRolling {
    /// Groups below the wanted number.
    pub max_unavailable: IntOrString,
    /// Groups above the wanted number.
    pub max_surge: IntOrString,
}

impl Default for GroupRolling {
    fn default() -> Self {
        // The API's own.
        Self {
            max_unavailable: IntOrString::Int(1),
            max_surge: IntOrString::Int(0),
        }
    }
}

/// How far a LeaderWorkerSet is, in groups.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaderWorkerSetStatus {
    /// Generation that the counts are about.
    pub observed_generation: Option<i64>,
    /// Groups of which every pod is ready.
    pub ready_replicas: i32,
    /// Groups of the newest template.
    pub updated_replicas: i32,
    /// Groups of any template.
    pub replicas: i32,
    /// `Available`, `Progressing`, `UpdateInProgress`.
    pub conditions: Vec<Condition>,
}
