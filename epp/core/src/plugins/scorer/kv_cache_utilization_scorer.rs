//! `kv-cache-utilization-scorer`: prefers endpoints with a free KV cache.
//!
//! No parameters. `1 − KV-cache use`.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

/// Type name in configurations.
pub const TYPE: &str = "kv-cache-utilization-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::scorer(KvCacheUtilizationScorer))
    },
};

struct KvCacheUtilizationScorer;

impl Scorer for KvCacheUtilizationScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        for (score, index) in scores.iter_mut().zip(candidates) {
            *score = 1.0 - cycle.snapshot.kv_usage[*index as usize];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn the_free_share_is_the_score() {
        let pool = Pool::of(3).kv_usage(1, 0.25).kv_usage(2, 1.0);
        assert_eq!(pool.scored(&KvCacheUtilizationScorer), [1.0, 0.75, 0.0]);
    }
}
