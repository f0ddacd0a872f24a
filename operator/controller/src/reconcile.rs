//! One resource, from its spec to its status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use llmd_crds::{HTTPRoute, InferencePool, LLMDeployment, LLMDeploymentStatus, PathStatus, RolloutStrategy};
use llmd_render::{
    Document, Inputs, RenderOptions, Rendered, ValidatedDeployment, ValidatedGateway, decode_value, render,
    validate,
};

use crate::apply::{self, Applied, Owner};
use crate::capabilities::Capabilities;
use crate::context::Context;
use crate::dereference::without_status;
use crate::error::ReconcileError;
use crate::observe::{self, Workload, workload};
use crate::pin::{self, pin, pinned};
use crate::rollout::{self, Earlier};
use crate::status::{self, Facts, READY, Workloads, compute};
use crate::status_write;

/// Label of this controller's metrics.
pub(crate) const CONTROLLER: &str = "llmdeployment";

/// A look at a resource that nothing happened to, against lost events.
const RESYNC: Duration = Duration::from_secs(600);
/// The caches are not filled yet, or for the last time.
const NO_CACHE: Duration = Duration::from_secs(60);
/// How long one look may take, its turn to write included: an API server that never answers must not hold a place
/// for ever.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long caches of paths and profiles may take; without them the compiled-in paths serve.
const REFERENCES: Duration = Duration::from_secs(10);

/// Reconciles one resource, within [`DEADLINE`].
pub(crate) async fn reconcile(
    object: Arc<DynamicObject>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let work = tokio::time::timeout(DEADLINE, look_and_tell(object, context));
    work.await.unwrap_or(Err(ReconcileError::Deadline))
}

async fn look_and_tell(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let started = Instant::now();
    if object.metadata.deletion_timestamp.is_some() {
        // Everything is owned by the resource: the garbage collector takes it away.
        return Ok(Action::await_change());
    }
    if context.stores.filled().await.is_err() {
        return Ok(Action::requeue(NO_CACHE));
    }
    let (namespace, name) = names(&object);
    let old: LLMDeploymentStatus = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
    let (facts, applied) = look(&object, &old, &context).await?;
    let now = Timestamp::now();
    let new = compute(&facts, &old, now);
    let shared = &context.shared;
    let mut turn = Duration::ZERO;
    if new != old {
        turn = shared.status_writes.take(Instant::now());
        tokio::time::sleep(turn).await;
        status_write::write(&shared.client, &object, &new).await?;
    }
    announce(&object, &old, &new, &applied, &context).await;
    for kind in status::TYPES {
        let holds = holds(&new, kind);
        shared.metrics.condition(&namespace, &name, kind, holds);
    }
    shared.backoff.forget(&key(&namespace, &name));
    shared.usage.notify_one();
    let is_ready = holds(&new, READY);
    let is_stalled = holds(&new, status::STALLED);
    let result = if is_stalled { "stalled" } else { "success" };
    shared.metrics.reconciled(
        CONTROLLER,
        result,
        started.elapsed().saturating_sub(turn).as_secs_f64(),
    );
    if new != old {
        tracing::info!(namespace, name, ready = is_ready, "reconciled");
    }
    let pause = status::next_change(&facts, now).unwrap_or(RESYNC);
    let pause = pause.mul_f64(0.9 + 0.2 * fastrand::f64());
    Ok(Action::requeue(
        facts.again.map_or(pause, |again| again.min(pause)),
    ))
}

/// A failed reconcile comes back with back-off.
#[allow(clippy::needless_pass_by_value, reason = "the signature that kube asks for")]
pub(crate) fn failed(object: Arc<DynamicObject>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let (namespace, name) = names(&object);
    context.shared.metrics.failed(CONTROLLER, error.reason());
    let pause = context.shared.backoff.failed(&key(&namespace, &name));
    tracing::warn!(namespace, name, %error, ?pause, "reconcile failed");
    Action::requeue(pause)
}

/// The resource is gone.
pub(crate) fn gone(reference: &ObjectRef<DynamicObject>, context: &Context) {
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    let name = &reference.name;
    let shared = &context.shared;
    shared.backoff.forget(&key(namespace, name));
    shared.metrics.forget(namespace, name);
    let prefix = format!("{name}-");
    shared
        .sent
        .forget_of(namespace, |object| object == name || object.starts_with(&prefix));
    shared.usage.notify_one();
}

async fn look(
    object: &DynamicObject,
    old: &LLMDeploymentStatus,
    context: &Context,
) -> Result<(Facts, Applied), ReconcileError> {
    let mut facts = Facts {
        generation: object.metadata.generation.unwrap_or_default(),
        ..Facts::default()
    };
    let (namespace, name) = names(object);
    let mut deployment = match decode_value(without_status(object)) {
        Ok(Document::Deployment(deployment)) => *deployment,
        Ok(_) => return Ok((facts, Applied::default())),
        Err(error) => {
            facts.invalid.push(error.to_string());
            return Ok((facts, Applied::default()));
        }
    };
    pin(&mut deployment, old);
    let kept = pin::kept(&context.shared.client, object, old).await?;
    let _ = tokio::time::timeout(REFERENCES, context.references.wait_until_ready()).await;
    let inputs = Inputs {
        deployment: &deployment,
        paths: &context.references.paths(),
        accelerators: &context.references.accelerators(),
        namespace: &namespace,
        kept: kept.as_deref(),
    };
    let validated = match validate(inputs) {
        Ok(validated) => validated.deployment,
        Err(errors) => {
            facts.invalid = errors.iter().map(ToString::to_string).collect();
            return Ok((facts, Applied::default()));
        }
    };
    facts.missing = missing(&validated, context.served);
    if !facts.missing.is_empty() {
        // What runs already keeps running.
        return Ok((facts, Applied::default()));
    }
    let path = pinned(&validated.path, old, &context.shared.render.image_tag);
    let options = RenderOptions {
        namespace: namespace.clone(),
        engine_image_tag: path.release.clone(),
        inference_pool: context.served.inference_pool,
        ..context.shared.render.clone()
    };
    let mut rendered = render(&validated, &options);
    let earlier = rollout::step(&mut rendered, &validated, &context.stores);
    let owner = Owner {
        namespace: &namespace,
        name: &name,
        reference: owner_reference(object),
    };
    let shared = &context.shared;
    let applied = apply::apply(
        &shared.client,
        &context.stores,
        &shared.sent,
        &shared.metrics,
        &owner,
        &rendered.objects,
        &earlier,
    )
    .await?;
    facts.refused.clone_from(&applied.refused);
    let (workloads, again) = workloads(&validated, &deployment, &rendered, &earlier, path, context);
    facts.workloads = Some(workloads);
    facts.again = again;
    Ok((facts, applied))
}

/// Kinds that the deployment needs and the cluster does not serve, with the fix.
fn missing(validated: &ValidatedDeployment, served: Capabilities) -> Vec<String> {
    let gateway = validated.router.proxy.gateway().is_some();
    let groups = validated.pools.iter().find(|pool| pool.parallelism.nodes() > 1);
    let pool = (gateway && !served.inference_pool).then_some(
        "InferencePool (inference.networking.k8s.io/v1) is not served: run `llmd crds apply --with gaie`, or set \
         spec.router.mode to Standalone",
    );
    let route = (gateway && !served.http_route).then_some(
        "HTTPRoute (gateway.networking.k8s.io/v1) is not served: install the Gateway API and a gateway that knows \
         InferencePool, or set spec.router.mode to Standalone",
    );
    let groups = groups.filter(|_| !served.leader_worker_set).map(|pool| {
        format!(
            "LeaderWorkerSet (leaderworkerset.x-k8s.io/v1) is not served, and an engine of pool {} needs {} pods: install \
             the LeaderWorkerSet controller (https://lws.sigs.k8s.io), or lower parallelism.data to the ranks of one pod",
            pool.name,
            pool.parallelism.nodes()
        )
    });
    let claims = (validated.has_claims() && !served.resource_claims).then_some(
        "ResourceClaimTemplate (resource.k8s.io/v1) is not served: use Kubernetes 1.34 or newer, or name a resource in place \
         of deviceClassName",
    );
    pool.into_iter()
        .chain(route)
        .chain(claims)
        .map(str::to_owned)
        .chain(groups)
        .collect()
}

fn workloads(
    validated: &ValidatedDeployment,
    deployment: &LLMDeployment,
    rendered: &Rendered,
    earlier: &[Earlier],
    path: PathStatus,
    context: &Context,
) -> (Workloads, Option<Duration>) {
    let (namespace, name) = (&*validated.namespace, &*validated.name);
    let pods = context.stores.pods.of(namespace, name);
    let is_set = validated.rollout.strategy == RolloutStrategy::DisaggregatedSet;
    let look = |workload_name: &str, object: &str, desired: i32, nodes: i32, mine: &dyn Fn(&str) -> bool| {
        let live = context.stores.engines(
            nodes > 1 || is_set && workload_name != "router",
            namespace,
            object,
        );
        let mine: Vec<_> = pods
            .iter()
            .filter(|pod| mine(&pod.pool))
            .map(|pod| &pod.content)
            .collect();
        let mut seen = workload(
            workload_name,
            object,
            desired,
            live.as_deref().map(|live| &live.content),
            &mine,
        );
        observe::incomplete_groups(&mut seen, nodes, &mine);
        let again = context.shared.engine_logs.refine(&mut seen, &mine);
        (seen, again)
    };
    let router_object = format!("{name}-epp");
    let router_replicas = context
        .stores
        .deployments
        .get(namespace, &router_object)
        .and_then(|deployment| deployment.content.replicas)
        .unwrap_or(1);
    let pools = validated.pools.iter().map(|pool| {
        let (object, others) =
            rollout::workloads_of(pool, rendered, earlier, &context.stores, namespace, name);
        let nodes = pool.parallelism.nodes();
        let (mut seen, again) = look(&pool.name, &object, pool.replicas, nodes, &|label| {
            label == pool.name
        });
        seen.ready += others.ready;
        seen.total += others.total;
        (seen, again)
    });
    let (pools, again): (Vec<Workload>, Vec<_>) = pools.unzip();
    let (router, _) = look("router", &router_object, router_replicas, 1, &str::is_empty);
    let stopped = deployment.spec.stopped == Some(true);
    let accelerators = validated.pools.iter();
    let accelerators = accelerators
        .filter_map(|pool| Some(pool.replicas * pool.parallelism.nodes() * pool.accelerators.as_ref()?.count))
        .sum();
    let gateway = validated.router.proxy.gateway();
    let (url, place) = address(gateway, namespace, name);
    let route = gateway.map(|gateway| {
        let object = |kind| context.stores.routed(kind, namespace, name);
        let (http_route, pool) = (object(HTTPRoute::KIND), object(InferencePool::KIND));
        observe::route(
            &gateway.parents,
            namespace,
            http_route.as_deref().map(|kept| &kept.content),
            pool.as_deref().map(|kept| &kept.content),
        )
    });
    let workloads = Workloads {
        router,
        pools,
        units: if stopped {
            0
        } else {
            deployment.spec.replicas.unwrap_or(1)
        },
        model: validated.model.name().to_owned(),
        url,
        place,
        route,
        selector: format!("llmd.dev/deployment={name},llm-d.ai/inference-serving=true"),
        discovery: if gateway.is_some() || context.served.inference_pool {
            "InferencePool"
        } else {
            "EndpointSelector"
        },
        path,
        accelerators,
    };
    (workloads, again.into_iter().flatten().min())
}

/// Where clients reach the model: as a URL where it is known, and for people.
fn address(gateway: Option<&ValidatedGateway>, namespace: &str, name: &str) -> (Option<String>, String) {
    let Some(gateway) = gateway else {
        let url = format!("http://{name}-epp.{namespace}.svc/v1");
        return (Some(url.clone()), url);
    };
    // Whether a listener speaks TLS, and on which port, is the gateway's own affair.
    let hosts = gateway.hostnames.join(", ");
    let names = gateway.parents.iter().map(|parent| parent.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    let place = match hosts.as_str() {
        "" => format!("Gateway {names}"),
        hosts => format!("{hosts} through Gateway {names}"),
    };
    (None, place)
}

/// Tells what changed.
async fn announce(
    object: &DynamicObject,
    old: &LLMDeploymentStatus,
    new: &LLMDeploymentStatus,
    applied: &Applied,
    context: &Context,
) {
    let on = reference(object);
    let events = &context.shared.events;
    for (reason, action, list) in [
        ("Created", "Create", &applied.created),
        ("Updated", "Update", &applied.changed),
        ("Pruned", "Delete", &applied.pruned),
    ] {
        if !list.is_empty() {
            events.normal(&on, reason, action, list.join(", ")).await;
        }
    }
    if !applied.corrected.is_empty() {
        let note = format!(
            "changed by somebody else and set right: {}",
            applied.corrected.join(", ")
        );
        events.warning(&on, "DriftCorrected", "Update", note).await;
    }
    let ready = |status: &LLMDeploymentStatus| {
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == READY);
        found.map(|condition| {
            (
                condition.status.clone(),
                condition.reason.clone(),
                condition.message.clone(),
            )
        })
    };
    let (before, after) = (ready(old), ready(new));
    let told = |state: &Option<(String, String, String)>| {
        state
            .as_ref()
            .map(|(status, reason, _)| (status.clone(), reason.clone()))
    };
    if told(&before) == told(&after) {
        return;
    }
    match after {
        Some((status, reason, message)) if status == "True" => {
            events.normal(&on, &reason, "Reconcile", message).await;
        }
        Some((_, reason, message)) if holds(new, status::STALLED) => {
            events.warning(&on, &reason, "Reconcile", message).await;
        }
        Some((_, reason, message)) if !status::ON_THE_WAY.contains(&reason.as_str()) => {
            events.normal(&on, &reason, "Reconcile", message).await;
        }
        _ => {}
    }
}

fn holds(status: &LLMDeploymentStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

fn names(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn reference(object: &DynamicObject) -> ObjectReference {
    object.object_ref(&ApiResource::erase::<LLMDeployment>(&()))
}

fn owner_reference(object: &DynamicObject) -> OwnerReference {
    let resource = ApiResource::erase::<LLMDeployment>(&());
    OwnerReference {
        api_version: resource.api_version,
        kind: resource.kind,
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(text: &str) -> ValidatedDeployment {
        let Some(Document::Deployment(deployment)) = llmd_render::decode(text).unwrap().into_iter().next()
        else {
            panic!("no deployment")
        };
        let inputs = Inputs {
            deployment: &deployment,
            paths: &[],
            accelerators: &[],
            namespace: "default",
            kept: None,
        };
        validate(inputs).unwrap().deployment
    }

    #[test]
    fn a_kind_that_is_not_served_is_told_with_its_fix_and_only_where_it_is_needed() {
        let wide = validated(include_str!("../../../examples/wide-expert-parallel.yaml"));
        let told = missing(&wide, Capabilities::default());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("install the LeaderWorkerSet controller"),
            "{told:?}"
        );
        let served = Capabilities {
            leader_worker_set: true,
            ..Capabilities::default()
        };
        assert!(missing(&wide, served).is_empty());
        let minimal = validated(include_str!("../../../examples/minimal.yaml"));
        assert!(missing(&minimal, Capabilities::default()).is_empty());
        let gateway = validated(include_str!("../../../examples/gateway.yaml"));
        assert_eq!(missing(&gateway, served).len(), 2);
    }
}
