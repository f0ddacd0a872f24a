//! How far the workloads of a resource are, and what keeps them.

mod groups;
mod route;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DeploymentStatus;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::causes::{self, Cause, Phase};
use crate::stores::Rollout;

pub(crate) use groups::incomplete_groups;
pub use route::{RouteState, route};

/// One workload: a pool of engines, or the router.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// `router`, or the pool's name.
    pub name: String,
    /// Name of its Deployment or LeaderWorkerSet.
    pub object: String,
    /// Pods that are wanted, or groups of pods.
    pub desired: i32,
    /// Pods that take requests.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods of any template, those that leave included.
    pub total: i32,
    /// The controller has seen the newest template.
    pub is_observed: bool,
    /// What is wrong, the most frequent first, with the number of pods.
    pub causes: Vec<(Cause, usize)>,
    /// The earliest step of a pod on its way, and since when.
    pub phase: Option<(Phase, Timestamp)>,
}

impl Workload {
    /// Everything that is wanted is there, and nothing else.
    pub fn is_ready(&self) -> bool {
        self.is_observed
            && self.ready >= self.desired
            && self.updated >= self.desired
            && self.total <= self.desired
    }
}

/// Looks at the Deployment or LeaderWorkerSet `object` and its pods.
pub(crate) fn workload(
    name: &str,
    object: &str,
    desired: i32,
    rollout: Option<&Rollout>,
    pods: &[&Pod],
) -> Workload {
    let status = rollout.and_then(|rollout| rollout.status.as_ref());
    let count = |of: fn(&DeploymentStatus) -> Option<i32>| status.and_then(of).unwrap_or_default();
    let mut counted: BTreeMap<Cause, usize> = BTreeMap::new();
    for cause in pods.iter().filter_map(|pod| causes::of_pod(pod)) {
        *counted.entry(cause).or_default() += 1;
    }
    if let Some(cause) = status.and_then(causes::of_rollout) {
        counted.insert(cause, 1);
    }
    let mut found: Vec<(Cause, usize)> = counted.into_iter().collect();
    found.sort_by(|(one, ones), (other, others)| {
        (!one.is_stalled, others, one).cmp(&(!other.is_stalled, ones, other))
    });
    let current = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Workload {
        name: name.to_owned(),
        object: object.to_owned(),
        desired,
        ready: count(|status| status.ready_replicas),
        updated: count(|status| status.updated_replicas),
        total: count(|status| status.replicas),
        is_observed: rollout.is_some_and(|rollout| {
            rollout.generation == status.and_then(|status| status.observed_generation)
                && rollout.replicas == Some(desired)
        }),
        causes: found,
        phase: current.filter_map(|pod| causes::phase(pod)).min(),
    }
}
