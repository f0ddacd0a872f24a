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
    /// What the endpoint lists as its models, where `models-data-extractor` reads it.
    pub models: Arc<[ListedModel]>,
    /// Last time at least one value was read; `None` before the first scrape.
    pub update_time: Option<Instant>,
}

impl MetricsRecord {
    /// Sets the scalar of an attribute key.
    pub fn set_custom(&mut self, key: &Arc<str>, value: f64) {
        match self.custom.iter_mut().find(|(known, _)| known == key) {
            Some((_, stored)) => *stored = value,
            None => self.custom.push((Arc::clone(key), value)),
        }
    }
}

/// An entry of `/v1/models`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub struct ListedModel {
    /// Name that requests use.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Unix time in seconds.
    pub created: i64,
    /// Who made it.
    pub owned_by: String,
    /// The model that an adapter belongs to; empty for others.
    pub parent: String,
}
