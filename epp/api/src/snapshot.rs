//! An immutable, struct-of-arrays view of the pool that one scheduling cycle reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::metrics::MetricsRecord;
use crate::slots::SlotId;

/// The pool at one moment. Columns share one order: index `i` is the same endpoint in each.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with each publication.
    pub version: u64,
    /// The endpoints, ordered by name so that equal inputs give equal decisions.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Identity of each endpoint's slot, for side tables.
    pub slot_ids: Vec<SlotId>,
    /// Requests waiting in each engine's queue.
    pub waiting: Vec<u32>,
    /// Requests running in each engine.
    pub running: Vec<u32>,
    /// KV-cache use of each engine, 0..=1.
    pub kv_usage: Vec<f64>,
    /// Last successful scrape of each engine.
    pub updated: Vec<Option<Instant>>,
    /// The whole record, for the rarely read fields.
    pub records: Vec<Arc<MetricsRecord>>,
    /// Endpoints that may get one request more than they ever had, to see whether they are well again.
    trials: Vec<(SlotId, u64)>,
}

impl Snapshot {
    /// Builds the columns; the order of `members` is kept.
    pub fn new(version: u64, members: Vec<(Arc<Endpoint>, Arc<MetricsRecord>)>) -> Self {
        let mut snapshot = Self {
            version,
            ..Self::default()
        };
        for (endpoint, record) in members {
            snapshot.slot_ids.push(endpoint.slot().id());
            snapshot.waiting.push(record.waiting_queue_size);
            snapshot.running.push(record.running_requests_size);
            snapshot.kv_usage.push(record.kv_cache_usage);
            snapshot.updated.push(record.update_time);
            snapshot.endpoints.push(endpoint);
            snapshot.records.push(record);
        }
        snapshot
    }

    /// Puts endpoints on trial: each may get a request while no more than this number was ever sent
    /// there.
    #[must_use]
    pub fn with_trials(self, trials: Vec<(SlotId, u64)>) -> Self {
        Self { trials, ..self }
    }

    /// Whether any endpoint is on trial.
    pub fn has_trials(&self) -> bool {
        !self.trials.is_empty()
    }

    /// Whether endpoint `index` is on trial and has had its request.
    pub fn is_tried(&self, index: u32) -> bool {
        let slot = self.endpoints[index as usize].slot();
        let mut trials = self.trials.iter();
        trials.any(|(of, limit)| *of == slot.id() && slot.dispatched() > *limit)
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether the pool has no endpoint.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether endpoint `index` was scraped within `limit` before `now`.
    pub fn is_fresh(&self, index: usize, now: Instant, limit: Duration) -> bool {
        self.updated[index].is_some_and(|at| now.saturating_duration_since(at) <= limit)
    }
}
