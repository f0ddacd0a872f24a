//! `load-aware-scorer`: halves the score of a queue, so that it only separates loaded endpoints.
//!
//! | parameter | default |
//! |---|---|
//! | `threshold` t | 128 |
//!
//! No waiting request gives 0.5; else `0.5·(1 − min(w, t)/t)`. w is the engine's own number, or the requests in flight
//! through this process where they are more (`--upstream-timing`: the engine's number).

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Stability, Timing};
use serde::Deserialize;

use super::span::requests;

/// Type name in configurations.
pub const TYPE: &str = "load-aware-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters { threshold } = context.parameters()?;
        if threshold == 0 {
            return Err(BuildError::value("threshold", "must be greater than 0"));
        }
        let timing = context.state.timing;
        Ok(Plugin::scorer(LoadAwareScorer { threshold, timing }))
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    threshold: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { threshold: 128 }
    }
}

struct LoadAwareScorer {
    threshold: u32,
    timing: Timing,
}

impl Scorer for LoadAwareScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let snapshot = cycle.snapshot;
        for (score, index) in scores.iter_mut().zip(candidates) {
            let waiting = requests(self.timing, &snapshot.waiting, snapshot, *index).min(self.threshold);
            *score = 0.5 * (1.0 - f64::from(waiting) / f64::from(self.threshold));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    #[test]
    fn half_at_most_and_zero_at_the_threshold() {
        let pool = Pool::of(4).waiting(1, 32).waiting(2, 128).waiting(3, 500);
        let plugin = build(&PLUGIN, json!({}));
        assert_eq!(pool.scored(&*plugin.scorer.unwrap()), [0.5, 0.375, 0.0, 0.0]);
        let burst = Pool::of(2).in_flight(1, 10).in_flight(1, 10);
        let plugin = build(&PLUGIN, json!({"threshold": 4}));
        assert_eq!(burst.scored(&*plugin.scorer.unwrap()), [0.5, 0.25]);
        let error = build_error(&PLUGIN, json!({"threshold": 0}));
        assert!(error.contains("threshold"), "{error}");
    }
}
