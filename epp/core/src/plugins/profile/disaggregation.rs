//! What the handlers of disaggregated serving share: stages, headers, and the count of decisions.

use std::sync::Arc;

use llmd_epp_api::plugin::{ProfileRun, SchedulingResult};
use llmd_epp_api::{Cycle, ErrorCode, MetricsScope, RejectReason, Rejection, RequestChanges, TypedName};
use llmd_openai::header;
use prometheus::IntCounterVec;

use crate::label_cap::LabelCap;
use crate::metrics::Family;
use crate::spans;

/// Prefix of the deprecated twins of these counters.
const TWIN_PREFIX: &str = "llm_d_inference_scheduler_";

/// Label of requests that name no model.
const UNKNOWN_MODEL: &str = "unknown";

/// Where a profile stands and how it ended.
pub(super) fn run_of<'a>(
    name: &str,
    profiles: &[Arc<str>],
    runs: &'a [ProfileRun],
) -> Option<&'a ProfileRun> {
    runs.iter().find(|run| &*profiles[run.profile] == name)
}

/// Index of a configured profile.
pub(super) fn profile(name: &str, profiles: &[Arc<str>]) -> Option<usize> {
    profiles.iter().position(|profile| &**profile == name)
}

/// The run of the decode profile; without an endpoint there is nowhere to go.
pub(super) fn decoding(name: &str, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Result<usize, Rejection> {
    runs.iter()
        .position(|run| &*profiles[run.profile] == name && !run.picked.is_empty())
        .ok_or_else(|| {
            let text = "failed to find available decode workers";
            Rejection::new(ErrorCode::ResourceExhausted, text).because(RejectReason::Saturated)
        })
}

/// Tells the routing sidecar where prefill and encoding happen; returns which of them do.
pub(super) fn set_headers(
    cycle: &Cycle<'_>,
    result: SchedulingResult<'_>,
    prefill: &str,
    encode: &str,
    changes: &mut RequestChanges,
) -> Stages {
    let targets = |name: &str| -> Vec<&str> {
        let run = run_of(name, result.profiles, result.runs);
        let picked = run.map_or(&[][..], |run| &run.picked);
        let endpoints = picked
            .iter()
            .map(|index| &cycle.snapshot.endpoints[*index as usize]);
        endpoints.map(|endpoint| &**endpoint.target()).collect()
    };
    let (prefillers, encoders) = (targets(prefill), targets(encode));
    spans::prepare_disaggregation(prefillers.first().copied(), &encoders);
    if let Some(first) = prefillers.first() {
        changes
            .set_headers
            .push((header::PREFILLER.into(), (*first).to_owned()));
    }
    if !encoders.is_empty() {
        changes
            .set_headers
            .push((header::ENCODERS.into(), encoders.join(",")));
    }
    Stages {
        prefill: !prefillers.is_empty(),
        encode: !encoders.is_empty(),
    }
}

/// Which stages run elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stages {
    pub(super) prefill: bool,
    pub(super) encode: bool,
}

impl Stages {
    /// Those of the runs that found an endpoint.
    pub(super) fn of(prefill: &str, encode: &str, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Self {
        let has = |name: &str| run_of(name, profiles, runs).is_some_and(|run| !run.picked.is_empty());
        Self {
            prefill: has(prefill),
            encode: has(encode),
        }
    }

    /// Value of the label `decision_type`.
    pub(super) fn label(self) -> &'static str {
        match (self.encode, self.prefill) {
            (false, false) => "decode-only",
            (false, true) => "prefill-decode",
            (true, false) => "encode-decode",
            (true, true) => "encode-prefill-decode",
        }
    }
}

/// `disagg_decision_total` of all instances.
pub(super) struct DisaggDecisions(IntCounterVec);
/// `pd_decision_total` of all instances.
pub(super) struct PdDecisions(IntCounterVec);

fn family(scope: &MetricsScope, name: &str) -> Result<IntCounterVec, prometheus::Error> {
    let text = "Requests by the stages that run apart from each other.";
    let labels = ["plugin_name", "plugin_type", "model_name", "decision_type"];
    Family::new(name, text, &labels)
        .twin(TWIN_PREFIX, name, &["model_name", "decision_type"])
        .counter(scope)
}

impl DisaggDecisions {
    pub(super) fn register(scope: &MetricsScope) -> Result<Self, prometheus::Error> {
        family(scope, "disagg_decision_total").map(Self)
    }
}

impl PdDecisions {
    pub(super) fn register(scope: &MetricsScope) -> Result<Self, prometheus::Error> {
        family(scope, "pd_decision_total").map(Self)
    }
}

/// The decisions of one instance.
pub(super) struct Decisions {
    name: TypedName,
    counters: IntCounterVec,
    models: LabelCap,
}

impl Decisions {
    pub(super) fn of_disagg(families: &DisaggDecisions, name: &TypedName) -> Self {
        Self::new(&families.0, name)
    }

    pub(super) fn of_pd(families: &PdDecisions, name: &TypedName) -> Self {
        Self::new(&families.0, name)
    }

    fn new(counters: &IntCounterVec, name: &TypedName) -> Self {
        Self {
            name: name.clone(),
            counters: counters.clone(),
            models: LabelCap::default(),
        }
    }

    pub(super) fn count(&self, model: &str, stages: Stages) {
        let model = match model {
            "" => UNKNOWN_MODEL,
            named => self.models.admit(named),
        };
        let labels = [&*self.name.name, self.name.plugin_type, model, stages.label()];
        self.counters.with_label_values(&labels).inc();
    }
}
