//! `multicluster-kv-cache-utilization-scorer`: prefers clusters with more free KV cache.
//!
//! No parameters. `1 − use` of the attribute `llm-d.ai/multicluster-kv-cache-utilization`; a cluster of which nothing is
//! known gets 0.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

use crate::plugins::endpoint_attribute::EndpointAttribute;

/// Type name in configurations.
pub const TYPE: &str = "multicluster-kv-cache-utilization-scorer";

/// Mean KV-cache use of a cluster's engines, 0..=1.
/// Key of the attribute it reads.
pub const ATTRIBUTE: &str = "llm-d.ai/multicluster-kv-cache-utilization";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        let used = EndpointAttribute::Custom(ATTRIBUTE.into());
        Ok(Plugin::scorer(MulticlusterKvCacheUtilizationScorer { used }))
    },
};

struct MulticlusterKvCacheUtilizationScorer {
    used: EndpointAttribute,
}

impl Scorer for MulticlusterKvCacheUtilizationScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        for (score, index) in scores.iter_mut().zip(candidates) {
            let used = self.used.of(cycle.snapshot, *index);
            *score = used.map_or(0.0, |used| 1.0 - used);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    #[test]
    fn the_free_share_is_the_score() {
        let scorer = build(&PLUGIN, json!({})).scorer.unwrap();
        let pool = Pool::of(2).record(0, |record| record.custom.push((ATTRIBUTE.into(), 0.75)));
        assert_eq!(pool.scored(&*scorer), [0.25, 0.0]);
        assert!(build_error(&PLUGIN, json!({"threshold": 1})).contains("threshold"));
    }
}
