//! `load-aware-scorer`: halves the score of a queue, so that it only separates loaded endpoints.
//!
//! | parameter | default |
//! |---|---|
//! | `threshold` t | 128 |
//!
//! No waiting request gives 0.5; else `0.5·(1 − min(w, t)/t)`.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Stability};
use serde::Deserialize;

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
        Ok(Plugin::scorer(LoadAwareScorer { threshold }))
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
}

impl Scorer for LoadAwareScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        for (score, index) in scores.iter_mut().zip(candidates) {
            let waiting = cycle.snapshot.waiting[*index as usize].min(self.threshold);
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
        let error = build_error(&PLUGIN, json!({"threshold": 0}));
        assert!(error.contains("threshold"), "{error}");
    }
}
