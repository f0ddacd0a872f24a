//! The status of an `LLMDeployment`: conditions by kstatus's rules and one cause in `Ready`.
//!
//! Equal facts give equal bytes: causes are sorted, durations are coarse, times change with their
//! condition only. So a status that says the same is not written again.

mod conditions;
mod message;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use llmd_crds::{LLMDeploymentStatus, PathStatus, PoolStatus, RouterStatus};

use crate::observe::{RouteState, Workload};
use conditions::Conditions;

/// Types of conditions that may be set.
pub const TYPES: [&str; 8] = [
    READY,
    RECONCILING,
    STALLED,
    DEPENDENCIES,
    APPLIED,
    POOLS,
    ROUTER,
    ROUTE,
];
/// Serves, in this generation.
pub const READY: &str = "Ready";
/// On its way; absent otherwise.
pub const RECONCILING: &str = "Reconciling";
/// Will not change until somebody acts; absent otherwise.
pub const STALLED: &str = "Stalled";
/// The kinds that are needed are served.
pub const DEPENDENCIES: &str = "DependenciesPresent";
/// The API server took all objects.
pub const APPLIED: &str = "ResourcesApplied";
/// All engines are there.
pub const POOLS: &str = "PoolsAvailable";
/// The router is there.
pub const ROUTER: &str = "RouterAvailable";
/// The gateways lead to the engines; absent without gateways.
pub const ROUTE: &str = "RouteAccepted";

/// Reasons of `Ready` beside those of causes.
pub const REASONS: [&str; 9] = [
    "Serving",
    "Stopped",
    ON_THE_WAY[0],
    ON_THE_WAY[1],
    ON_THE_WAY[2],
    "WaitingForGateway",
    "InvalidSpec",
    "DependencyMissing",
    "ApplyFailed",
];
/// Reasons of a deployment that nothing is wrong with: no news.
pub const ON_THE_WAY: [&str; 3] = ["ApplyingResources", "WaitingForPods", "RollingOut"];

/// What a reconcile found out.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Generation that was looked at.
    pub generation: i64,
    /// Mistakes in the spec, one line each.
    pub invalid: Vec<String>,
    /// Kinds that the cluster does not serve and this resource needs, with the fix.
    pub missing: Vec<String>,
    /// Objects that the API server did not take, with the reason.
    pub refused: Vec<String>,
    /// When an engine's log may tell more.
    pub again: Option<std::time::Duration>,
    /// What is known of the workloads; `None` while nothing could be rendered.
    pub workloads: Option<Workloads>,
}

/// The workloads of a resource.
#[derive(Clone, Debug)]
pub struct Workloads {
    /// Endpoint Picker and proxy.
    pub router: Workload,
    /// Engines.
    pub pools: Vec<Workload>,
    /// Wanted complete units: `spec.replicas`, 0 when stopped.
    pub units: i32,
    /// Name that clients send.
    pub model: String,
    /// Where clients reach the model; `None` where only the gateway knows.
    pub url: Option<String>,
    /// The same, for people.
    pub place: String,
    /// How far the gateways are, in mode Gateway.
    pub route: Option<RouteState>,
    /// Label selector of the engines' pods.
    pub selector: String,
    /// How the Endpoint Picker finds engines.
    pub discovery: &'static str,
    /// Path in use.
    pub path: PathStatus,
    /// Accelerators of all wanted engines.
    pub accelerators: i32,
}

/// In how long the message will say something else though nothing happens; `None`: never.
pub fn next_change(facts: &Facts, now: Timestamp) -> Option<Duration> {
    let workloads = facts.workloads.as_ref()?;
    let all = std::iter::once(&workloads.router).chain(&workloads.pools);
    let waiting = all.filter(|workload| !workload.is_ready() && workload.causes.is_empty());
    let since = waiting.filter_map(|workload| workload.phase.as_ref());
    since
        .map(|(_, since)| message::until_next_step(now.duration_since(*since).as_secs()))
        .min()
}

/// The status that says `facts`; times of conditions that did not change come from `old`.
pub fn compute(facts: &Facts, old: &LLMDeploymentStatus, now: Timestamp) -> LLMDeploymentStatus {
    let verdict = message::verdict(facts, now);
    let mut conditions = Conditions::new(&old.conditions, facts.generation, now);
    conditions.set(READY, verdict.is_ready, &verdict.reason, &verdict.message);
    if verdict.is_stalled {
        conditions.set(STALLED, true, &verdict.reason, &verdict.message);
    } else if !verdict.is_ready {
        conditions.set(RECONCILING, true, &verdict.reason, &verdict.message);
    }
    if facts.invalid.is_empty() {
        part(
            &mut conditions,
            DEPENDENCIES,
            &facts.missing,
            "CrdMissing",
            "Served",
        );
        part(&mut conditions, APPLIED, &facts.refused, "ApplyFailed", "Applied");
    }
    let Some(workloads) = &facts.workloads else {
        // What is still running keeps running: its last known state stays visible.
        return LLMDeploymentStatus {
            observed_generation: Some(facts.generation),
            conditions: conditions.finish(),
            ..old.clone()
        };
    };
    let pools_wait = workloads.pools.iter().find(|pool| !pool.is_ready());
    conditions.set_workload(POOLS, pools_wait, now);
    conditions.set_workload(
        ROUTER,
        Some(&workloads.router).filter(|router| !router.is_ready()),
        now,
    );
    match &workloads.route {
        None => {}
        Some(RouteState::Accepted) => conditions.set(ROUTE, true, "Accepted", ""),
        Some(RouteState::Waiting(message)) => conditions.set(ROUTE, false, "WaitingForGateway", message),
        Some(RouteState::Refused { reason, message }) => conditions.set(ROUTE, false, reason, message),
    }
    let units = |pool: &Workload| match pool.desired {
        0 => 0,
        desired => i64::from(pool.ready) * i64::from(workloads.units) / i64::from(desired),
    };
    let replicas = workloads.pools.iter().map(units).min().unwrap_or_default();
    LLMDeploymentStatus {
        observed_generation: Some(facts.generation),
        conditions: conditions.finish(),
        model: Some(workloads.model.clone()),
        url: workloads.url.clone(),
        summary: Some(message::summary(&workloads.pools)),
        replicas: i32::try_from(replicas).ok(),
        selector: Some(workloads.selector.clone()),
        pools: workloads.pools.iter().map(pool_status).collect(),
        router: Some(RouterStatus {
            desired: workloads.router.desired,
            ready: workloads.router.ready,
            discovery: workloads.discovery.to_owned(),
        }),
        path: Some(workloads.path.clone()),
        accelerators: Some(workloads.accelerators),
    }
}

fn part(
    conditions: &mut Conditions<'_>,
    kind: &'static str,
    wrong: &[String],
    bad: &'static str,
    good: &'static str,
) {
    match wrong.first() {
        None => conditions.set(kind, true, good, ""),
        Some(first) => conditions.set(kind, false, bad, first),
    }
}

fn pool_status(pool: &Workload) -> PoolStatus {
    PoolStatus {
        name: pool.name.clone(),
        workload: pool.object.clone(),
        desired: pool.desired,
        ready: pool.ready,
        updated: pool.updated,
    }
}

#[cfg(test)]
mod tests;
