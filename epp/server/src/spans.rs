//! The spans of one request, the same for both ways in: ext-proc and the built-in proxy.

use llmd_epp_api::{Headers, InferenceRequest};
use llmd_process::traces;
use tracing::span::Entered;
use tracing::{Span, info_span};

/// `gateway.request`: from the arrival to the end of the response; follows the client's trace.
pub(crate) fn request(headers: &Headers) -> Span {
    let span = info_span!("gateway.request", otel.kind = "server");
    traces::follow(&span, |name| headers.get(name));
    span
}

/// `gateway.request_orchestration`: parsing, scheduling, reservation.
pub(crate) fn orchestration(request: &Span) -> Span {
    let empty = tracing::field::Empty;
    info_span!(
        parent: request,
        "gateway.request_orchestration",
        otel.kind = "server",
        target_model = empty,
        request_prio = empty,
    )
}

/// Enters a span that will be exported: the scheduler tells its steps then.
pub(crate) fn entered_if_sampled(span: &Span) -> Option<Entered<'_>> {
    traces::is_sampled(span).then(|| span.enter())
}

/// What is known about the request once it was parsed.
pub(crate) fn tell(span: &Span, request: &InferenceRequest) {
    span.record("target_model", &*request.target_model);
    span.record("request_prio", request.objective.priority);
}
