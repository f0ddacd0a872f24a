//! A running pod, and what the router and the user see of it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::container::{Container, Phase, State};
use crate::endpoints::Endpoint;
use crate::translate::plan::Plan;
use crate::translate::pod::PodPlan;

/// A pod as the user sees it.
#[derive(Clone, Debug)]
pub struct PodStatus {
    /// Name.
    pub name: String,
    /// Workload it belongs to.
    pub workload: String,
    /// Whether it is the router.
    pub router: bool,
    /// Phase of its first container that is not running, else running.
    pub phase: Phase,
    /// Whether all containers are ready.
    pub ready: bool,
    /// Restarts of all containers.
    pub restarts: u32,
    /// Process id of the first container.
    pub pid: Option<u32>,
    /// Why it is not ready.
    pub message: String,
}

/// A pod with its processes.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) plan: PodPlan,
    pub(super) workload: String,
    pub(super) hash: u64,
    pub(super) devices: Vec<u32>,
    pub(super) containers: Vec<Arc<Container>>,
    pub(super) stopping: CancellationToken,
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
}

impl Pod {
    fn states(&self) -> Vec<State> {
        self.containers
            .iter()
            .map(|container| container.state())
            .collect()
    }

    pub(super) fn ready(&self) -> bool {
        !self.stopping.is_cancelled() && self.containers.iter().all(|container| container.state().ready)
    }
}

/// The entries of the endpoints file for a pod, one per target port; none when the pool does not select it.
pub(super) fn endpoints(pod: &PodPlan, plan: &Plan) -> Vec<Endpoint> {
    let member = plan
        .pool
        .selector
        .iter()
        .all(|(key, value)| pod.labels.get(key) == Some(value));
    if !member {
        return Vec::new();
    }
    let ports = &plan.pool.ports;
    let local = ports
        .iter()
        .enumerate()
        .filter_map(|(rank, rendered)| Some((rank, pod.port(*rendered)?)));
    local
        .map(|(rank, port)| Endpoint {
            name: if ports.len() == 1 {
                pod.name.clone()
            } else {
                format!("{}-rank-{rank}", pod.name)
            },
            namespace: plan.namespace.clone(),
            address: "127.0.0.1".to_owned(),
            port: port.to_string(),
            labels: pod.labels.clone(),
        })
        .collect()
}

/// Whether an endpoint name belongs to a pod: the pod's name, or one of its ranks.
pub(super) fn is_endpoint_of(endpoint: &str, pod: &str) -> bool {
    endpoint
        .strip_prefix(pod)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("-rank-"))
}

pub(super) fn status(pod: &Pod, router: &str) -> PodStatus {
    let states = pod.states();
    let worst = states
        .iter()
        .find(|state| state.phase != Phase::Running)
        .or(states.first());
    let phase = worst.map_or(Phase::Waiting, |state| state.phase);
    let leaving = pod.stopping.is_cancelled() && phase != Phase::Stopped;
    PodStatus {
        name: pod.plan.name.clone(),
        workload: pod.workload.clone(),
        router: pod.workload == router,
        phase: if leaving { Phase::Stopping } else { phase },
        ready: pod.ready(),
        restarts: states.iter().map(|state| state.restarts).sum(),
        pid: states.first().and_then(|state| state.pid),
        message: states
            .iter()
            .find(|state| !state.ready)
            .map(|state| state.message.clone())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_belong_to_their_pod_and_longer_names_do_not() {
        assert!(
            is_endpoint_of("x-decode-1", "x-decode-1") && is_endpoint_of("x-decode-1-rank-0", "x-decode-1")
        );
        assert!(!is_endpoint_of("x-decode-10", "x-decode-1"));
    }
}
