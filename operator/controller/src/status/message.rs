//! The one line that says how a deployment is.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::Facts;
use crate::observe::{RouteState, Workload};

/// Most mistakes or causes that a message lists.
const LISTED: usize = 3;

/// What `Ready` says.
pub(super) struct Verdict {
    pub(super) is_ready: bool,
    pub(super) is_stalled: bool,
    pub(super) reason: Cow<'static, str>,
    pub(super) message: String,
}

/// The most severe thing first: spec, dependencies, objects, router, engines.
pub(super) fn verdict(facts: &Facts, now: Timestamp) -> Verdict {
    for (wrong, reason) in [
        (&facts.invalid, "InvalidSpec"),
        (&facts.missing, "DependencyMissing"),
        (&facts.refused, "ApplyFailed"),
    ] {
        if !wrong.is_empty() {
            return Verdict {
                is_ready: false,
                is_stalled: true,
                reason: reason.into(),
                message: listed(wrong),
            };
        }
    }
    let Some(workloads) = &facts.workloads else {
        return waiting("ApplyingResources", "objects are being applied".to_owned());
    };
    let all = || std::iter::once(&workloads.router).chain(&workloads.pools);
    let not_ready = || all().filter(|workload| !workload.is_ready());
    // One that needs somebody comes before one that only takes its time.
    let first = not_ready()
        .find(|workload| workload.causes.first().is_some_and(|(cause, _)| cause.is_stalled))
        .or_else(|| not_ready().find(|workload| !workload.causes.is_empty()))
        .or_else(|| not_ready().next());
    if let Some(workload) = first {
        let (reason, is_stalled, message) = of_workload(workload, now);
        return Verdict {
            is_ready: false,
            is_stalled,
            reason: reason.into(),
            message,
        };
    }
    match &workloads.route {
        None | Some(RouteState::Accepted) => {}
        Some(RouteState::Waiting(message)) => return waiting("WaitingForGateway", message.clone()),
        Some(RouteState::Refused { reason, message }) => {
            return Verdict {
                is_ready: false,
                is_stalled: true,
                reason: reason.clone().into(),
                message: message.clone(),
            };
        }
    }
    if workloads.units == 0 {
        return Verdict {
            is_ready: true,
            is_stalled: false,
            reason: "Stopped".into(),
            message: "no engine is wanted: spec.stopped or spec.replicas: 0".to_owned(),
        };
    }
    Verdict {
        is_ready: true,
        is_stalled: false,
        reason: "Serving".into(),
        message: format!("{} at {}", summary(&workloads.pools), workloads.place),
    }
}

fn waiting(reason: &'static str, message: String) -> Verdict {
    Verdict {
        is_ready: false,
        is_stalled: false,
        reason: reason.into(),
        message,
    }
}

/// Reason, whether somebody must act, and the line, for a workload that is not ready.
pub(super) fn of_workload(workload: &Workload, now: Timestamp) -> (&'static str, bool, String) {
    let mut line = format!(
        "{} {}/{} ready: ",
        workload.name, workload.ready, workload.desired
    );
    if let Some((cause, pods)) = workload.causes.first() {
        if *pods > 1 {
            let _ = write!(line, "{pods} pods: ");
        }
        line.push_str(&cause.message);
        let more = workload.causes.len() - 1;
        if more > 0 {
            let _ = write!(line, " (and {more} more)");
        }
        return (cause.reason, cause.is_stalled, line);
    }
    let reason = match workload.phase {
        Some((phase, since)) => {
            let _ = write!(
                line,
                "{phase} for {}",
                coarse(now.duration_since(since).as_secs())
            );
            "WaitingForPods"
        }
        None if workload.total > workload.desired || workload.updated < workload.desired => {
            line.push_str("pods are being replaced");
            "RollingOut"
        }
        None => {
            line.push_str("waiting for pods");
            "WaitingForPods"
        }
    };
    (reason, false, line)
}

/// `decode 2/2, prefill 1/4`.
pub(super) fn summary(pools: &[Workload]) -> String {
    let pools = pools.iter();
    let each: Vec<String> = pools
        .map(|pool| format!("{} {}/{}", pool.name, pool.ready, pool.desired))
        .collect();
    each.join(", ")
}

fn listed(lines: &[String]) -> String {
    let mut text = lines.iter().take(LISTED).cloned().collect::<Vec<_>>().join("; ");
    if lines.len() > LISTED {
        let _ = write!(text, "; and {} more", lines.len() - LISTED);
    }
    text
}

/// Minutes, in steps of five after ten: a status must not change with every look.
fn coarse(seconds: i64) -> String {
    let step = step(seconds);
    match seconds.max(0) / step * step / 60 {
        0 => "less than a minute".to_owned(),
        minutes => format!("{minutes} min"),
    }
}

/// In how long [`coarse`] says something else.
pub(super) fn until_next_step(seconds: i64) -> Duration {
    let seconds = seconds.max(0);
    let step = step(seconds);
    Duration::from_secs((step - seconds % step).unsigned_abs())
}

/// In seconds.
fn step(seconds: i64) -> i64 {
    if seconds < 600 { 60 } else { 300 }
}
