//! `running-requests-size-scorer`: prefers endpoints with fewer running requests.
//!
//! No parameters. `(max − n)/(max − min)` over the candidates; all equal gives 1.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

use super::span::lower_is_better;

/// Type name in configurations.
pub const TYPE: &str = "running-requests-size-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::scorer(RunningRequestsSizeScorer))
    },
};

struct RunningRequestsSizeScorer;

impl Scorer for RunningRequestsSizeScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        lower_is_better(&cycle.snapshot.running, candidates, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn shortest_gets_one_and_longest_zero() {
        let pool = Pool::of(3).running(0, 2).running(1, 6).running(2, 10);
        assert_eq!(pool.scored(&RunningRequestsSizeScorer), [1.0, 0.5, 0.0]);
        assert_eq!(
            Pool::of(2)
                .running(0, 4)
                .running(1, 4)
                .scored(&RunningRequestsSizeScorer),
            [1.0, 1.0]
        );
    }
}
