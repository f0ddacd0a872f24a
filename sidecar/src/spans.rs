//! Spans of a request, with llm-d-router's names and attributes (`pkg/sidecar/proxy`).
//!
//! ```text
//!  caller's trace ─▶ forward_request ─┬─▶ prefill ─▶ prefill engine
//!                                     └─▶ decode  ─▶ decode engine
//! ```
//!
//! Without `--tracing` every span here is a disabled one, and nothing is computed for it.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, request};
use llmd_process::traces;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::connector::Connector;
use crate::legs::encode::EcConnector;
use crate::legs::{Legs, request_id};
use crate::route::Shared;

/// The spans of one request.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) root: Span,
    decode: Span,
    began: Instant,
    /// When the decode engine was asked.
    decode_began: Option<Instant>,
    /// How long the prompt took elsewhere, and when it was there.
    prefill: Option<(Duration, Instant)>,
}

impl Trace {
    /// Begins `forward_request`; follows the caller's trace.
    pub(crate) fn begin(shared: &Shared, head: &request::Parts, legs: &Legs) -> Self {
        let connector = &shared.connector;
        let root = info_span!(
            "forward_request",
            otel.kind = "server",
            llm_d.pd_proxy.connector = connector.name(),
            llm_d.pd_proxy.kv_connector = connector.name(),
            llm_d.pd_proxy.ec_connector = shared.embeddings.map_or("", EcConnector::name),
            llm_d.pd_proxy.request_path = head.uri.path(),
            llm_d.openai.api = legs.api.name(),
            llm_d.pd_proxy.disaggregation_used = !legs.prefillers.is_empty(),
            llm_d.pd_proxy.prefill_candidates = legs.prefillers.len(),
            llm_d.pd_proxy.reason = Empty,
            llm_d.pd_proxy.prefill_target = Empty,
            llm_d.pd_proxy.kv_cache_source = Empty,
            llm_d.pd_proxy.total_duration_ms = Empty,
            llm_d.pd_proxy.true_ttft_ms = Empty,
            llm_d.pd_proxy.prefill_duration_ms = Empty,
            llm_d.pd_proxy.decode_duration_ms = Empty,
            llm_d.pd_proxy.coordinator_overhead_ms = Empty,
            llm_d.pd_proxy.concurrent_pd = Empty,
        );
        traces::follow(&root, |name| head.headers.get(name)?.to_str().ok());
        match legs.prefillers.first() {
            Some(first) => root.record("llm_d.pd_proxy.prefill_target", first.as_str()),
            None => root.record("llm_d.pd_proxy.reason", "no_prefill_header"),
        };
        if let Some(source) = &legs.source {
            root.record("llm_d.pd_proxy.kv_cache_source", source.as_str());
        }
        if connector.is_concurrent() && !legs.prefillers.is_empty() {
            root.record("llm_d.pd_proxy.concurrent_pd", true);
        }
        Self {
            root,
            decode: Span::none(),
            began: Instant::now(),
            decode_began: None,
            prefill: None,
        }
    }

    /// The prompt was computed elsewhere since `began`.
    pub(crate) fn prefilled(&mut self, began: Instant) {
        self.prefill = Some((began.elapsed(), Instant::now()));
    }

    /// Begins `decode`: the engine continues its trace.
    pub(crate) fn decodes(
        &mut self,
        connector: &Connector,
        head: &mut request::Parts,
        target: std::net::SocketAddr,
    ) {
        self.decode = info_span!(
            parent: &self.root,
            "decode",
            llm_d.pd_proxy.request_id = request_id(head),
            llm_d.pd_proxy.connector = connector.name(),
            llm_d.pd_proxy.decode.target = %target,
            llm_d.pd_proxy.decode.streaming = Empty,
            llm_d.pd_proxy.decode.duration_ms = Empty,
        );
        pass_on(&self.decode, head);
        self.decode_began = Some(Instant::now());
    }

    /// The decode engine's answer began.
    pub(crate) fn answers(&self, is_stream: bool) {
        self.decode.record("llm_d.pd_proxy.decode.streaming", is_stream);
    }

    /// The request is over.
    pub(crate) fn end(&self) {
        let root = &self.root;
        root.record("llm_d.pd_proxy.total_duration_ms", ms(self.began.elapsed()));
        let Some(decode_began) = self.decode_began else {
            return;
        };
        let decode = ms(decode_began.elapsed());
        self.decode.record("llm_d.pd_proxy.decode.duration_ms", decode);
        root.record("llm_d.pd_proxy.decode_duration_ms", decode);
        root.record("llm_d.pd_proxy.true_ttft_ms", ms(decode_began - self.began));
        if let Some((prefill, there)) = self.prefill {
            root.record("llm_d.pd_proxy.prefill_duration_ms", ms(prefill));
            let overhead = decode_began.saturating_duration_since(there);
            root.record("llm_d.pd_proxy.coordinator_overhead_ms", ms(overhead));
        }
    }
}

/// Begins `prefill`, one leg to one engine.
pub(crate) fn prefill(parent: &Span, connector: &Connector, head: &request::Parts, host: &str) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    info_span!(
        parent: parent,
        "prefill",
        llm_d.pd_proxy.request_id = request_id(head),
        llm_d.pd_proxy.prefill_target = host,
        llm_d.pd_proxy.connector = connector.name(),
        llm_d.pd_proxy.prefill.async = connector.is_concurrent(),
        llm_d.pd_proxy.prefill.status_code = Empty,
        llm_d.pd_proxy.prefill.duration_ms = Empty,
        otel.status_code = Empty,
    )
}

/// Ends a leg; 0 is no answer.
pub(crate) fn prefilled(span: &Span, status: u16, took: Duration) {
    span.record("llm_d.pd_proxy.prefill.status_code", status);
    span.record("llm_d.pd_proxy.prefill.duration_ms", ms(took));
    if !(200..300).contains(&status) {
        span.record("otel.status_code", "ERROR");
    }
}

/// Makes the next hop a child of `span`.
pub(crate) fn pass_on(span: &Span, head: &mut request::Parts) {
    if span.is_disabled() {
        return;
    }
    for (name, value) in traces::headers_of(span) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            head.headers.insert(name, value);
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
