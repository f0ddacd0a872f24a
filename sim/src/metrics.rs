//! The `vllm:*` metrics page: names, types, labels and buckets of vLLM 0.32 (`vllm/v1/metrics`).
//!
//! Only what follows from the simulated engine is exposed; families of hardware and connectors that are
//! not simulated (sleep state, multi-modal cache, external prefix cache) are absent, not zero.

mod transfers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};

use crate::args::SimConfig;
use crate::engine::{Counters, Engine, Event, FinishReason};
use crate::transfer::Connector;
use transfers::Transfers;

const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const INTER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const ITERATION: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
];
const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];

/// Bucket bounds 1, 2, 5, 10, 20, … up to `limit`, as vLLM makes them for token counts.
fn token_buckets(limit: usize) -> Vec<f64> {
    let mut bounds = Vec::new();
    let mut decade = 1;
    while decade <= limit {
        bounds.extend(
            [1, 2, 5]
                .iter()
                .map(|m| m * decade)
                .filter(|bound| *bound <= limit)
                .map(|bound| bound as f64),
        );
        decade *= 10;
    }
    bounds
}

/// All metrics of one simulated engine.
pub struct Metrics {
    registry: Registry,
    running: Gauge,
    waiting: Gauge,
    usage: Gauge,
    queries: IntCounter,
    hits: IntCounter,
    preemptions: IntCounter,
    prompt_tokens: IntCounter,
    prompt_cached: IntCounter,
    prompt_by_source: IntCounterVec,
    generation_tokens: IntCounter,
    success: IntCounterVec,
    request_prompt: Histogram,
    request_generation: Histogram,
    request_max_generation: Histogram,
    request_max_tokens: Histogram,
    request_n: Histogram,
    iteration: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    per_output_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    inference: Histogram,
    prefill: Histogram,
    decode: Histogram,
    request_preemptions: Histogram,
    prefill_computed: Histogram,
    external_queries: IntCounter,
    external_hits: IntCounter,
    transfers: Option<Transfers>,
    revision_mismatches: Option<IntCounter>,
    adapters: Option<GaugeVec>,
    max_adapters: String,
}

/// Registers families under the labels that all of them share.
struct Page {
    registry: Registry,
    labels: HashMap<String, String>,
}

impl Page {
    fn add<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = collector?;
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_labels(self.labels.clone())
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.add(Gauge::with_opts(self.opts(name, help)))
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::with_opts(self.opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(self.opts(name, help), &[label]))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts {
            common_opts: self.opts(name, help),
            buckets: buckets.to_vec(),
        };
        self.add(Histogram::with_opts(opts))
    }
}

impl Metrics {
    /// Metrics of engine `rank`, all at zero; engines behind one port share a registry, and so a page.
    pub fn new(config: &SimConfig, rank: usize, registry: Registry) -> prometheus::Result<Self> {
        let model = config.models.first().map(ToString::to_string).unwrap_or_default();
        let labels = HashMap::from([
            ("model_name".to_owned(), model),
            ("engine".to_owned(), rank.to_string()),
        ]);
        let page = Page { registry, labels };
        let tokens = token_buckets(config.max_model_len);

        let info = Opts::new(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
        )
        .const_label("engine", rank.to_string())
        .const_label("block_size", config.engine.block_size.to_string())
        .const_label("num_gpu_blocks", config.engine.blocks.to_string())
        .const_label(
            "enable_prefix_caching",
            if config.engine.prefix_caching {
                "True"
            } else {
                "False"
            },
        )
        .const_label("cache_dtype", "auto");
        page.add(Gauge::with_opts(info))?.set(1.0);
        let adapters = if config.adapters.is_empty() {
            None
        } else {
            let opts = Opts::new("vllm:lora_requests_info", "Running stats on lora requests.");
            let names = ["max_lora", "running_lora_adapters", "waiting_lora_adapters"];
            Some(page.add(GaugeVec::new(opts, &names))?)
        };

        let metrics = Self {
            running: page.gauge(
                "vllm:num_requests_running",
                "Number of requests in model execution batches.",
            )?,
            waiting: page.gauge(
                "vllm:num_requests_waiting",
                "Number of requests waiting to be processed.",
            )?,
            usage: page.gauge(
                "vllm:kv_cache_usage_perc",
                "KV-cache usage. 1 means 100 percent usage.",
            )?,
            queries: page.counter(
                "vllm:prefix_cache_queries_total",
                "Prefix cache queries, in terms of number of queried tokens.",
            )?,
            hits: page.counter(
                "vllm:prefix_cache_hits_total",
                "Prefix cache hits, in terms of number of cached tokens.",
            )?,
            preemptions: page.counter(
                "vllm:num_preemptions_total",
                "Cumulative number of preemption from the engine.",
            )?,
            prompt_tokens: page.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.")?,
            prompt_cached: page.counter(
                "vllm:prompt_tokens_cached_total",
                "Number of cached prompt tokens.",
            )?,
            prompt_by_source: page.counters(
                "vllm:prompt_tokens_by_source_total",
                "Number of prompt tokens by source.",
                "source",
            )?,
            generation_tokens: page.counter(
                "vllm:generation_tokens_total",
                "Number of generation tokens processed.",
            )?,
            success: page.counters(
                "vllm:request_success_total",
                "Count of successfully processed requests.",
                "finished_reason",
            )?,
            request_prompt: page.histogram(
                "vllm:request_prompt_tokens",
                "Number of prefill tokens processed.",
                &tokens,
            )?,
            request_generation: page.histogram(
                "vllm:request_generation_tokens",
                "Number of generation tokens processed.",
                &tokens,
            )?,
            request_max_generation: page.histogram(
                "vllm:request_max_num_generation_tokens",
                "Histogram of maximum number of requested generation tokens.",
                &tokens,
            )?,
            request_max_tokens: page.histogram(
                "vllm:request_params_max_tokens",
                "Histogram of the max_tokens request parameter.",
                &tokens,
            )?,
            request_n: page.histogram(
                "vllm:request_params_n",
                "Histogram of the n request parameter.",
                &[1.0, 2.0, 5.0, 10.0, 20.0],
            )?,
            iteration: page.histogram(
                "vllm:iteration_tokens_total",
                "Histogram of number of tokens per engine_step.",
                ITERATION,
            )?,
            first_token: page.histogram(
                "vllm:time_to_first_token_seconds",
                "Histogram of time to first token in seconds.",
                FIRST_TOKEN,
            )?,
            inter_token: page.histogram(
                "vllm:inter_token_latency_seconds",
                "Histogram of inter-token latency in seconds.",
                INTER_TOKEN,
            )?,
            per_output_token: page.histogram(
                "vllm:request_time_per_output_token_seconds",
                "Histogram of time_per_output_token_seconds per request.",
                INTER_TOKEN,
            )?,
            end_to_end: page.histogram(
                "vllm:e2e_request_latency_seconds",
                "Histogram of e2e request latency in seconds.",
                LATENCY,
            )?,
            queue: page.histogram(
                "vllm:request_queue_time_seconds",
                "Histogram of time spent in WAITING phase for request.",
                LATENCY,
            )?,
            inference: page.histogram(
                "vllm:request_inference_time_seconds",
                "Histogram of time spent in RUNNING phase for request.",
                LATENCY,
            )?,
            prefill: page.histogram(
                "vllm:request_prefill_time_seconds",
                "Histogram of time spent in PREFILL phase for request.",
                LATENCY,
            )?,
            decode: page.histogram(
                "vllm:request_decode_time_seconds",
                "Histogram of time spent in DECODE phase for request.",
                LATENCY,
            )?,
            request_preemptions: page.histogram(
                "vllm:request_num_preemptions",
                "Histogram of preemptions per request.",
                PREEMPTIONS,
            )?,
            prefill_computed: page.histogram(
                "vllm:request_prefill_kv_computed_tokens",
                "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
                &tokens,
            )?,
            external_queries: page.counter(
                "vllm:external_prefix_cache_queries_total",
                "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.",
            )?,
            external_hits: page.counter(
                "vllm:external_prefix_cache_hits_total",
                "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.",
            )?,
            transfers: match config.transfer.config {
                Some(transfer) if transfer.connector == Some(Connector::Nixl) => Some(Transfers::new(&page)?),
                _ => None,
            },
            revision_mismatches: match &config.transfer.revision {
                Some(_) => Some(page.counter(
                    "llmd_sim_revision_mismatches_total",
                    "Requests refused because another revision had prefilled them.",
                )?),
                None => None,
            },
            adapters,
            max_adapters: config.engine.max_adapters.to_string(),
            registry: page.registry,
        };
        for reason in FinishReason::ALL {
            metrics.success.with_label_values(&[reason.as_str()]);
        }
        for source in ["local_compute", "local_cache_hit", "external_kv_transfer"] {
            metrics.prompt_by_source.with_label_values(&[source]);
        }
        Ok(metrics)
    }

    /// Counts a request with its output cap.
    pub fn submitted(&self, max_tokens: usize) {
        self.request_max_tokens.observe(max_tokens as f64);
        self.request_n.observe(1.0);
    }

    /// Counts one event.
    pub fn observe(&self, event: &Event) {
        match event {
            Event::Step { tokens } => self.iteration.observe(*tokens as f64),
            Event::FirstToken { latency, .. } => self.first_token.observe(latency.as_secs_f64()),
            Event::Token { latency, .. } => self.inter_token.observe(latency.as_secs_f64()),
            Event::Held { .. } => {}
            Event::Expired { .. } => {
                if let Some(transfers) = &self.transfers {
                    transfers.expired();
                }
            }
            Event::Finished { summary, .. } => {
                self.success.with_label_values(&[summary.finish.as_str()]).inc();
                self.end_to_end.observe(summary.end_to_end.as_secs_f64());
                if summary.generated_tokens == 0 {
                    return;
                }
                let computed = summary.prompt_tokens - summary.cached_tokens;
                self.prompt_cached.inc_by(summary.cached_tokens as u64);
                self.prompt_by_source
                    .with_label_values(&["local_compute"])
                    .inc_by(computed as u64);
                self.prompt_by_source
                    .with_label_values(&["local_cache_hit"])
                    .inc_by((summary.cached_tokens - summary.imported_tokens) as u64);
                self.prompt_by_source
                    .with_label_values(&["external_kv_transfer"])
                    .inc_by(summary.imported_tokens as u64);
                self.request_prompt.observe(summary.prompt_tokens as f64);
                self.request_generation.observe(summary.generated_tokens as f64);
                self.request_max_generation
                    .observe(summary.generated_tokens as f64);
                self.request_preemptions.observe(f64::from(summary.preemptions));
                self.prefill_computed.observe(computed as f64);
                self.queue.observe(summary.queue.as_secs_f64());
                self.prefill.observe(summary.prefill.as_secs_f64());
                self.decode.observe(summary.decode.as_secs_f64());
                self.inference
                    .observe((summary.prefill + summary.decode).as_secs_f64());
                if summary.generated_tokens > 1 {
                    self.per_output_token
                        .observe(summary.decode.as_secs_f64() / (summary.generated_tokens - 1) as f64);
                }
            }
        }
    }

    /// Brings gauges and totals to the engine's state; `counted` is what the totals stand at.
    pub fn update(&self, engine: &Engine, counted: &mut Counters) {
        self.running.set(engine.running() as f64);
        self.waiting.set(engine.waiting() as f64);
        self.usage.set(engine.blocks().usage());
        let total = engine.counters();
        self.queries.inc_by(total.prefix_queries - counted.prefix_queries);
        self.hits.inc_by(total.prefix_hits - counted.prefix_hits);
        self.external_queries
            .inc_by(total.external_queries - counted.external_queries);
        self.external_hits
            .inc_by(total.external_hits - counted.external_hits);
        self.preemptions.inc_by(total.preemptions - counted.preemptions);
        self.prompt_tokens
            .inc_by(total.prompt_tokens - counted.prompt_tokens);
        self.generation_tokens
            .inc_by(total.generated_tokens - counted.generated_tokens);
        *counted = total;
        if let Some(adapters) = &self.adapters {
            let (running, waiting) = (
                names(&engine.running_adapters()),
                names(&engine.waiting_adapters()),
            );
            // vLLM leaves old label sets behind and readers take the youngest; one series says the same.
            adapters.reset();
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            adapters
                .with_label_values(&[self.max_adapters.as_str(), &running, &waiting])
                .set(now.as_secs_f64());
        }
    }

    /// Counts blocks that were read from another engine.
    pub fn transferred(&self, took: Duration) {
        if let Some(transfers) = &self.transfers {
            transfers.done(took);
        }
    }

    /// Counts blocks that could not be read.
    pub fn transfer_failed(&self) {
        if let Some(transfers) = &self.transfers {
            transfers.failed();
        }
    }

    /// Counts a request that another revision had prefilled.
    pub fn revision_mismatch(&self) {
        if let Some(mismatches) = &self.revision_mismatches {
            mismatches.inc();
        }
    }

    /// The page in Prometheus' text format.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut page = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }
}

fn names(adapters: &[Arc<str>]) -> String {
    adapters.iter().map(|name| &**name).collect::<Vec<_>>().join(",")
}
