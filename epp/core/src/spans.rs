//! Spans of one decision, under upstream's names and attributes.
//!
//! They are made only inside a span that somebody entered, and the shells enter theirs for sampled
//! requests only: the others pay for one look at a thread-local.

use llmd_epp_api::{Cycle, TypedName};
use tracing::field::Empty;
use tracing::{Span, info_span};

/// Candidates whose names and scores a span tells.
const TOP: usize = 5;

/// Whether this decision is to be told.
pub(crate) fn is_wanted() -> bool {
    !Span::current().is_none()
}

/// `span` if it is wanted, else one that costs nothing.
fn only(wanted: bool, span: impl FnOnce() -> Span) -> Span {
    if wanted { span() } else { Span::none() }
}

/// One profile.
pub(crate) fn profile(wanted: bool, name: &str) -> Span {
    only(wanted, || {
        info_span!("run_scheduler_profile", llm_d.epp.scheduling.profile.name = name)
    })
}

/// The filters of a profile, over `candidates` endpoints.
pub(crate) fn filters(wanted: bool, cycle: &Cycle<'_>, candidates: usize) -> Span {
    only(wanted, || {
        info_span!(
            "filter_endpoints",
            llm_d.epp.filter.candidate_endpoints = candidates,
            llm_d.epp.filter.filtered_endpoints = Empty,
            gen_ai.request.model = &*cycle.request.target_model,
            gen_ai.request.id = &*cycle.request.request_id,
        )
    })
}

/// How many endpoints the filters left.
pub(crate) fn filtered(span: &Span, left: usize) {
    span.record("llm_d.epp.filter.filtered_endpoints", left);
}

/// All scorers of a profile.
pub(crate) fn scoring(wanted: bool, scorers: usize, candidates: usize) -> Span {
    only(wanted, || {
        info_span!(
            "llm_d.epp.scoring",
            llm_d.epp.scorer.count = scorers,
            llm_d.epp.scoring.candidate_endpoints = candidates,
        )
    })
}

/// One scorer.
pub(crate) fn scorer(wanted: bool, name: &TypedName, weight: f64, candidates: usize) -> Span {
    only(wanted, || {
        info_span!(
            "llm_d.epp.scorer",
            otel.name = format!("llm_d.epp.scorer.{}", name.plugin_type),
            llm_d.epp.scorer.type = name.plugin_type,
            llm_d.epp.scorer.name = &*name.name,
            llm_d.epp.scorer.weight = weight,
            llm_d.epp.scorer.candidate_endpoints = candidates,
            llm_d.epp.scorer.score.max = Empty,
            llm_d.epp.scorer.score.avg = Empty,
            llm_d.epp.scorer.endpoints_scored = Empty,
        )
    })
}

/// What a scorer gave.
pub(crate) fn scored(span: &Span, scores: &[f64]) {
    if span.is_none() || scores.is_empty() {
        return;
    }
    let max = scores.iter().copied().fold(f64::MIN, f64::max);
    let average = scores.iter().sum::<f64>() / scores.len() as f64;
    span.record("llm_d.epp.scorer.score.max", max);
    span.record("llm_d.epp.scorer.score.avg", average);
    span.record("llm_d.epp.scorer.endpoints_scored", scores.len());
}

/// The picker; the strongest candidates say why it chose. The two lists are JSON, because the
/// facade has no lists.
pub(crate) fn picker(wanted: bool, cycle: &Cycle<'_>, candidates: &[u32], totals: &[f64]) -> Span {
    only(wanted, || {
        let mut ranked: Vec<(u32, f64)> = candidates.iter().copied().zip(totals.iter().copied()).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(TOP);
        let name = |index: u32| cycle.snapshot.endpoints[index as usize].name().to_string();
        let names: Vec<String> = ranked.iter().map(|(index, _)| name(*index)).collect();
        let scores: Vec<f64> = ranked.iter().map(|(_, score)| *score).collect();
        info_span!(
            "pick_endpoints",
            llm_d.epp.picker.candidate_endpoints = candidates.len(),
            llm_d.epp.picker.top_endpoints = %serde_json::json!(names),
            llm_d.epp.picker.top_scores = %serde_json::json!(scores),
            gen_ai.request.model = &*cycle.request.target_model,
            gen_ai.request.id = &*cycle.request.request_id,
        )
    })
}

/// A handler's choice of the next stage; [`decided`] says which.
pub(crate) fn pick_disagg_profile(cycle: &Cycle<'_>) -> Span {
    only(is_wanted(), || {
        info_span!(
            "pick_disagg_profile",
            llm_d.epp.profile_handler.decision = Empty,
            llm_d.epp.profile_handler.decode_failed = Empty,
            gen_ai.request.model = &*cycle.request.target_model,
            gen_ai.request.id = &*cycle.request.request_id,
        )
    })
}

/// What a handler decided.
pub(crate) fn decided(span: &Span, decision: impl FnOnce() -> String, decode_failed: bool) {
    if span.is_none() {
        return;
    }
    span.record("llm_d.epp.profile_handler.decision", decision());
    if decode_failed {
        span.record("llm_d.epp.profile_handler.decode_failed", true);
    }
}

/// Where the stages of one request run: `address:port` of the prefill endpoint and of the encoders.
pub(crate) fn prepare_disaggregation(prefill: Option<&str>, encoders: &[&str]) {
    only(is_wanted(), || {
        let span = info_span!(
            "prepare_disaggregation",
            llm_d.epp.pd.disaggregation_used = prefill.is_some(),
            llm_d.epp.pd.prefill_pod_address = Empty,
            llm_d.epp.pd.prefill_pod_port = Empty,
            llm_d.epp.pd.reason = Empty,
            llm_d.epp.encode.disaggregation_used = !encoders.is_empty(),
            llm_d.epp.encode.endpoints = Empty,
        );
        match prefill.and_then(|target| target.rsplit_once(':')) {
            Some((address, port)) => {
                span.record("llm_d.epp.pd.prefill_pod_address", address);
                span.record("llm_d.epp.pd.prefill_pod_port", port);
            }
            None => {
                span.record("llm_d.epp.pd.reason", "no_prefill_endpoint");
            }
        }
        if !encoders.is_empty() {
            span.record("llm_d.epp.encode.endpoints", encoders.join(","));
        }
        span
    });
}
