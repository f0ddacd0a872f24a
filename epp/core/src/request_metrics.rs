//! Request metrics under upstream's names, with label handles cached per model, fairness id and priority.
//!
//! Names, labels and buckets are llm-d-router's `llm_d_epp_*` and, as deprecated twins,
//! `inference_objective_*` (Gateway API Inference Extension).

mod buckets;
mod family;
mod labels;

use std::sync::Arc;
use std::time::Duration;

use llmd_epp_api::MetricsScope;
use llmd_openai::Usage;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::label_cap::LabelCap;
use crate::metrics;

use family::{Counters, Gauges, Histograms};
pub use labels::RequestLabels;
use labels::{LabelCache, LabelSet};

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
const MODELS: [&str; 2] = ["model_name", "target_model_name"];

/// The families of sheet "20.1 Requests".
#[derive(Debug)]
pub struct RequestMetrics {
    families: Arc<Families>,
    labels: LabelCache,
    request_processing: Histogram,
    response_processing: Histogram,
    rewrites: metrics::Twin<IntCounterVec>,
    /// A rule without matches rewrites whatever clients name.
    rewritten: LabelCap,
}

#[derive(Debug)]
struct Families {
    total: Counters,
    errors: Counters,
    running: Gauges,
    duration: Histograms,
    request_size: Histograms,
    response_size: Histograms,
    input_tokens: Histograms,
    output_tokens: Histograms,
    cached_tokens: Histograms,
    ntpot: Histograms,
    ttft: Histograms,
    tpot: Histograms,
    itl: Histograms,
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
        let with = |twin: &'static str| deprecated.then_some(twin);
        let families = Families {
            total: Counters::register(
                registry,
                ("request_total", &L),
                with("request_total").map(|name| (name, &[0, 1, 3][..])),
                "Requests by model, flow and priority",
            )?,
            errors: Counters::register(
                registry,
                ("request_error_total", &L_ERROR),
                with("request_error_total").map(|name| (name, &[0, 1, 4][..])),
                "Failed requests by model, flow, priority and error code",
            )?,
            running: Gauges::register(
                registry,
                ("request_running", &L),
                with("running_requests").map(|name| (name, &[0][..])),
                "Requests between their routing and the end of their response",
            )?,
            duration: Histograms::register(
                registry,
                ("request_duration_seconds", &L, buckets::GENERAL),
                with("request_duration_seconds"),
                "Time from the request's arrival to the end of its response, in seconds",
            )?,
            request_size: Histograms::register(
                registry,
                ("request_size_bytes", &L, buckets::REQUEST_BYTES),
                with("request_sizes"),
                "Request body size in bytes",
            )?,
            response_size: Histograms::register(
                registry,
                (
                    "response_size_bytes",
                    &L,
                    buckets::up_to(buckets::TOKENS, 65536.0),
                ),
                with("response_sizes"),
                "Response body size in bytes",
            )?,
            input_tokens: Histograms::register(
                registry,
                ("request_input_tokens", &L, buckets::TOKENS),
                with("input_tokens"),
                "Prompt tokens per request, as the engine counted them",
            )?,
            output_tokens: Histograms::register(
                registry,
                (
                    "request_output_tokens",
                    &L,
                    buckets::up_to(buckets::TOKENS, 8192.0),
                ),
                with("output_tokens"),
                "Generated tokens per request",
            )?,
            cached_tokens: Histograms::register(
                registry,
                ("request_cached_tokens", &L, buckets::TOKENS),
                with("prompt_cached_tokens"),
                "Prompt tokens the engine found in its prefix cache",
            )?,
            ntpot: Histograms::register(
                registry,
                ("request_ntpot_seconds", &L, buckets::NTPOT),
                with("normalized_time_per_output_token_seconds"),
                "Request duration divided by its output tokens, in seconds",
            )?,
            ttft: Histograms::register(
                registry,
                (
                    "request_ttft_seconds",
                    &L_STREAMING,
                    buckets::up_to(buckets::GENERAL, 120.0),
                ),
                None,
                "Time to the first response byte, in seconds; the whole duration when not streaming",
            )?,
            tpot: Histograms::register(
                registry,
                ("request_streaming_tpot_seconds", &L, buckets::TPOT),
                None,
                "Time per output token after the first one, in seconds",
            )?,
            itl: Histograms::register(
                registry,
                ("request_streaming_itl_seconds", &L, buckets::ITL),
                None,
                "Time between two response chunks, in seconds",
            )?,
        };
        register_info(registry, deprecated, commit, build_ref)?;
        Ok(Self {
            families: Arc::new(families),
            labels: LabelCache::default(),
            rewrites: metrics::counter(
                &MetricsScope::new(registry.clone(), deprecated),
                "model_rewrite_decisions_total",
                "Requests whose model a rewrite rule replaced.",
                &REWRITE,
                &REWRITE,
            )?,
            rewritten: LabelCap::default(),
            request_processing: unlabelled(
                registry,
                "request_processing_duration_seconds",
                buckets::REQUEST_PROCESSING,
                "Time from the request's arrival until it was routed, in seconds",
            )?,
            response_processing: unlabelled(
                registry,
                "response_processing_duration_seconds",
                buckets::RESPONSE_PROCESSING,
                "Time spent on the chunks of a streamed response, or from head to end of another one",
            )?,
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
        self.rewrites.current.with_label_values(&labels).inc();
        if let Some(twin) = &self.rewrites.deprecated {
            twin.with_label_values(&labels).inc();
        }
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

fn unlabelled(
    registry: &Registry,
    name: &str,
    buckets: &[f64],
    help: &str,
) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts::new(format!("llm_d_epp_{name}"), format!("[ALPHA] {help}"));
    let histogram = Histogram::with_opts(opts.buckets(buckets.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

fn register_info(
    registry: &Registry,
    deprecated: bool,
    commit: &str,
    build_ref: &str,
) -> Result<(), prometheus::Error> {
    let text = "Build information";
    let current = "llm_d_epp_info";
    let twin = metrics::twin_help(current, text);
    let names = [
        (current, format!("[ALPHA] {text}")),
        ("inference_extension_info", twin),
    ];
    for (name, help) in names.into_iter().take(1 + usize::from(deprecated)) {
        let info = IntGaugeVec::new(Opts::new(name, help), &["commit", "build_ref"])?;
        info.with_label_values(&[commit, build_ref]).set(1);
        registry.register(Box::new(info))?;
    }
    Ok(())
}

/// The series of one label set. A series appears with its first observation, as upstream's do.
#[derive(Debug)]
pub struct RequestRecorder {
    families: Arc<Families>,
    labels: LabelSet,
    running: family::Gauge,
    total: family::Lazy<family::Counter>,
    itl: family::Lazy<family::Histogram>,
    finish: [family::Lazy<family::Histogram>; 7],
    ttft: [family::Lazy<family::Histogram>; 2],
    tpot: family::Lazy<family::Histogram>,
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
    /// Response body bytes.
    pub bytes: u64,
    /// Tokens, as far as the engine told.
    pub usage: Usage,
}

impl RequestRecorder {
    fn new(families: &Arc<Families>, labels: LabelSet) -> Self {
        Self {
            running: families.running.with(labels.values()),
            families: Arc::clone(families),
            labels,
            total: family::Lazy::default(),
            itl: family::Lazy::default(),
            finish: Default::default(),
            ttft: Default::default(),
            tpot: family::Lazy::default(),
        }
    }

    /// A request of `bytes` body bytes was routed and runs from now on.
    pub fn routed(&self, bytes: usize) {
        self.total
            .get(|| self.families.total.with(&self.labels.values()))
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
            .with(&[model, target, fairness, priority, code])
            .inc();
    }

    /// Two chunks of a streamed response were `gap` apart.
    pub fn inter_token(&self, gap: Duration) {
        self.itl
            .get(|| self.families.itl.with(&self.labels.values()))
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
        self.histogram(2, &families.response_size).observe(bytes as f64);
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
                    .get(|| families.tpot.with(&self.labels.values()))
                    .observe(rest / (usage.completion - 1) as f64);
            }
        }
    }

    fn histogram(&self, index: usize, family: &Histograms) -> &family::Histogram {
        self.finish[index].get(|| family.with(&self.labels.values()))
    }

    fn ttft(&self, streaming: bool) -> &family::Histogram {
        self.ttft[usize::from(streaming)].get(|| {
            let [model, target, fairness, priority] = self.labels.values();
            let streaming = if streaming { "true" } else { "false" };
            self.families
                .ttft
                .with(&[model, target, fairness, priority, streaming])
        })
    }
}

#[cfg(test)]
mod tests;
