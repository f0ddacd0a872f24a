//! `multicluster-queue-scorer`: prefers clusters whose engines have shorter queues.
//!
//! No parameters. `(max − q)/(max − min)` of the attribute `llm-d.ai/multicluster-queue-size` over the candidates that have
//! it, all equal gives 1; a cluster of which nothing is known gets 0.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

use crate::plugins::endpoint_attribute::EndpointAttribute;

/// Type name in configurations.
pub const TYPE: &str = "multicluster-queue-scorer";

/// Key of the attribute it reads: the mean queue of a cluster's engines.
pub const ATTRIBUTE: &str = "llm-d.ai/multicluster-queue-size";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        let queue = EndpointAttribute::Custom(ATTRIBUTE.into());
        Ok(Plugin::scorer(MulticlusterQueueScorer { queue }))
    },
};

struct MulticlusterQueueScorer {
    queue: EndpointAttribute,
}

impl Scorer for MulticlusterQueueScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let queue = |index: u32| self.queue.of(cycle.snapshot, index);
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for queue in candidates.iter().filter_map(|index| queue(*index)) {
            min = min.min(queue);
            max = max.max(queue);
        }
        for (score, index) in scores.iter_mut().zip(candidates) {
            *score = match queue(*index) {
                None => 0.0,
                Some(_) if min >= max => 1.0,
                Some(queue) => (max - queue) / (max - min),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    #[test]
    fn the_shortest_queue_gets_one_and_an_unknown_one_nothing() {
        let scorer = build(&PLUGIN, json!({})).scorer.unwrap();
        let known = |pool: Pool, index, queue| {
            pool.record(index, |record| record.custom.push((ATTRIBUTE.into(), queue)))
        };
        let pool = known(known(known(Pool::of(4), 0, 2.5), 1, 5.0), 2, 7.5);
        assert_eq!(pool.scored(&*scorer), [1.0, 0.5, 0.0, 0.0]);
        let alone = known(Pool::of(2), 1, 9.0);
        assert_eq!(alone.scored(&*scorer), [0.0, 1.0]);
        assert!(build_error(&PLUGIN, json!({"threshold": 1})).contains("threshold"));
    }
}
