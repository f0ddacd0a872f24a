//! Joins what the runtime knows of a pod with what the router sees of its endpoint.

use serde::Serialize;

use crate::cluster::PodStatus;
use crate::container::Phase;
use crate::routing::RoutedEndpoint;

/// One line of the live table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Pod or attached engine.
    pub name: String,
    /// `starting`, `ready`, `not ready`, `restarting`, `draining`, `unreachable`.
    pub state: &'static str,
    /// Why it is not ready, when it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether it is the router.
    pub router: bool,
    /// Process id while it runs.
    pub pid: Option<u32>,
    /// Restarts.
    pub restarts: u32,
    /// `ip:port` that the router sends to.
    pub target: Option<String>,
    /// What the router sees; absent while it does not list the endpoint.
    #[serde(flatten)]
    pub load: Option<Load>,
}

/// Load of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Requests in the engine's queue; `None` when the engine does not show it.
    pub waiting: Option<u32>,
    /// Requests in the engine's batch.
    pub running: Option<u32>,
    /// KV-cache use, 0..=1.
    pub kv_cache_usage: Option<f64>,
    /// Requests through the router that have not ended.
    pub in_flight: u64,
    /// Share of prompt tokens found in the engine's prefix cache.
    pub prefix_hit_rate: Option<f64>,
}

/// The rows of all pods, then of endpoints that no pod stands behind.
pub fn rows(pods: &[PodStatus], routed: &[RoutedEndpoint]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::with_capacity(pods.len() + routed.len());
    for pod in pods {
        let endpoint = routed.iter().find(|endpoint| endpoint.name == pod.name);
        rows.push(Row {
            name: pod.name.clone(),
            state: state(pod, endpoint),
            message: pod.message.clone(),
            router: pod.router,
            pid: pod.pid,
            restarts: pod.restarts,
            target: endpoint.map(|endpoint| endpoint.target.clone()),
            load: endpoint.map(load),
        });
    }
    let of_pods = |endpoint: &&RoutedEndpoint| !pods.iter().any(|pod| pod.name == endpoint.name);
    rows.extend(routed.iter().filter(of_pods).map(|endpoint| Row {
        name: endpoint.name.clone(),
        state: if endpoint.ejected { "unreachable" } else { "ready" },
        target: Some(endpoint.target.clone()),
        load: Some(load(endpoint)),
        ..Row::default()
    }));
    rows.sort_by(|a, b| (!a.router, &a.name).cmp(&(!b.router, &b.name)));
    rows
}

fn state(pod: &PodStatus, endpoint: Option<&RoutedEndpoint>) -> &'static str {
    match pod.phase {
        Phase::Waiting if pod.restarts > 0 => "restarting",
        Phase::Waiting | Phase::Starting => "starting",
        Phase::Stopping | Phase::Stopped => "draining",
        Phase::Running if endpoint.is_some_and(|endpoint| endpoint.ejected) => "unreachable",
        Phase::Running if pod.ready => "ready",
        Phase::Running => "not ready",
    }
}

fn load(endpoint: &RoutedEndpoint) -> Load {
    let seen = endpoint.metrics_age_ms.is_some();
    Load {
        waiting: seen.then_some(endpoint.waiting),
        running: seen.then_some(endpoint.running),
        kv_cache_usage: seen.then_some(endpoint.kv_cache_usage),
        in_flight: endpoint.in_flight_requests,
        prefix_hit_rate: endpoint.prefix_hit_rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, phase: Phase, ready: bool, restarts: u32) -> PodStatus {
        PodStatus {
            name: name.into(),
            workload: "w".into(),
            router: name.starts_with("router"),
            phase,
            ready,
            restarts,
            pid: Some(1),
            message: String::new(),
        }
    }

    fn endpoint(name: &str, metrics: bool) -> RoutedEndpoint {
        RoutedEndpoint {
            name: name.into(),
            target: "127.0.0.1:1".into(),
            waiting: 2,
            metrics_age_ms: metrics.then_some(5),
            ..Default::default()
        }
    }

    #[test]
    fn pods_and_attached_engines_share_one_table_with_the_router_first() {
        let pods = [
            pod("a-0", Phase::Running, true, 0),
            pod("router-0", Phase::Running, true, 0),
        ];
        let rows = rows(&pods, &[endpoint("a-0", true), endpoint("engine-0", false)]);
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["router-0", "a-0", "engine-0"]);
        assert_eq!(rows[1].load.as_ref().unwrap().waiting, Some(2));
        assert_eq!(
            rows[2].load.as_ref().unwrap().waiting,
            None,
            "no metrics, no number"
        );
    }

    #[test]
    fn the_state_says_what_happens_to_the_pod() {
        let of = |phase, ready, restarts| state(&pod("a", phase, ready, restarts), None);
        assert_eq!(of(Phase::Waiting, false, 0), "starting");
        assert_eq!(of(Phase::Waiting, false, 1), "restarting");
        assert_eq!(of(Phase::Running, false, 1), "not ready");
        assert_eq!(of(Phase::Stopping, false, 0), "draining");
        let ejected = RoutedEndpoint {
            ejected: true,
            ..endpoint("a", true)
        };
        assert_eq!(
            state(&pod("a", Phase::Running, true, 0), Some(&ejected)),
            "unreachable"
        );
    }
}
