//! What is kept of an object that arrives: the least that drift, causes and status need.
//!
//! Thirteen objects belong to one resource, and an `ObjectMeta` with two short maps is 1.5 KiB: a thousand resources
//! would cost more memory than everything else that the operator does.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::DynamicObject;
use llmd_crds::LeaderWorkerSetStatus;
use serde_json::{Value, json};
use xxhash_rust::xxh64::xxh64;

use super::{DEPLOYMENT_LABEL, POOL_LABEL, REVISION_LABEL};
use crate::rollout::INITIAL;

/// Annotation that the Deployment controller keeps on Deployments.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Namespace and name.
pub(super) type Key = (Arc<str>, Arc<str>);

/// An object of ours.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    /// Name of the object; its namespace is its owner's.
    pub(crate) name: Arc<str>,
    /// The resource it belongs to, by its label.
    pub(super) owner: Key,
    /// What `apply` and `prune` compare.
    pub(crate) identity: Identity,
    /// The pool it belongs to, by its label; empty for the router's.
    pub(crate) pool: Box<str>,
    /// What the kind is watched for.
    pub(crate) content: T,
}

/// Which object it is, whose, and in which state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Unique in the cluster and in time.
    pub(crate) uid: Box<str>,
    /// Changes with every write.
    pub(crate) version: Box<str>,
    /// UID of the controlling owner.
    pub(crate) controller: Option<Box<str>>,
    /// It is being deleted.
    pub(crate) is_leaving: bool,
    /// [`live_mark`].
    pub(crate) mark: u64,
}

impl Identity {
    /// Of an object with this metadata.
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let boxed = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|reference| reference.controller == Some(true));
        Self {
            uid: boxed(&meta.uid),
            version: boxed(&meta.resource_version),
            controller: controller.map(|reference| reference.uid.as_str().into()),
            is_leaving: meta.deletion_timestamp.is_some(),
            mark: live_mark(meta),
        }
    }
}

impl<T> Kept<T> {
    /// `None` for an object without our label.
    pub(super) fn new(meta: &ObjectMeta, content: T) -> Option<Self> {
        let label = |name| meta.labels.as_ref()?.get(name).map(String::as_str);
        Some(Self {
            name: meta.name.as_deref()?.into(),
            owner: (meta.namespace.as_deref()?.into(), label(DEPLOYMENT_LABEL)?.into()),
            identity: Identity::of(meta),
            pool: label(POOL_LABEL).unwrap_or_default().into(),
            content,
        })
    }

    pub(super) fn key(&self) -> Key {
        (Arc::clone(&self.owner.0), Arc::clone(&self.name))
    }
}

/// Of all that nobody but us should change. Kinds with a generation change it with their spec; status and the
/// Deployment controller's own annotation do not count.
pub(crate) fn live_mark(meta: &ObjectMeta) -> u64 {
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.remove(REVISION);
    let version = meta.generation.map_or_else(
        || meta.resource_version.clone().unwrap_or_default(),
        |generation| generation.to_string(),
    );
    let text = json!([meta.uid, version, meta.labels, annotations, meta.owner_references]).to_string();
    xxh64(text.as_bytes(), 0)
}

/// How far a Deployment is, or a LeaderWorkerSet: then pods are groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rollout {
    /// Of the newest spec.
    pub(crate) generation: Option<i64>,
    /// Pods that its spec wants.
    pub(crate) replicas: Option<i32>,
    /// What its engines share with those of other roles.
    pub(crate) revision: Option<Box<str>>,
    /// Pods that it had when another revision began to take its place.
    pub(crate) initial: Option<i32>,
    /// When it was made.
    pub(crate) created: Option<Time>,
    /// What its controller says.
    pub(crate) status: Option<DeploymentStatus>,
}

pub(super) fn rollout(deployment: Deployment) -> (ObjectMeta, Rollout) {
    let rollout = Rollout {
        generation: deployment.metadata.generation,
        revision: revision(&deployment.metadata),
        initial: initial(&deployment.metadata),
        created: deployment.metadata.creation_timestamp.clone(),
        replicas: deployment.spec.and_then(|spec| spec.replicas),
        status: deployment.status,
    };
    (deployment.metadata, rollout)
}

fn revision(meta: &ObjectMeta) -> Option<Box<str>> {
    Some(meta.labels.as_ref()?.get(REVISION_LABEL)?.as_str().into())
}

fn initial(meta: &ObjectMeta) -> Option<i32> {
    meta.annotations.as_ref()?.get(INITIAL)?.parse().ok()
}

/// A LeaderWorkerSet, with its counts of groups in the place of those of pods.
pub(super) fn group(mut object: DynamicObject) -> (ObjectMeta, Rollout) {
    let status = object.data.get_mut("status").map(Value::take);
    let status: Option<LeaderWorkerSetStatus> = status.and_then(|status| serde_json::from_value(status).ok());
    let rollout = Rollout {
        generation: object.metadata.generation,
        revision: revision(&object.metadata),
        initial: initial(&object.metadata),
        created: object.metadata.creation_timestamp.clone(),
        replicas: object
            .data
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .and_then(|replicas| i32::try_from(replicas).ok()),
        status: status.map(|status| DeploymentStatus {
            observed_generation: status.observed_generation,
            ready_replicas: Some(status.ready_replicas),
            updated_replicas: Some(status.updated_replicas),
            replicas: Some(status.replicas),
            ..DeploymentStatus::default()
        }),
    };
    (object.metadata, rollout)
}

/// Metadata without the maps, and the status.
pub(super) fn routed(object: DynamicObject) -> (ObjectMeta, DynamicObject) {
    let (meta, types, mut data) = (object.metadata, object.types, object.data);
    let kept = DynamicObject {
        types,
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            generation: meta.generation,
            ..ObjectMeta::default()
        },
        data: json!({"status": data.get_mut("status").map_or(Value::Null, Value::take)}),
    };
    (meta, kept)
}

/// Name, times, the node and, of the status, conditions and containers.
pub(super) fn pod(pod: Pod) -> (ObjectMeta, Pod) {
    let meta = pod.metadata;
    let spec = pod.spec.map(|spec| PodSpec {
        node_name: spec.node_name,
        ..PodSpec::default()
    });
    let containers = |list: Option<Vec<ContainerStatus>>| {
        list.map(|list| list.into_iter().map(container).collect::<Vec<_>>())
    };
    let status = pod.status.map(|status| PodStatus {
        phase: status.phase,
        reason: status.reason,
        conditions: status.conditions,
        init_container_statuses: containers(status.init_container_statuses),
        container_statuses: containers(status.container_statuses),
        ..PodStatus::default()
    });
    let metadata = ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        creation_timestamp: meta.creation_timestamp.clone(),
        deletion_timestamp: meta.deletion_timestamp.clone(),
        ..ObjectMeta::default()
    };
    (
        meta,
        Pod {
            metadata,
            spec,
            status,
        },
    )
}

fn container(status: ContainerStatus) -> ContainerStatus {
    ContainerStatus {
        name: status.name,
        image: status.image,
        ready: status.ready,
        restart_count: status.restart_count,
        started: status.started,
        state: status.state,
        last_state: status.last_state,
        ..ContainerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> ObjectMeta {
        serde_json::from_value(json!({
            "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "generation": 3,
            "labels": {DEPLOYMENT_LABEL: "d", "x": "y"}, "annotations": {"k": "v", REVISION: "4"},
            "ownerReferences": [
                {"apiVersion": "v", "kind": "k", "name": "e", "uid": "p"},
                {"apiVersion": "v", "kind": "k", "name": "d", "uid": "o", "controller": true},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn an_object_is_kept_under_the_resource_that_its_label_names() {
        let kept = Kept::new(&meta(), ()).unwrap();
        assert_eq!((&*kept.owner.0, &*kept.owner.1, &*kept.name), ("b", "d", "a"));
        assert_eq!(kept.identity.controller.as_deref(), Some("o"));
        let stranger = ObjectMeta {
            labels: None,
            ..meta()
        };
        assert!(Kept::new(&stranger, ()).is_none());
    }

    #[test]
    fn groups_are_counted_like_pods() {
        let object = |status: Value| {
            let object = json!({
                "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
                "metadata": {"name": "a", "generation": 3}, "spec": {"replicas": 2}, "status": status,
            });
            group(serde_json::from_value(object).unwrap()).1
        };
        let rollout =
            object(json!({"observedGeneration": 3, "readyReplicas": 1, "replicas": 2, "updatedReplicas": 2}));
        let status = rollout.status.unwrap();
        assert_eq!((rollout.generation, rollout.replicas), (Some(3), Some(2)));
        assert_eq!(
            (status.ready_replicas, status.updated_replicas),
            (Some(1), Some(2))
        );
        assert_eq!(
            object(Value::Null)
                .status
                .and_then(|status| status.observed_generation),
            None
        );
    }

    #[test]
    fn a_mark_tells_a_change_of_ours_from_the_controllers() {
        let mark = live_mark(&meta());
        let changed = |change: fn(&mut ObjectMeta)| {
            let mut other = meta();
            change(&mut other);
            live_mark(&other) != mark
        };
        assert!(!changed(|meta| meta.resource_version = Some("8".to_owned())));
        assert!(!changed(|meta| {
            meta.annotations
                .get_or_insert_default()
                .insert(REVISION.to_owned(), "5".to_owned());
        }));
        assert!(changed(|meta| meta.generation = Some(4)));
        assert!(changed(|meta| {
            meta.labels.get_or_insert_default().remove("x");
        }));
        assert!(changed(|meta| meta.owner_references = None));
    }
}
