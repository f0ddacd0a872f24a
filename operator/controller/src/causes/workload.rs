//! Workloads whose pods are not even created.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};

use super::Cause;
use super::scheduling::between;

/// What keeps the ReplicaSets of `deployment` from creating pods.
pub fn of_workload(deployment: &Deployment) -> Option<Cause> {
    of_rollout(deployment.status.as_ref()?)
}

/// Likewise, of its status.
pub(crate) fn of_rollout(status: &DeploymentStatus) -> Option<Cause> {
    let conditions = status.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let said = failure.message.as_deref().unwrap_or_default();
    if let Some(quota) = between(said, "exceeded quota: ", ",") {
        let wanted = between(said, "requested: ", ", used").unwrap_or("more than is left");
        let message = format!("ResourceQuota {quota} is used up ({wanted}): raise it, or ask for less");
        return Some(Cause::stalled("QuotaExceeded", message));
    }
    if said.contains("failed quota") {
        let message =
            "a ResourceQuota wants requests and limits for every container: set spec.pools[].resources";
        return Some(Cause::stalled("QuotaExceeded", message));
    }
    if said.contains("violates PodSecurity") {
        let level = between(said, "violates PodSecurity \"", "\"").unwrap_or("of the namespace");
        let message = format!(
            "Pod Security {level} forbids the pods: use images without root, or relax the namespace's label"
        );
        return Some(Cause::stalled("AdmissionDenied", message));
    }
    if said.contains("serviceaccount") && said.contains("not found") {
        return Some(Cause::passing(
            "ServiceAccountMissing",
            "the pods' ServiceAccount does not exist yet",
        ));
    }
    let message = "pods are refused: see `kubectl describe replicaset`";
    Some(Cause::stalled("AdmissionDenied", message))
}
