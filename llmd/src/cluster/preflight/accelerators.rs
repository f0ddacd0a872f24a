//! Nodes for the pods: accelerators, labels, taints.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Node, PodSpec, Taint, Toleration};
use kube::api::{Api, ListParams};

use super::super::quantity::{shown, thousandths};
use super::super::{Session, api_failure, is_forbidden};
use super::{Check, Verdict};
use crate::exit::Failure;

const CHECK: &str = "nodes";

pub(super) async fn check(session: &Session, workloads: &[&Deployment]) -> Result<Vec<Check>, Failure> {
    let nodes = match Api::<Node>::all(session.client.clone())
        .list(&ListParams::default())
        .await
    {
        Ok(list) => list.items,
        Err(error) if is_forbidden(&error) => return Ok(vec![Check::unknown(CHECK, &error)]),
        Err(error) => return Err(api_failure("cannot list nodes", &error)),
    };
    Ok(workloads.iter().filter_map(|one| workload(one, &nodes)).collect())
}

fn workload(workload: &Deployment, nodes: &[Node]) -> Option<Check> {
    let name = workload.metadata.name.as_deref().unwrap_or_default();
    let spec = workload.spec.as_ref()?;
    let pod = spec.template.spec.as_ref()?;
    let replicas = i128::from(spec.replicas.unwrap_or(1));
    let mut fitting = Vec::new();
    for node in nodes {
        if !labels_match(pod, node) {
            continue;
        }
        fitting.push((node, untolerated(pod, node)));
    }
    if fitting.is_empty()
        && pod
            .node_selector
            .as_ref()
            .is_some_and(|wanted| !wanted.is_empty())
    {
        return Some(Check::new(
            CHECK,
            Verdict::Failed,
            format!(
                "{name}: none of {} nodes has the labels {}",
                nodes.len(),
                selector(pod)
            ),
            "kubectl get nodes --show-labels; then change scheduling.nodeSelector or label the nodes",
        ));
    }
    let tolerated: Vec<&Node> = fitting
        .iter()
        .filter(|(_, taint)| taint.is_none())
        .map(|(node, _)| *node)
        .collect();
    if tolerated.is_empty() {
        let (verdict, found, fix) = match fitting.iter().find_map(|(_, taint)| taint.as_ref()) {
            Some(taint) => (
                Verdict::Failed,
                format!(
                    "{name}: all {} fitting nodes have taints, such as {}",
                    fitting.len(),
                    taint.key
                ),
                format!("add a toleration for {} to scheduling.tolerations", taint.key),
            ),
            None => (
                Verdict::Warning,
                format!("{name}: the cluster has no node now"),
                "expected where an autoscaler adds nodes on demand".to_owned(),
            ),
        };
        return Some(Check::new(CHECK, verdict, found, fix));
    }
    for (resource, per_pod) in requests(pod) {
        let allocatable = |node: &&Node| {
            let quantity = node.status.as_ref()?.allocatable.as_ref()?.get(&resource)?;
            thousandths(&quantity.0)
        };
        let sizes: Vec<i128> = tolerated.iter().filter_map(allocatable).collect();
        let largest = sizes.iter().copied().max().unwrap_or(0);
        if largest < per_pod {
            return Some(Check::new(
                CHECK,
                Verdict::Failed,
                format!(
                    "{name}: a pod needs {} {resource}, the largest of {} fitting nodes has {}",
                    shown(&resource, per_pod),
                    tolerated.len(),
                    shown(&resource, largest)
                ),
                if resource.contains('/') {
                    format!(
                        "install the device plugin for {resource}, or choose another accelerator or a smaller \
                         parallelism.tensor"
                    )
                } else {
                    format!("lower resources.requests.{resource} of the pool")
                },
            ));
        }
        let room: i128 = sizes.iter().map(|size| size / per_pod.max(1)).sum();
        if resource.contains('/') && room < replicas {
            return Some(Check::new(
                CHECK,
                Verdict::Failed,
                format!(
                    "{name}: {replicas} pods with {} {resource} each, but the nodes hold {room} even when empty",
                    shown(&resource, per_pod)
                ),
                "lower the pool's replicas or add nodes",
            ));
        }
    }
    Some(Check::ok(
        CHECK,
        format!("{name}: {} of {} nodes fit", tolerated.len(), nodes.len()),
    ))
}

/// Containers that run as long as the pod: its own and its sidecars.
pub(super) fn running_containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = pod.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    sidecars.chain(&pod.containers)
}

/// What all containers of a pod request together, in thousandths.
fn requests(pod: &PodSpec) -> BTreeMap<String, i128> {
    let mut sum = BTreeMap::new();
    for container in running_containers(pod) {
        let Some(resources) = &container.resources else {
            continue;
        };
        let mut of_container = resources.limits.clone().unwrap_or_default();
        // Kubernetes takes the limit of an accelerator as its request; for the others the request counts
        of_container.retain(|name, _| name.contains('/'));
        of_container.extend(resources.requests.clone().unwrap_or_default());
        for (name, quantity) in of_container {
            *sum.entry(name).or_default() += thousandths(&quantity.0).unwrap_or(0);
        }
    }
    sum
}

fn labels_match(pod: &PodSpec, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    pod.node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn selector(pod: &PodSpec) -> String {
    pod.node_selector
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// The first taint that keeps the pod away.
fn untolerated(pod: &PodSpec, node: &Node) -> Option<Taint> {
    let tolerations: Vec<&Toleration> = pod.tolerations.iter().flatten().collect();
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    taints
        .iter()
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        .cloned()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (if key.is_empty() { exists } else { key == taint.key })
        && (exists
            || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}
