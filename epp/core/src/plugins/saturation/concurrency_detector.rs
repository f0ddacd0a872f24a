//! `concurrency-detector`: saturation from the requests and tokens in flight; also a filter.
//!
//! | parameter | default |
//! |---|---|
//! | `concurrencyMode` | `requests`; `tokens`, `hybrid` |
//! | `maxConcurrency` | 100 requests per endpoint, above 0 |
//! | `maxTokenConcurrency` | 1000000 tokens per endpoint, above 0 |
//! | `headroom` h | 0, not negative |
//! | `inFlightLoadProducerName` | the default producer |
//!
//! Signal: what is in flight in the pool over what all endpoints may hold; `hybrid` is the mean over the endpoints of
//! the fuller dimension; no endpoint gives 1.0. Filter: keeps endpoints below `trunc(max · (1 + h))` in the dimensions of
//! the mode; when nothing would be left it keeps everything (llm-d-router#2883).

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::attribute::IN_FLIGHT_LOAD;
use llmd_epp_api::plugin::{Filter, SaturationDetector};
use llmd_epp_api::{
    BuildContext, BuildError, Cycle, InFlightLoad, Need, Plugin, PluginType, Random, Snapshot, Stability,
};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "concurrency-detector";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let detector = Arc::new(ConcurrencyDetector::new(context)?);
        Ok(Plugin {
            filter: Some(detector.clone()),
            saturation: Some(detector),
            ..Plugin::default()
        })
    },
};

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Requests,
    Tokens,
    Hybrid,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    concurrency_mode: Mode,
    max_concurrency: u32,
    max_token_concurrency: u32,
    headroom: f64,
    in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            concurrency_mode: Mode::default(),
            max_concurrency: 100,
            max_token_concurrency: 1_000_000,
            headroom: 0.0,
            in_flight_load_producer_name: String::new(),
        }
    }
}

#[derive(Debug)]
struct ConcurrencyDetector {
    mode: Mode,
    requests: f64,
    tokens: f64,
    headroom: f64,
}

impl ConcurrencyDetector {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let Parameters {
            concurrency_mode: mode,
            max_concurrency,
            max_token_concurrency,
            headroom,
            in_flight_load_producer_name,
        } = context.parameters()?;
        for (field, value) in [
            ("maxConcurrency", max_concurrency),
            ("maxTokenConcurrency", max_token_concurrency),
        ] {
            if value == 0 {
                return Err(BuildError::value(field, "must be greater than 0"));
            }
        }
        if !(headroom >= 0.0 && headroom.is_finite()) {
            return Err(BuildError::value("headroom", "must not be negative"));
        }
        // The load itself is read from the slots; the declaration makes sure that it is accounted.
        context.consumes::<InFlightLoad>(
            IN_FLIGHT_LOAD,
            Some(&in_flight_load_producer_name),
            Need::Required,
        )?;
        Ok(Self {
            mode,
            requests: f64::from(max_concurrency),
            tokens: f64::from(max_token_concurrency),
            headroom,
        })
    }

    fn has_room(&self, snapshot: &Snapshot, index: u32) -> bool {
        let slot = snapshot.endpoints[index as usize].slot();
        let limit = |most: f64| (most * (1.0 + self.headroom)).trunc();
        let requests = || (slot.requests() as f64) < limit(self.requests);
        let tokens = || (slot.tokens() as f64) < limit(self.tokens);
        match self.mode {
            Mode::Requests => requests(),
            Mode::Tokens => tokens(),
            Mode::Hybrid => requests() && tokens(),
        }
    }
}

impl SaturationDetector for ConcurrencyDetector {
    fn saturation(&self, _: Instant, snapshot: &Snapshot, candidates: &[u32]) -> f64 {
        if candidates.is_empty() {
            return 1.0;
        }
        let share = |index: &u32| {
            let slot = snapshot.endpoints[*index as usize].slot();
            let requests = slot.requests() as f64 / self.requests;
            let tokens = slot.tokens() as f64 / self.tokens;
            match self.mode {
                Mode::Requests => requests,
                Mode::Tokens => tokens,
                Mode::Hybrid => requests.max(tokens),
            }
        };
        // Limits are the same everywhere: the share of the sum is the mean of the shares.
        candidates.iter().map(share).sum::<f64>() / candidates.len() as f64
    }
}

impl Filter for ConcurrencyDetector {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        let snapshot = cycle.snapshot;
        if candidates.iter().any(|index| self.has_room(snapshot, *index)) {
            candidates.retain(|index| self.has_room(snapshot, *index));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    /// 2 requests of 50 tokens in all, 1 of 90, none.
    fn pool() -> Pool {
        Pool::of(3).in_flight(0, 20).in_flight(0, 30).in_flight(1, 90)
    }

    fn saturation(mode: &str, candidates: &[u32]) -> f64 {
        let parameters = json!({"concurrencyMode": mode, "maxConcurrency": 2, "maxTokenConcurrency": 100});
        let detector = build(&PLUGIN, parameters).saturation.unwrap();
        let pool = pool();
        detector.saturation(pool.now, &pool.snapshot, candidates)
    }

    #[test]
    fn the_signal_is_the_share_of_what_may_be_in_flight() {
        let close = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-12, "{value}");
        close(saturation("requests", &[0, 1, 2]), 3.0 / 6.0);
        close(saturation("tokens", &[0, 1, 2]), 140.0 / 300.0);
        close(saturation("hybrid", &[0, 1, 2]), (1.0 + 0.9) / 3.0);
        close(saturation("requests", &[0]), 1.0);
        close(saturation("requests", &[]), 1.0);
    }

    #[test]
    fn the_filter_keeps_endpoints_below_the_truncated_limit_and_fails_open() {
        let kept = |parameters| pool().filtered(&*build(&PLUGIN, parameters).filter.unwrap());
        assert_eq!(kept(json!({})), [0, 1, 2]);
        assert_eq!(kept(json!({"maxConcurrency": 2})), [1, 2]);
        // 2 · 1.4 = 2.8, truncated to 2.
        assert_eq!(kept(json!({"maxConcurrency": 2, "headroom": 0.4})), [1, 2]);
        assert_eq!(kept(json!({"maxConcurrency": 2, "headroom": 0.5})), [0, 1, 2]);
        let tokens = json!({"concurrencyMode": "tokens", "maxTokenConcurrency": 90});
        assert_eq!(kept(tokens), [0, 2]);
        let both = json!({"concurrencyMode": "hybrid", "maxConcurrency": 2, "maxTokenConcurrency": 90});
        assert_eq!(kept(both), [2]);
        let full = Pool::of(1).in_flight(0, 1);
        let filter = build(&PLUGIN, json!({"maxConcurrency": 1})).filter.unwrap();
        assert_eq!(full.filtered(&*filter), [0]);
    }

    #[test]
    fn limits_out_of_range_are_refused_by_name() {
        for (field, value) in [
            ("maxConcurrency", json!(0)),
            ("maxTokenConcurrency", json!(0)),
            ("headroom", json!(-0.1)),
            ("concurrencyMode", json!("bytes")),
        ] {
            let error = build_error(&PLUGIN, json!({ field: value }));
            assert!(error.contains(field), "{error}");
        }
    }
}
