//! What a cluster shows of one deployment: the resource's status, its workloads, pods and events.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams};
use llmd_operator::EngineLog;
use serde::Serialize;
use serde_json::Value;

use super::events::{self, Happening};
use super::kinds::{self, DEPLOYMENT_LABEL};
use super::{Session, api_failure};
use crate::exit::Failure;

/// Pods whose engines' logs are looked at; more of them say the same.
const LOGS: usize = 4;

/// Everything, from cause to effect. The field names are stable: scripts read them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Observed {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// Reason and message of the `Ready` condition; what stands in for them when there is none yet.
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) path: String,
    pub(crate) url: Option<String>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) pods: Vec<PodState>,
    pub(crate) events: Vec<Happening>,
}

/// One condition of the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) last_transition_time: String,
}

/// A Deployment of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) desired: i32,
    pub(crate) ready: i32,
    pub(crate) updated: i32,
    pub(crate) cause: Option<Cause>,
}

/// A pod of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodState {
    pub(crate) name: String,
    pub(crate) ready: bool,
    pub(crate) phase: String,
    /// The step of an engine's start, as its log tells it.
    pub(crate) step: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) restarts: i32,
    pub(crate) cause: Option<Cause>,
}

/// What keeps it from being ready, in the operator's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl From<llmd_operator::causes::Cause> for Cause {
    fn from(cause: llmd_operator::causes::Cause) -> Self {
        Self {
            reason: cause.reason.to_owned(),
            message: cause.message,
        }
    }
}

/// Looks at everything once.
pub(crate) async fn look(session: &Session, name: &str) -> Result<Observed, Failure> {
    let resource = kinds::deployment(session, name).await?;
    let of_deployment = ListParams::default().labels(&format!("{DEPLOYMENT_LABEL}={name}"));
    let deployments: Api<Deployment> = Api::namespaced(session.client.clone(), &session.namespace);
    let deployments = deployments
        .list(&of_deployment)
        .await
        .map_err(|error| api_failure("cannot list Deployments", &error))?
        .items;
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    let pods = pods
        .list(&of_deployment)
        .await
        .map_err(|error| api_failure("cannot list pods", &error))?
        .items;
    let sets: Api<ReplicaSet> = Api::namespaced(session.client.clone(), &session.namespace);
    // only for events of their failures, so a user who may not list them loses little
    let sets = sets
        .list(&of_deployment)
        .await
        .map(|list| list.items)
        .unwrap_or_default();

    let mut objects = BTreeSet::from([("LLMDeployment".to_owned(), name.to_owned())]);
    let named = |name: &Option<String>| name.clone().unwrap_or_default();
    objects.extend(
        deployments
            .iter()
            .map(|one| ("Deployment".to_owned(), named(&one.metadata.name))),
    );
    objects.extend(
        sets.iter()
            .map(|one| ("ReplicaSet".to_owned(), named(&one.metadata.name))),
    );
    objects.extend(
        pods.iter()
            .map(|one| ("Pod".to_owned(), named(&one.metadata.name))),
    );
    let events = events::about(session, &objects).await?;

    let mut seen = of_resource(session, name, &resource);
    seen.workloads = deployments.iter().map(workload).collect();
    let mut states: Vec<PodState> = pods.iter().map(pod_state).collect();
    let logs = pods.iter().zip(&mut states).filter(|(_, state)| !state.ready);
    let logs = logs.take(LOGS).map(|(pod, state)| async {
        match llmd_operator::read_engine_log(&session.client, pod).await {
            Some(EngineLog::Failure(cause)) => state.cause = Some(cause.into()),
            Some(EngineLog::Progress(phase, _)) => state.step = Some(phase.to_string()),
            None => {}
        }
    });
    futures_util::future::join_all(logs).await;
    seen.pods = states;
    seen.events = events;
    Ok(seen)
}

/// The part that the resource itself tells.
fn of_resource(session: &Session, name: &str, resource: &DynamicObject) -> Observed {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = &resource.data["status"];
    let mut conditions: Vec<Condition> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| Condition {
            kind: text(&one["type"]),
            status: text(&one["status"]),
            reason: text(&one["reason"]),
            message: text(&one["message"]),
            last_transition_time: text(&one["lastTransitionTime"]),
        })
        .collect();
    // effect first, then what it follows from
    conditions.sort_by_key(|one| (one.kind != "Ready", one.kind != "Stalled", one.kind.clone()));
    let is_current = status["observedGeneration"].as_i64() == resource.metadata.generation;
    let ready = conditions.iter().find(|one| one.kind == "Ready");
    let (reason, message) = match ready {
        None => (
            "NotObserved".to_owned(),
            "no operator has looked at it: see `kubectl get deployment -A -l app.kubernetes.io/name=llmd-operator`"
                .to_owned(),
        ),
        Some(_) if !is_current => (
            "Outdated".to_owned(),
            "the operator has not looked at the newest change yet".to_owned(),
        ),
        Some(ready) => (ready.reason.clone(), ready.message.clone()),
    };
    let path = |field: &str| {
        let pinned = text(&status["path"][field]);
        let own = match field {
            "name" => "path",
            _ => "pathVersion",
        };
        if pinned.is_empty() {
            text(&resource.data["spec"][own])
        } else {
            pinned
        }
    };
    Observed {
        namespace: session.namespace.clone(),
        name: name.to_owned(),
        ready: is_current && ready.is_some_and(|ready| ready.status == "True"),
        reason,
        message,
        path: format!("{} {}", path("name"), path("version")).trim().to_owned(),
        url: status["url"].as_str().map(str::to_owned),
        conditions,
        workloads: Vec::new(),
        pods: Vec::new(),
        events: Vec::new(),
    }
}

fn workload(deployment: &Deployment) -> Workload {
    let status = deployment.status.as_ref();
    Workload {
        name: deployment.metadata.name.clone().unwrap_or_default(),
        desired: deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        updated: status.and_then(|status| status.updated_replicas).unwrap_or(0),
        cause: llmd_operator::causes::of_workload(deployment).map(Cause::from),
    }
}

fn pod_state(pod: &Pod) -> PodState {
    let status = pod.status.as_ref();
    PodState {
        name: pod.metadata.name.clone().unwrap_or_default(),
        ready: llmd_operator::causes::is_ready(pod),
        phase: if pod.metadata.deletion_timestamp.is_some() {
            "Terminating".to_owned()
        } else {
            status.and_then(|status| status.phase.clone()).unwrap_or_default()
        },
        step: None,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        restarts: status
            .and_then(|status| status.container_statuses.as_ref())
            .into_iter()
            .flatten()
            .map(|container| container.restart_count)
            .sum(),
        cause: llmd_operator::causes::of_pod(pod).map(Cause::from),
    }
}
