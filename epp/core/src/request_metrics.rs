//! Request metrics under upstream's names, with label handles cached per model, fairness id and priority.
//!
//! Names, labels and buckets are llm-d-router's `llm_d_epp_*` and, as deprecated twins,
//! `inference_objective_*` (Gateway API Inference Extension).

mod buckets;
mod labels;
mod lazy;

use std::sync::Arc;
use std::time::Duration;

use llmd_epp_api::MetricsScope;
use llmd_openai::Usage;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::label_cap::LabelCap;
use crate::metrics::{self, Family};

pub use labels::RequestLabels;
use labels::{LabelCache, LabelSet};
use lazy::Lazy;

const L: [&str; 4] = ["model_name", "target_model_name", "fairness_id", "priority"];
const L_ERROR: [&str; 5] = [
    "model_name",
    "target_model_name",
    "fairness_id",
    "priority",
    "error_code",
];
const L_STREAMING: [&str; 5] = [
    "model_name",
    "target_model_name",
    "fairness_id",
    "priority",
    "streaming",
];
const REWRITE: [&str; 3] = ["model_rewrite_name", "model_name", "target_model"];
/// Prefix of the deprecated twins of request metrics.
const TWIN: &str = "inference_objective_";
const NONE: [&str; 0] = [];
const MODELS: [&str; 2] = ["model_name", "target_model_name"];

/// The families of sheet "20.1 Requests".
#[derive(Debug)]
pub struct RequestMetrics {
    families: Arc<Families>,
    labels: LabelCache,
    request_processing: Histogram,
    response_processing: Histogram,
    rewrites: IntCounterVec,
    /// A rule without matches rewrites whatever clients name.
    rewritten: LabelCap,
}

#[derive(Debug)]
struct Families {
    total: IntCounterVec,
    errors: IntCounterVec,
    running: IntGaugeVec,
    duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    input_tokens: HistogramVec,
    output_tokens: HistogramVec,
    cached_tokens: HistogramVec,
    ntpot: HistogramVec,
    ttft: HistogramVec,
    tpot: HistogramVec,
    itl: HistogramVec,
}

impl RequestMetrics {
    /// Registers every family; with `deprecated` under the older names as well. `commit` and
    /// `build_ref` are the labels of `llm_d_epp_info`.
    pub fn register(
        registry: &Registry,
        deprecated: bool,
        commit: &str,
        build_ref: &str,
    ) -> Result<Self, prometheus::Error> {
        let scope = &MetricsScope::new(registry.clone(), deprecated);
        let families = Families {
            total: Family::new("request_total", "Requests by model, flow and priority", &L)
                .twin(
                    TWIN,
                    "request_total",
                    &["model_name", "target_model_name", "priority"],
                )
                .counter(scope)?,
            errors: Family::new(
                "request_error_total",
                "Failed requests by model, flow, priority and error code",
                &L_ERROR,
            )
            .twin(
                TWIN,
                "request_error_total",
                &["model_name", "target_model_name", "error_code"],
            )
            .counter(scope)?,
            running: Family::new(
                "request_running",
                "Requests between their routing and the end of their response",
                &L,
            )
            .twin(TWIN, "running_requests", &["model_name"])
            .gauge(scope)?,
            duration: Family::new(
                "request_duration_seconds",
                "Time from the request's arrival to the end of its response, in seconds",
                &L,
            )
            .twin(TWIN, "request_duration_seconds", &MODELS)
            .histogram(scope, buckets::GENERAL)?,
            request_size: Family::new("request_size_bytes", "Request body size in bytes", &L)
                .twin(TWIN, "request_sizes", &MODELS)
                .histogram(scope, buckets::REQUEST_BYTES)?,
            response_size: Family::new("response_size_bytes", "Response body size in bytes", &L)
                .twin(TWIN, "response_sizes", &MODELS)
                .histogram(scope, buckets::up_to(buckets::TOKENS, 65536.0))?,
            input_tokens: Family::new(
                "request_input_tokens",
                "Prompt tokens per request, as the engine counted them",
                &L,
            )
            .twin(TWIN, "input_tokens", &MODELS)
            .histogram(scope, buckets::TOKENS)?,
            output_tokens: Family::new("request_output_tokens", "Generated tokens per request", &L)
                .twin(TWIN, "output_tokens", &MODELS)
                .histogram(scope, buckets::up_to(buckets::TOKENS, 8192.0))?,
            cached_tokens: Family::new(
                "request_cached_tokens",
                "Prompt tokens the engine found in its prefix cache",
                &L,
            )
            .twin(TWIN, "prompt_cached_tokens", &MODELS)
            .histogram(scope, buckets::TOKENS)?,
            ntpot: Family::new(
                "request_ntpot_seconds",
                "Request duration divided by its output tokens, in seconds",
                &L,
            )
            .twin(TWIN, "normalized_time_per_output_token_seconds", &MODELS)
            .histogram(scope, buckets::NTPOT)?,
            ttft: Family::new(
                "request_ttft_seconds",
                "Time to the first response byte, in seconds; the whole duration when not streaming",
                &L_STREAMING,
            )
            .histogram(scope, buckets::up_to(buckets::GENERAL, 120.0))?,
            tpot: Family::new(
                "request_streaming_tpot_seconds",
                "Time per output token after the first one, in seconds",
                &L,
            )
            .histogram(scope, buckets::TPOT)?,
            itl: Family::new(
                "request_streaming_itl_seconds",
                "Time between two response chunks, in seconds",
                &L,
            )
            .histogram(scope, buckets::ITL)?,
        };
        register_info(scope, commit, build_ref)?;
        Ok(Self {
            families: Arc::new(families),
            labels: LabelCache::default(),
            rewrites: Family::new(
                "model_rewrite_decisions_total",
                "Requests whose model a rewrite rule replaced.",
                &REWRITE,
            )
            .twin(metrics::TWIN_PREFIX, "model_rewrite_decisions_total", &REWRITE)
            .counter(scope)?,
            rewritten: LabelCap::default(),
            request_processing: Family::new(
                "request_processing_duration_seconds",
                "Time from the request's arrival until it was routed, in seconds",
                &[],
            )
            .histogram(scope, buckets::REQUEST_PROCESSING)?
            .with_label_values(&NONE),
            response_processing: Family::new(
                "response_processing_duration_seconds",
                "Time spent on the chunks of a streamed response, or from head to end of another one",
                &[],
            )
            .histogram(scope, buckets::RESPONSE_PROCESSING)?
            .with_label_values(&NONE),
        })
    }

    /// The handles for one label set. Distinct names are capped, see [`labels`](self).
    pub fn of(&self, labels: &RequestLabels<'_>) -> Arc<RequestRecorder> {
        self.labels
            .get(labels, |set| RequestRecorder::new(&self.families, set))
    }

    /// Model names of the operator's rules: kept as labels even beyond the cap for clients' names.
    pub fn keep_models<'a>(&self, names: impl Iterator<Item = &'a str>) {
        self.labels.keep_models(names);
    }

    /// The rule of `object` asks for `target` instead of `model`.
    pub fn rewritten(&self, object: &str, model: &str, target: &str) {
        let labels = [object, self.rewritten.admit(model), target];
        self.rewrites.with_label_values(&labels).inc();
    }

    /// A request was routed `spent` after it arrived.
    pub fn request_processed(&self, spent: Duration) {
        self.request_processing.observe(spent.as_secs_f64());
    }

    /// A response was completed; `spent` as upstream counts it.
    pub fn response_processed(&self, spent: Duration) {
        self.response_processing.observe(spent.as_secs_f64());
    }
}

fn register_info(scope: &MetricsScope, commit: &str, build_ref: &str) -> Result<(), prometheus::Error> {
    let labels = ["commit", "build_ref"];
    Family::new("info", "Build information", &labels)
        .twin(metrics::TWIN_PREFIX, "info", &labels)
        .gauge(scope)?
        .with_label_values(&[commit, build_ref])
        .set(1);
    Ok(())
}

/// The series of one label set. A series appears with its first observation, as upstream's do.
#[derive(Debug)]
pub struct RequestRecorder {
    families: Arc<Families>,
    labels: LabelSet,
    running: IntGauge,
    total: Lazy<IntCounter>,
    itl: Lazy<Histogram>,
    finish: [Lazy<Histogram>; 7],
    ttft: [Lazy<Histogram>; 2],
    tpot: Lazy<Histogram>,
}

/// What is known about a response when it is complete.
#[derive(Clone, Copy, Debug)]
pub struct Completed {
    /// Arrival to end.
    pub duration: Duration,
    /// Arrival to first response byte.
    pub ttft: Option<Duration>,
    /// Whether the response came as a stream of tokens.
    pub streaming: bool,
    /// Response body bytes; `None` when the body was not shown.
    pub bytes: Option<u64>,
    /// Tokens, as far as the engine told.
    pub usage: Usage,
}

impl RequestRecorder {
    fn new(families: &Arc<Families>, labels: LabelSet) -> Self {
        Self {
            running: families.running.with_label_values(&labels.values()),
            families: Arc::clone(families),
            labels,
            total: Lazy::default(),
            itl: Lazy::default(),
            finish: Default::default(),
            ttft: Default::default(),
            tpot: Lazy::default(),
        }
    }

    /// A request of `bytes` body bytes was routed and runs from now on.
    pub fn routed(&self, bytes: usize) {
        self.total
            .get(|| self.families.total.with_label_values(&self.labels.values()))
            .inc();
        self.histogram(0, &self.families.request_size)
            .observe(bytes as f64);
        self.running.add(1);
    }

    /// A routed request does not run any more.
    pub fn left(&self) {
        self.running.add(-1);
    }

    /// A request failed with `code`.
    pub fn failed(&self, code: &str) {
        let [model, target, fairness, priority] = self.labels.values();
        self.families
            .errors
            .with_label_values(&[model, target, fairness, priority, code])
            .inc();
    }

    /// Two chunks of a streamed response were `gap` apart.
    pub fn inter_token(&self, gap: Duration) {
        self.itl
            .get(|| self.families.itl.with_label_values(&self.labels.values()))
            .observe(gap.as_secs_f64());
    }

    /// The response is complete. Token families only see responses whose engine counted tokens.
    pub fn completed(&self, completed: &Completed) {
        let Completed {
            duration,
            ttft,
            streaming,
            bytes,
            usage,
        } = *completed;
        let families = &self.families;
        let seconds = duration.as_secs_f64();
        self.histogram(1, &families.duration).observe(seconds);
        if let Some(bytes) = bytes {
            self.histogram(2, &families.response_size).observe(bytes as f64);
        }
        if usage.prompt > 0 {
            self.histogram(3, &families.input_tokens)
                .observe(usage.prompt as f64);
        }
        if usage.completion > 0 {
            self.histogram(4, &families.output_tokens)
                .observe(usage.completion as f64);
            self.histogram(5, &families.ntpot)
                .observe(seconds / usage.completion as f64);
        }
        if usage.cached > 0 {
            self.histogram(6, &families.cached_tokens)
                .observe(usage.cached as f64);
        }
        let first = if streaming { ttft } else { Some(duration) };
        if let Some(first) = first {
            self.ttft(streaming).observe(first.as_secs_f64());
            if streaming && usage.completion > 1 {
                let rest = duration.saturating_sub(first).as_secs_f64();
                self.tpot
                    .get(|| families.tpot.with_label_values(&self.labels.values()))
                    .observe(rest / (usage.completion - 1) as f64);
            }
        }
    }

    fn histogram(&self, index: usize, family: &HistogramVec) -> &Histogram {
        self.finish[index].get(|| family.with_label_values(&self.labels.values()))
    }

    fn ttft(&self, streaming: bool) -> &Histogram {
        self.ttft[usize::from(streaming)].get(|| {
            let [model, target, fairness, priority] = self.labels.values();
            let streaming = if streaming { "true" } else { "false" };
            self.families
                .ttft
                .with_label_values(&[model, target, fairness, priority, streaming])
        })
    }
}

#[cfg(test)]
mod tests;
