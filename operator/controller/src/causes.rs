//! What is wrong with a pod, named from closed tables: text of logs and images never gets through.
//!
//! ```text
//!  pod ─▶ scheduling ─▶ containers ─▶ engine (termination message, looked up, never copied) ─▶ Cause
//! ```

mod containers;
mod engine;
mod phase;
mod progress;
mod scheduling;
mod workload;

use k8s_openapi::api::core::v1::Pod;

pub use engine::{engine_failure, engine_failure_in_log};
pub use phase::{Phase, phase};
pub use progress::progress;
pub(crate) use workload::of_rollout;
pub use workload::of_workload;

/// Reason of a crash that nothing explains so far.
pub(crate) const CRASH_LOOP: &str = "CrashLoop";

/// Every reason of a [`Cause`]. A new one gets its row in docs/kubernetes/status.md.
pub const REASONS: [&str; 26] = [
    "AcceleratorOutOfMemory",
    "AdmissionDenied",
    "BadEngineFlag",
    "ClaimNotBound",
    "ContainerCannotStart",
    CRASH_LOOP,
    "DiskFull",
    "DriverTooOld",
    "Evicted",
    "GroupIncomplete",
    "ImagePullFailed",
    "MissingClaim",
    "MissingConfigMap",
    "MissingDeviceClass",
    "MissingKey",
    "MissingSecret",
    "ModelAccessDenied",
    "NoEgress",
    "NodeNotReady",
    "OutOfMemory",
    "PortInUse",
    "QuotaExceeded",
    "ServiceAccountMissing",
    "Unschedulable",
    "UnsupportedAccelerator",
    "UnsupportedModel",
];

/// One thing that keeps a deployment from being ready.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// Reason of the condition, in CamelCase.
    pub reason: &'static str,
    /// What is wrong, and what to do about it.
    pub message: String,
    /// Nothing will change until somebody does something.
    pub is_stalled: bool,
}

impl Cause {
    /// A cause that lasts until somebody acts.
    pub(crate) fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(REASONS.contains(&reason), "{reason} is not in REASONS");
        Self {
            reason,
            message: message.into(),
            is_stalled: true,
        }
    }

    /// A cause that may pass by itself.
    pub(crate) fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            is_stalled: false,
            ..Self::stalled(reason, message)
        }
    }
}

/// What is wrong with `pod`; `None` when it is ready or on its way.
pub fn of_pod(pod: &Pod) -> Option<Cause> {
    let status = pod.status.as_ref()?;
    if is_ready(pod) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    scheduling::of(status)
        .or_else(|| containers::of(pod, status))
        .or_else(|| node_gone(pod, status))
}

/// Whether the pod takes requests.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, found.reason.as_deref().unwrap_or_default()))
}

/// A node that does not answer leaves its pods as they last were, but no longer ready.
fn node_gone(pod: &Pod, status: &k8s_openapi::api::core::v1::PodStatus) -> Option<Cause> {
    let (ready, _) = condition(pod, "Ready")?;
    let mut containers = status.container_statuses.iter().flatten().peekable();
    containers.peek()?;
    let looks_well = ready == "False" && containers.all(|container| container.ready);
    let is_lost = status.reason.as_deref() == Some("NodeLost") || looks_well;
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    is_lost.then(|| {
        Cause::passing(
            "NodeNotReady",
            format!("node {node} does not answer: see `kubectl describe node {node}`; its pods move after their toleration, 5 min by default"),
        )
    })
}

#[cfg(test)]
mod tests;
