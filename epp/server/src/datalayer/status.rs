//! What people and tools may see of an endpoint; never prompts, headers or credentials.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{Endpoint, ListedModel, MetricsRecord};
use serde::Serialize;

use super::health::Ejection;

/// One endpoint in `GET /debug/endpoints`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Namespace and name, `namespace/name`.
    pub name: String,
    /// `ip:port` that requests go to.
    pub target: String,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the engine whose metric names are read.
    pub engine_type: String,
    /// Requests in the engine's queue.
    pub waiting: u32,
    /// Requests in the engine's batch.
    pub running: u32,
    /// KV-cache use, 0..=1.
    pub kv_cache_usage: f64,
    /// Requests sent through this picker and not finished.
    pub in_flight_requests: u64,
    /// Their prompt tokens that are not known to be processed.
    pub in_flight_tokens: u64,
    /// Share of prompt tokens that the engine found in its cache since it started; null when unknown.
    pub prefix_hit_rate: Option<f64>,
    /// Milliseconds since metrics were read; null before the first time.
    pub metrics_age_ms: Option<u64>,
    /// Scalars of data-layer plugins, by attribute key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, f64>,
    /// What it lists as its models, where that is read.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub models: Arc<[ListedModel]>,
    /// Left out for a while.
    pub ejected: bool,
    /// Why: `unreachable`, `stalled` or `failing`; null while it is not left out.
    pub ejection: Option<&'static str>,
    /// Failed polls and extractions since the endpoint joined.
    pub errors: u64,
    /// The last failure; null when there was none.
    pub last_error: Option<String>,
}

/// State that is neither the endpoint's nor the record's.
pub(super) struct Live<'a> {
    pub(super) engine_type: &'a str,
    pub(super) ejection: Option<Ejection>,
    pub(super) errors: u64,
    pub(super) last_error: Option<&'a str>,
}

impl EndpointStatus {
    pub(super) fn new(endpoint: &Endpoint, record: &MetricsRecord, now: Instant, live: &Live<'_>) -> Self {
        let age = record.update_time.map(|at| now.saturating_duration_since(at));
        Self {
            name: endpoint.name().to_string(),
            target: endpoint.target().to_string(),
            labels: endpoint.spec().labels.clone(),
            engine_type: live.engine_type.to_owned(),
            waiting: record.waiting_queue_size,
            running: record.running_requests_size,
            kv_cache_usage: record.kv_cache_usage,
            in_flight_requests: endpoint.slot().requests(),
            in_flight_tokens: endpoint.slot().tokens(),
            prefix_hit_rate: record.prefix_hit_rate,
            metrics_age_ms: age.map(|age| age.as_millis() as u64),
            attributes: record
                .custom
                .iter()
                .map(|(key, value)| (key.to_string(), *value))
                .collect(),
            models: Arc::clone(&record.models),
            ejected: live.ejection.is_some(),
            ejection: live.ejection.map(Ejection::as_str),
            errors: live.errors,
            last_error: live.last_error.map(str::to_owned),
        }
    }
}
