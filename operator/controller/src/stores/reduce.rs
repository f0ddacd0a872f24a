//! What is kept of an object that arrives: the least that drift, causes and status need.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::json;
use xxhash_rust::xxh64::xxh64;

use super::{DEPLOYMENT_LABEL, POOL_LABEL};

/// Annotation that the Deployment controller keeps on Deployments.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Holds [`live_mark`] in the place of what it is made of; in our copies only.
const MARK: &str = "llmd.dev/live-mark";

/// Of all that nobody but us should change. Kinds with a generation change it with their spec; status and the
/// Deployment controller's own annotation do not count.
pub(crate) fn live_mark(meta: &ObjectMeta) -> String {
    let annotations = meta.annotations.as_ref();
    if let Some(mark) = annotations.and_then(|annotations| annotations.get(MARK)) {
        return mark.clone();
    }
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.remove(REVISION);
    let version = meta.generation.map_or_else(
        || meta.resource_version.clone().unwrap_or_default(),
        |generation| generation.to_string(),
    );
    let text = json!([meta.uid, version, meta.labels, annotations, meta.owner_references]).to_string();
    format!("{:016x}", xxh64(text.as_bytes(), 0))
}

/// Identity, owners, the labels by which it is found, and the mark.
pub(super) fn metadata(meta: &mut ObjectMeta) {
    let mark = live_mark(meta);
    let mut labels = meta.labels.take().unwrap_or_default();
    labels.retain(|label, _| label == DEPLOYMENT_LABEL || label == POOL_LABEL);
    *meta = ObjectMeta {
        name: meta.name.take(),
        namespace: meta.namespace.take(),
        uid: meta.uid.take(),
        resource_version: meta.resource_version.take(),
        generation: meta.generation,
        creation_timestamp: meta.creation_timestamp.take(),
        deletion_timestamp: meta.deletion_timestamp.take(),
        owner_references: meta.owner_references.take(),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(MARK.to_owned(), mark)])),
        ..ObjectMeta::default()
    };
}

/// Also the wanted number of pods and the status.
pub(super) fn deployment(deployment: &mut Deployment) {
    metadata(&mut deployment.metadata);
    if let Some(spec) = &mut deployment.spec {
        *spec = DeploymentSpec {
            replicas: spec.replicas,
            ..DeploymentSpec::default()
        };
    }
}

/// Also the status.
pub(super) fn routed(object: &mut DynamicObject) {
    metadata(&mut object.metadata);
    object.data = json!({"status": object.data["status"].take()});
}

/// Also the node and, of the status, conditions and containers.
pub(super) fn pod(pod: &mut Pod) {
    metadata(&mut pod.metadata);
    pod.metadata.owner_references = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        *spec = PodSpec {
            node_name: spec.node_name.take(),
            ..PodSpec::default()
        };
    }
    if let Some(status) = &mut pod.status {
        let containers = |list: Option<Vec<ContainerStatus>>| {
            list.map(|list| list.into_iter().map(container).collect::<Vec<_>>())
        };
        *status = PodStatus {
            phase: status.phase.take(),
            reason: status.reason.take(),
            conditions: status.conditions.take(),
            init_container_statuses: containers(status.init_container_statuses.take()),
            container_statuses: containers(status.container_statuses.take()),
            ..PodStatus::default()
        };
    }
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
            "ownerReferences": [{"apiVersion": "v", "kind": "k", "name": "d", "uid": "o", "controller": true}],
        }))
        .unwrap()
    }

    #[test]
    fn a_copy_has_the_mark_of_the_whole_object() {
        let (whole, mut copy) = (meta(), meta());
        metadata(&mut copy);
        assert_eq!(live_mark(&copy), live_mark(&whole));
        assert!(
            copy.labels.as_ref().is_some_and(|labels| labels.len() == 1),
            "{copy:?}"
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
