//! The part of `DisaggregatedSet` (`disaggregatedset.x-k8s.io/v1`) that we write.
//! Source: kubernetes-sigs/lws v0.9, `api/disaggregatedset/v1/disaggregatedset_types.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::leader_worker_set::LeaderWorkerSetSpec;

/// Roles of one revision that are replaced together, a `LeaderWorkerSet` each.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DisaggregatedSet {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: DisaggregatedSetSpec,
}

impl DisaggregatedSet {
    /// `apiVersion` of the kind.
    pub const API_VERSION: &'static str = "disaggregatedset.x-k8s.io/v1";
    /// `kind` of the kind.
    pub const KIND: &'static str = "DisaggregatedSet";
}

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DisaggregatedSetSpec {
    /// 2 to 10.
    pub roles: Vec<DisaggregatedRole>,
}

/// One role.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DisaggregatedRole {
    /// Name, a DNS label.
    pub name: String,
    /// Labels of its `LeaderWorkerSet`.
    pub metadata: RoleMetadata,
    /// Its groups.
    pub spec: LeaderWorkerSetSpec,
}

/// What the `LeaderWorkerSet` of a role gets beside its spec.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
}
