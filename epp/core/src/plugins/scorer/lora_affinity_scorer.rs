//! `lora-affinity-scorer`: prefers endpoints that run the adapter already.
//!
//! No parameters. The request's model is loaded: 1.0; there is room for one more adapter: 0.8; it waits there: 0.6; else
//! 0.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, MetricsRecord, Plugin, PluginType, Stability};

/// Type name in configurations.
pub const TYPE: &str = "lora-affinity-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::scorer(LoraAffinityScorer))
    },
};

struct LoraAffinityScorer;

fn affinity(record: &MetricsRecord, model: &str) -> f64 {
    let adapters = record.active_models.len() + record.waiting_models.len();
    if record.active_models.contains_key(model) {
        1.0
    } else if adapters < record.max_active_models as usize {
        0.8
    } else if record.waiting_models.contains_key(model) {
        0.6
    } else {
        0.0
    }
}

impl Scorer for LoraAffinityScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        for (score, index) in scores.iter_mut().zip(candidates) {
            *score = affinity(
                &cycle.snapshot.records[*index as usize],
                &cycle.request.target_model,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn loaded_comes_before_room_before_waiting() {
        let pool = Pool::of(4)
            .record(0, |record| {
                record.active_models.insert("m".into(), 1);
            })
            .record(1, |record| record.max_active_models = 2)
            .record(2, |record| {
                record.max_active_models = 2;
                record.active_models.insert("other".into(), 1);
                record.waiting_models.insert("m".into(), 1);
            })
            .record(3, |record| {
                record.max_active_models = 1;
                record.active_models.insert("other".into(), 1);
            });
        assert_eq!(pool.scored(&LoraAffinityScorer), [1.0, 0.8, 0.6, 0.0]);
    }
}
