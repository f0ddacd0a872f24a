//! A list of conditions whose times change only with their status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::message;
use crate::observe::Workload;

/// Longest message, in characters: enough for a cause and its fix.
const LONGEST: usize = 1024;

pub(super) struct Conditions<'a> {
    old: &'a [Condition],
    generation: i64,
    now: Timestamp,
    new: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    pub(super) fn new(old: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self {
            old,
            generation,
            now,
            new: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, kind: &'static str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let before = self.old.iter().find(|condition| condition.type_ == kind);
        let since = before
            .filter(|condition| condition.status == status)
            .map_or(Time(self.now), |condition| condition.last_transition_time.clone());
        self.new.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            observed_generation: Some(self.generation),
            last_transition_time: since,
            reason: reason.to_owned(),
            message: message.chars().take(LONGEST).collect(),
        });
    }

    /// True unless a workload is waited for.
    pub(super) fn set_workload(&mut self, kind: &'static str, waiting: Option<&Workload>, now: Timestamp) {
        match waiting {
            None => self.set(kind, true, "Available", ""),
            Some(workload) => {
                let (reason, _, message) = message::of_workload(workload, now);
                self.set(kind, false, reason, &message);
            }
        }
    }

    pub(super) fn finish(self) -> Vec<Condition> {
        self.new
    }
}
