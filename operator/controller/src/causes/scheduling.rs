//! Pods that find no node.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodStatus;

use super::Cause;

/// What the scheduler says, put into a cause: resource names, claim names and taints are its own words.
pub(super) fn of(status: &PodStatus) -> Option<Cause> {
    let conditions = status.conditions.as_ref()?;
    let scheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let said = scheduled.message.as_deref().unwrap_or_default();
    if let Some(claim) = between(said, "persistentvolumeclaim \"", "\"") {
        return Some(if said.contains("not found") {
            Cause::stalled(
                "MissingClaim",
                format!("PersistentVolumeClaim {claim} does not exist in this namespace: create it"),
            )
        } else {
            Cause::stalled(
                "ClaimNotBound",
                format!("PersistentVolumeClaim {claim} is not bound: see `kubectl describe pvc {claim}`"),
            )
        });
    }
    if said.contains("unbound immediate PersistentVolumeClaims") {
        let message = "a PersistentVolumeClaim is not bound: see `kubectl get pvc`";
        return Some(Cause::stalled("ClaimNotBound", message));
    }
    if let Some(class) = between(said, "device class ", " does not exist") {
        let message = format!(
            "cannot schedule: no DeviceClass {class}: install the driver of these devices, or name one that `kubectl get \
             deviceclasses` lists"
        );
        return Some(Cause::stalled("MissingDeviceClass", message));
    }
    if said.contains("cannot allocate all claims") || said.contains("resourceclaim in use") {
        let message = "cannot schedule: no node has the devices of its claims left: add nodes, free some, or ask for less \
                       (`kubectl get resourceslices`)";
        return Some(Cause::passing("Unschedulable", message));
    }
    // Not stalled: nodes come, by an autoscaler or as others finish.
    let short = insufficient(said);
    if !short.is_empty() {
        let list = short.into_iter().collect::<Vec<_>>().join(", ");
        let message =
            format!("cannot schedule: not enough {list} on any node: add nodes, free some, or ask for less");
        return Some(Cause::passing("Unschedulable", message));
    }
    if let Some(taint) = between(said, "untolerated taint {", "}") {
        let taint = taint.trim_end_matches(": ");
        let message = format!(
            "cannot schedule: the nodes have the taint {taint}: add it to spec.scheduling.tolerations"
        );
        return Some(Cause::passing("Unschedulable", message));
    }
    if said.contains("didn't match Pod's node affinity/selector") {
        let message = "cannot schedule: no node has the labels of spec.scheduling.nodeSelector (or of the AcceleratorProfile): see `kubectl get nodes --show-labels`";
        return Some(Cause::passing("Unschedulable", message));
    }
    if said.contains("no nodes available") {
        let message = "cannot schedule: the cluster has no node that takes pods";
        return Some(Cause::passing("Unschedulable", message));
    }
    let message = "cannot schedule: see `kubectl describe pod`";
    (scheduled.reason.as_deref() == Some("Unschedulable")).then(|| Cause::passing("Unschedulable", message))
}

/// The resources after each `Insufficient `.
fn insufficient(said: &str) -> BTreeSet<&str> {
    said.split("Insufficient ")
        .skip(1)
        .filter_map(|rest| rest.split([',', ' ']).next())
        .map(|name| name.trim_end_matches('.'))
        .filter(|name| !name.is_empty())
        .collect()
}

/// What stands between two marks, at most 100 characters.
pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    (length <= 100).then(|| &text[start..start + length])
}
