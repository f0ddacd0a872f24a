//! Where a pod is on its way to being ready, and for how long.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

/// A step on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No node yet.
    Scheduling,
    /// On a node: image and volumes.
    PullingImage,
    /// The process runs and does not answer yet. The phases below are parts of this one, known from its log only.
    Loading,
    /// Weights come from the model hub.
    Downloading,
    /// Weights go into the accelerators' memory.
    LoadingWeights,
    /// Kernels and graphs are compiled.
    Compiling,
    /// Memory is measured, graphs are captured, first requests are tried.
    WarmingUp,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheduling => "waiting for a node",
            Self::PullingImage => "pulling the image",
            Self::Loading => "loading the model",
            Self::Downloading => "downloading the model",
            Self::LoadingWeights => "loading the weights",
            Self::Compiling => "compiling",
            Self::WarmingUp => "warming up",
        })
    }
}

/// The step of a pod that is not ready, and since when it is in it.
pub fn phase(pod: &Pod) -> Option<(Phase, Timestamp)> {
    if super::is_ready(pod) {
        return None;
    }
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    let status = pod.status.as_ref()?;
    let scheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "True");
    let Some(scheduled) = scheduled else {
        return Some((Phase::Scheduling, created));
    };
    let scheduled = scheduled
        .last_transition_time
        .as_ref()
        .map_or(created, |time| time.0);
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let started = containers
        .iter()
        .filter(|container| !container.ready)
        .filter_map(|container| container.state.as_ref()?.running.as_ref()?.started_at.as_ref())
        .map(|time| time.0)
        .max();
    Some(match started {
        Some(started) => (Phase::Loading, started),
        None => (Phase::PullingImage, scheduled),
    })
}
