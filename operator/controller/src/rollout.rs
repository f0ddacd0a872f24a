//! Rollouts in which all pools move together: each revision has workloads of its own, and this decides their sizes.
//!
//! ```text
//!  rendered workloads (new revision) ─┐
//!  live workloads of other revisions ─┴─▶ one step of the planner ─▶ sizes of both
//! ```

mod planner;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ApiResource;
use llmd_crds::RolloutStrategy;
use llmd_render::{Object, Rendered, ValidatedDeployment, ValidatedPool};

use crate::stores::Stores;
use planner::{Next, Role};

/// Annotation of an earlier revision's workload: its engines when its end began (upstream: `initial-replicas`).
pub(crate) const INITIAL: &str = "llmd.dev/initial-replicas";

/// A workload of an earlier revision, which stays until new engines have taken its place.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    pub(crate) pool: String,
    pub(crate) resource: ApiResource,
    pub(crate) name: String,
    /// Engines that it has.
    pub(crate) replicas: i32,
    /// Engines that it gets.
    pub(crate) next: i32,
    /// Engines when its end began.
    pub(crate) initial: i32,
    /// Whether it says so already.
    pub(crate) is_marked: bool,
    /// Engines that take requests, and pods of any kind.
    pub(crate) ready: i32,
    pub(crate) total: i32,
    created: Option<Time>,
}

/// Sets the sizes of the rendered workloads for now, and returns what stays of earlier revisions.
pub(crate) fn step(
    rendered: &mut Rendered,
    deployment: &ValidatedDeployment,
    stores: &Stores,
) -> Vec<Earlier> {
    if deployment.rollout.strategy != RolloutStrategy::Coherent {
        return Vec::new();
    }
    let mut earlier = Vec::new();
    let mut roles = Vec::new();
    for pool in &deployment.pools {
        let object = rendered
            .objects
            .iter()
            .find(|object| object.pool() == Some(&pool.name));
        let Some((kind, name)) = object.map(|object| (object.kind(), object.name().to_owned())) else {
            return Vec::new(); // every pool has its workload
        };
        let live = stores.workloads(&deployment.namespace, &deployment.name, &pool.name);
        let is_new = |resource: &ApiResource, kept: &str| resource.kind == kind && kept == name;
        let new = live.iter().find(|(resource, kept)| is_new(resource, &kept.name));
        let new = new.map(|(_, kept)| &kept.content);
        let old: Vec<Earlier> = live
            .iter()
            .filter(|(resource, kept)| !is_new(resource, &kept.name) && !kept.identity.is_leaving)
            .map(|(resource, kept)| {
                let rollout = &kept.content;
                let status = rollout.status.as_ref();
                let replicas = rollout.replicas.unwrap_or(1);
                Earlier {
                    pool: pool.name.clone(),
                    resource: resource.clone(),
                    name: kept.name.to_string(),
                    replicas,
                    next: replicas,
                    initial: rollout.initial.unwrap_or(replicas),
                    is_marked: rollout.initial.is_some(),
                    ready: status
                        .and_then(|status| status.ready_replicas)
                        .unwrap_or_default(),
                    total: status.and_then(|status| status.replicas).unwrap_or_default(),
                    created: rollout.created.clone(),
                }
            })
            .collect();
        let (surge, unavailable) = limits(deployment, pool.replicas);
        roles.push(Role {
            initial: old.iter().map(|one| i64::from(one.initial)).sum(),
            old: old.iter().map(|one| i64::from(one.replicas)).sum(),
            new: new.and_then(|new| new.replicas).unwrap_or_default().into(),
            ready: new
                .and_then(|new| new.status.as_ref()?.ready_replicas)
                .unwrap_or_default()
                .into(),
            target: pool.replicas.into(),
            surge,
            unavailable,
        });
        earlier.push(old);
    }
    if roles.iter().all(|role| role.old == 0) {
        // as rendered; what is empty goes
        return Vec::new();
    }
    let steps = planner::next(&roles);
    for ((pool, old), next) in deployment.pools.iter().zip(&mut earlier).zip(steps) {
        let mut objects = rendered.objects.iter_mut();
        if let Some(object) = objects.find(|object| object.pool() == Some(&pool.name)) {
            object.set_replicas(count(next.new));
        }
        share(old, next);
    }
    let mut earlier: Vec<Earlier> = earlier.into_iter().flatten().collect();
    earlier.retain(|one| one.next > 0 || one.replicas > 0);
    earlier
}

/// Engines of revisions other than the wanted one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Others {
    /// That take requests.
    pub(crate) ready: i32,
    /// Of any kind.
    pub(crate) total: i32,
}

/// The workload of a pool's wanted revision, by name, and the engines of others.
pub(crate) fn workloads_of(
    pool: &ValidatedPool,
    rendered: &Rendered,
    earlier: &[Earlier],
    stores: &Stores,
    namespace: &str,
    name: &str,
) -> (String, Others) {
    let own = rendered
        .objects
        .iter()
        .find(|object| object.pool() == Some(&pool.name));
    if let Some(own) = own {
        let mut others = Others::default();
        for one in earlier.iter().filter(|one| one.pool == pool.name) {
            others.ready += one.ready;
            others.total += one.total;
        }
        return (own.name().to_owned(), others);
    }
    // made by the controller of a DisaggregatedSet, with our labels
    let mut objects = rendered.objects.iter();
    let revision = objects.find_map(|object| match object {
        Object::DisaggregatedSet(_) => object.revision(),
        _ => None,
    });
    let mut found = String::new();
    let mut others = Others::default();
    for (_, kept) in stores.workloads(namespace, name, &pool.name) {
        let status = kept.content.status.as_ref();
        if kept.content.revision.as_deref() == revision {
            found = kept.name.to_string();
        } else {
            others.ready += status
                .and_then(|status| status.ready_replicas)
                .unwrap_or_default();
            others.total += status.and_then(|status| status.replicas).unwrap_or_default();
        }
    }
    (found, others)
}

/// The newest revision shrinks first: it was on its way and may never have worked.
fn share(old: &mut [Earlier], next: Next) {
    old.sort_by(|one, other| (&one.created, &one.name).cmp(&(&other.created, &other.name)));
    let mut left = count(next.old);
    for one in old {
        one.next = one.replicas.min(left);
        left -= one.next;
    }
}

fn count(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Engines above and below `target`, as Kubernetes reads percentages; never both 0.
fn limits(deployment: &ValidatedDeployment, target: i32) -> (i64, i64) {
    let read = |value: &IntOrString, is_up: bool| match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let hundredths = percent * i64::from(target);
            if is_up {
                (hundredths + 99) / 100
            } else {
                hundredths / 100
            }
        }
    };
    let surge = read(&deployment.rollout.max_surge, true);
    let unavailable = read(&deployment.rollout.max_unavailable, false);
    (
        surge,
        if surge == 0 {
            unavailable.max(1)
        } else {
            unavailable
        },
    )
}
