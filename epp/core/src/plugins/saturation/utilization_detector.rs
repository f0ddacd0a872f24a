//! `utilization-detector`: saturation from scraped queue depth and KV-cache use; also a filter.
//!
//! | parameter | default |
//! |---|---|
//! | `queueDepthThreshold` | 5, above 0 |
//! | `kvCacheUtilThreshold` | 0.8, above 0 and at most 1 |
//! | `metricsStalenessThreshold` | 200ms, above 0 |
//! | `headroom` h | 0, not negative |
//!
//! Signal: mean over the endpoints of `max(waiting/queueDepthThreshold, kv/kvCacheUtilThreshold)`,
//! an endpoint with stale or no metrics counts 1.0, no endpoint gives 1.0.
//! Filter: keeps fresh endpoints below both thresholds times `1 + h`; when nothing would be left it
//! keeps everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp_api::plugin::{Filter, SaturationDetector};
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Random, Snapshot, Stability};
use serde::Deserialize;

use crate::config::GoDuration;

/// Type name in configurations.
pub const TYPE: &str = "utilization-detector";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let detector = Arc::new(UtilizationDetector::new(&context.parameters()?)?);
        Ok(Plugin {
            filter: Some(detector.clone()),
            saturation: Some(detector),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    queue_depth_threshold: u32,
    kv_cache_util_threshold: f64,
    metrics_staleness_threshold: GoDuration,
    headroom: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            metrics_staleness_threshold: GoDuration(Duration::from_millis(200)),
            headroom: 0.0,
        }
    }
}

#[derive(Debug)]
struct UtilizationDetector {
    queue: f64,
    kv: f64,
    staleness: Duration,
    headroom: f64,
}

impl UtilizationDetector {
    fn new(parameters: &Parameters) -> Result<Self, BuildError> {
        let Parameters {
            queue_depth_threshold,
            kv_cache_util_threshold,
            metrics_staleness_threshold: GoDuration(staleness),
            headroom,
        } = *parameters;
        if queue_depth_threshold == 0 {
            return Err(BuildError::value("queueDepthThreshold", "must be greater than 0"));
        }
        if !(kv_cache_util_threshold > 0.0 && kv_cache_util_threshold <= 1.0) {
            return Err(BuildError::value(
                "kvCacheUtilThreshold",
                "must be greater than 0 and at most 1",
            ));
        }
        if staleness.is_zero() {
            return Err(BuildError::value(
                "metricsStalenessThreshold",
                "must be greater than 0",
            ));
        }
        if !(headroom >= 0.0 && headroom.is_finite()) {
            return Err(BuildError::value("headroom", "must not be negative"));
        }
        Ok(Self {
            queue: f64::from(queue_depth_threshold),
            kv: kv_cache_util_threshold,
            staleness,
            headroom,
        })
    }

    /// Queue and KV use of a fresh endpoint as shares of their thresholds.
    fn shares(&self, now: Instant, snapshot: &Snapshot, index: u32) -> Option<(f64, f64)> {
        let at = index as usize;
        let queue = f64::from(snapshot.waiting[at]) / self.queue;
        let kv = snapshot.kv_usage[at] / self.kv;
        snapshot.is_fresh(at, now, self.staleness).then_some((queue, kv))
    }
}

impl SaturationDetector for UtilizationDetector {
    fn saturation(&self, now: Instant, snapshot: &Snapshot, candidates: &[u32]) -> f64 {
        if candidates.is_empty() {
            return 1.0;
        }
        let fullness = |index: &u32| {
            let shares = self.shares(now, snapshot, *index);
            shares.map_or(1.0, |(queue, kv)| queue.max(kv))
        };
        candidates.iter().map(fullness).sum::<f64>() / candidates.len() as f64
    }
}

impl Filter for UtilizationDetector {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _random: &Random) {
        let limit = 1.0 + self.headroom;
        let has_room = |index: u32| {
            let shares = self.shares(cycle.now, cycle.snapshot, index);
            shares.is_some_and(|(queue, kv)| queue < limit && kv < limit)
        };
        if candidates.iter().any(|index| has_room(*index)) {
            candidates.retain(|index| has_room(*index));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    fn saturation(pool: &Pool, candidates: &[u32]) -> f64 {
        let detector = build(&PLUGIN, json!({})).saturation.unwrap();
        detector.saturation(pool.now, &pool.snapshot, candidates)
    }

    #[test]
    fn the_signal_is_the_mean_of_the_fuller_dimension() {
        let pool = Pool::of(4)
            .waiting(0, 10)
            .kv_usage(1, 0.4)
            .waiting(1, 1)
            .scraped(2, Duration::from_millis(201));
        assert!((saturation(&pool, &[0]) - 2.0).abs() < 1e-12);
        assert!((saturation(&pool, &[1]) - 0.5).abs() < 1e-12);
        assert!((saturation(&pool, &[2]) - 1.0).abs() < 1e-12, "stale");
        assert!((saturation(&pool, &[0, 1, 2, 3]) - 3.5 / 4.0).abs() < 1e-12);
        assert!((saturation(&pool, &[]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_filter_keeps_endpoints_with_room_and_fails_open() {
        let pool = Pool::of(3).waiting(0, 5).kv_usage(1, 0.79);
        let filter = |parameters| build(&PLUGIN, parameters).filter.unwrap();
        assert_eq!(pool.filtered(&*filter(json!({}))), [1, 2]);
        assert_eq!(pool.filtered(&*filter(json!({"headroom": 0.5}))), [0, 1, 2]);
        let full = Pool::of(2).waiting(0, 9).scraped(1, Duration::from_secs(1));
        assert_eq!(full.filtered(&*filter(json!({}))), [0, 1]);
    }

    #[test]
    fn thresholds_out_of_range_are_refused_by_name() {
        let cases = [
            ("queueDepthThreshold", json!(0)),
            ("queueDepthThreshold", json!(-1)),
            ("kvCacheUtilThreshold", json!(1.5)),
            ("metricsStalenessThreshold", json!("0s")),
            ("metricsStalenessThreshold", json!("200")),
            ("headroom", json!(-0.1)),
        ];
        for (field, value) in cases {
            let error = build_error(&PLUGIN, json!({ field: value }));
            assert!(error.contains(field), "{error}");
        }
    }
}
