//! `running-requests-size-scorer`: prefers endpoints with fewer running requests.
//!
//! No parameters. `(max − n)/(max − min)` over the candidates; all equal gives 1. n is the engine's own number, or
//! the requests in flight through this process where they are more (`--upstream-timing`: the engine's number).

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability, Timing};

use super::span::{lower_is_better, requests};

/// Type name in configurations.
pub const TYPE: &str = "running-requests-size-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        let timing = context.state.timing;
        Ok(Plugin::scorer(RunningRequestsSizeScorer { timing }))
    },
};

struct RunningRequestsSizeScorer {
    timing: Timing,
}

impl Scorer for RunningRequestsSizeScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let snapshot = cycle.snapshot;
        let value = |index| requests(self.timing, &snapshot.running, snapshot, index);
        lower_is_better(candidates, value, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    const SCORER: RunningRequestsSizeScorer = RunningRequestsSizeScorer { timing: Timing::Live };

    #[test]
    fn shortest_gets_one_and_longest_zero() {
        let pool = Pool::of(3).running(0, 2).running(1, 6).running(2, 10);
        assert_eq!(pool.scored(&SCORER), [1.0, 0.5, 0.0]);
        assert_eq!(
            Pool::of(2).running(0, 4).running(1, 4).scored(&SCORER),
            [1.0, 1.0]
        );
    }

    #[test]
    fn requests_of_ours_count_before_a_scrape_tells_of_them() {
        let pool = Pool::of(3)
            .running(1, 2)
            .in_flight(2, 10)
            .in_flight(2, 10)
            .in_flight(2, 10)
            .in_flight(2, 10);
        assert_eq!(pool.scored(&SCORER), [1.0, 0.5, 0.0]);
        let as_upstream = RunningRequestsSizeScorer {
            timing: Timing::Upstream,
        };
        assert_eq!(pool.scored(&as_upstream), [1.0, 0.0, 1.0]);
    }
}
