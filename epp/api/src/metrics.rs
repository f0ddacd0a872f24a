//! What the data layer knows about one engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Scraped state of one endpoint (upstream `Metrics`, llm-d-router pkg/epp/framework).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsRecord {
    /// Requests waiting in the engine's queue.
    pub waiting_queue_size: u32,
    /// Requests in the running batch.
    pub running_requests_size: u32,
    /// KV-cache use, 0..=1.
    pub kv_cache_usage: f64,
    /// Tokens per KV block; 0 when the engine does not say.
    pub cache_block_size: u32,
    /// KV blocks of the engine; 0 when the engine does not say.
    pub cache_num_blocks: u32,
    /// KV capacity in tokens (`block size × blocks`); 0 when unknown.
    pub kv_cache_max_token_capacity: u64,
    /// LoRA adapters in the running batch.
    pub active_models: BTreeMap<String, u32>,
    /// LoRA adapters of waiting requests.
    pub waiting_models: BTreeMap<String, u32>,
    /// LoRA adapters that may run at once.
    pub max_active_models: u32,
    /// Share of prompt tokens the engine found in its own prefix cache since it started, 0..=1;
    /// `None` when the engine does not say. For people and tables, not for scoring.
    pub prefix_hit_rate: Option<f64>,
    /// Scalars of `engineConfigs[].customMetrics` by attribute key.
    pub custom: Vec<(Arc<str>, f64)>,
    /// Last time at least one value was read; `None` before the first scrape.
    pub update_time: Option<Instant>,
}
