//! An immutable, struct-of-arrays view of the pool that one scheduling cycle reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::metrics::MetricsRecord;
use crate::slots::SlotId;

/// How many times the age up to which values are fresh leaves nothing of them.
pub const FADED_AFTER: f64 = 5.0;

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

    /// Lets scraped values that are older than `fresh_for` lose their weight: from that age to
    /// [`FADED_AFTER`] times as much they move evenly to the mean of the fresh endpoints. An endpoint
    /// that cannot be read any more is neither shunned nor preferred; one that never was stays at 0.
    /// `records` keep what was read.
    #[must_use]
    pub fn faded(mut self, now: Instant, fresh_for: Duration) -> Self {
        let age = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let fresh: Vec<usize> = (0..self.len())
            .filter(|index| age(self.updated[*index]).is_some_and(|age| age <= fresh_for))
            .collect();
        if fresh.is_empty() || fresh.len() == self.len() {
            return self;
        }
        let mean = |of: &dyn Fn(usize) -> f64| {
            fresh.iter().map(|index| of(*index)).sum::<f64>() / fresh.len() as f64
        };
        let waiting = mean(&|index| f64::from(self.waiting[index]));
        let running = mean(&|index| f64::from(self.running[index]));
        let kv_usage = mean(&|index| self.kv_usage[index]);
        for index in 0..self.len() {
            let Some(age) = age(self.updated[index]).filter(|age| *age > fresh_for) else {
                continue;
            };
            let span = fresh_for.as_secs_f64() * (FADED_AFTER - 1.0);
            let past = age.saturating_sub(fresh_for).as_secs_f64();
            let weight = (1.0 - past / span).max(0.0);
            let blend = |old: f64, mean: f64| old * weight + mean * (1.0 - weight);
            self.waiting[index] = blend(f64::from(self.waiting[index]), waiting).round() as u32;
            self.running[index] = blend(f64::from(self.running[index]), running).round() as u32;
            self.kv_usage[index] = blend(self.kv_usage[index], kv_usage);
        }
        self
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::endpoint::{EndpointName, EndpointSpec};
    use crate::slots::Slot;

    const FRESH: Duration = Duration::from_secs(2);

    fn member(waiting: u32, age: Option<u64>, now: Instant) -> (Arc<Endpoint>, Arc<MetricsRecord>) {
        let spec = EndpointSpec {
            name: EndpointName::new("default", "e"),
            pod: "e".into(),
            address: "127.0.0.1".parse().unwrap(),
            port: 1,
            rank: 0,
            reach: crate::Reach::default(),
            labels: BTreeMap::new(),
        };
        let record = MetricsRecord {
            waiting_queue_size: waiting,
            running_requests_size: 2 * waiting,
            kv_cache_usage: f64::from(waiting) / 100.0,
            update_time: age.and_then(|age| now.checked_sub(Duration::from_secs(age))),
            ..MetricsRecord::default()
        };
        (Arc::new(Endpoint::new(spec, Slot::detached(0))), Arc::new(record))
    }

    fn faded(members: &[(u32, Option<u64>)]) -> Snapshot {
        let now = Instant::now() + Duration::from_secs(1000);
        let members = members.iter().map(|(waiting, age)| member(*waiting, *age, now));
        Snapshot::new(1, members.collect()).faded(now, FRESH)
    }

    #[test]
    fn old_values_move_to_the_mean_of_the_fresh_ones() {
        let snapshot = faded(&[
            (10, Some(0)),
            (30, Some(2)),
            (80, Some(4)),
            (80, Some(10)),
            (80, Some(99)),
        ]);
        assert_eq!(snapshot.waiting, [10, 30, 65, 20, 20]);
        assert_eq!(snapshot.running, [20, 60, 130, 40, 40]);
        assert!((snapshot.kv_usage[2] - 0.65).abs() < 1e-9 && (snapshot.kv_usage[4] - 0.2).abs() < 1e-9);
        assert_eq!(
            snapshot.records[4].waiting_queue_size, 80,
            "the record is what was read"
        );
    }

    #[test]
    fn without_a_fresh_one_and_before_the_first_scrape_values_stay() {
        assert_eq!(faded(&[(10, Some(50)), (30, Some(60))]).waiting, [10, 30]);
        assert_eq!(faded(&[(10, Some(0)), (0, None)]).waiting, [10, 0]);
    }
}
