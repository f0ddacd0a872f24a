//! `queue-scorer`: prefers endpoints with fewer waiting requests.
//!
//! No parameters. `(max − n)/(max − min)` over the candidates; all equal gives 1.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

use super::span::lower_is_better;

/// Type name in configurations.
pub const TYPE: &str = "queue-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::scorer(QueueScorer))
    },
};

struct QueueScorer;

impl Scorer for QueueScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        lower_is_better(&cycle.snapshot.waiting, candidates, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn shortest_gets_one_and_longest_zero() {
        let pool = Pool::of(3).waiting(0, 2).waiting(1, 6).waiting(2, 10);
        assert_eq!(pool.scored(&QueueScorer), [1.0, 0.5, 0.0]);
        assert_eq!(
            Pool::of(2).waiting(0, 4).waiting(1, 4).scored(&QueueScorer),
            [1.0, 1.0]
        );
    }
}
