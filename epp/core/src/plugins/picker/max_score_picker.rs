//! `max-score-picker`: the highest total wins; equal totals go to the endpoint with the fewest
//! requests in flight, then to one drawn at random.
//!
//! | parameter | default |
//! |---|---|
//! | `maxNumOfEndpoints` | 1 |
//!
//! Upstream shuffled and sorted, so that a burst that arrives between two scrapes herded onto one
//! endpoint; since llm-d-router #2515 ties look at load, as here. Load is booked under the same lock,
//! so each pick sees the ones before it.

use std::cmp::Ordering;

use llmd_epp_api::plugin::Picker;
use llmd_epp_api::{Cycle, Plugin, PluginType, Random, Stability};

use super::parameters::max_num_of_endpoints;

/// Type name in configurations.
pub const TYPE: &str = "max-score-picker";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        Ok(Plugin::picker(MaxScorePicker {
            limit: max_num_of_endpoints(context)?,
        }))
    },
};

struct MaxScorePicker {
    limit: usize,
}

fn load(cycle: &Cycle<'_>, index: u32) -> u64 {
    cycle.snapshot.endpoints[index as usize].slot().requests()
}

impl MaxScorePicker {
    /// One pass and one random number per tie: the common case of a single endpoint.
    fn pick_one(cycle: &Cycle<'_>, candidates: &[u32], totals: &[f64], random: &Random) -> Option<u32> {
        let best = totals.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut chosen = None;
        let mut least = u64::MAX;
        let mut ties = 0;
        for (index, total) in candidates.iter().zip(totals) {
            if *total < best {
                continue;
            }
            let requests = load(cycle, *index);
            if requests < least {
                least = requests;
                ties = 1;
                chosen = Some(*index);
            } else if requests == least {
                ties += 1;
                // Each of the ties so far stays chosen with equal probability.
                if random.below(ties) == 0 {
                    chosen = Some(*index);
                }
            }
        }
        chosen
    }
}

impl Picker for MaxScorePicker {
    fn pick(
        &self,
        cycle: &Cycle<'_>,
        candidates: &[u32],
        totals: &[f64],
        random: &Random,
        picked: &mut Vec<u32>,
    ) {
        if self.limit == 1 {
            picked.extend(Self::pick_one(cycle, candidates, totals, random));
            return;
        }
        let keyed = candidates.iter().zip(totals);
        let mut order: Vec<(f64, u64, u64, u32)> = keyed
            .map(|(index, total)| (*total, load(cycle, *index), random.bits(), *index))
            .collect();
        order.sort_unstable_by(|a, b| {
            let by_score = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal);
            by_score.then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
        });
        picked.extend(order.iter().take(self.limit).map(|(_, _, _, index)| *index));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plugins::testing::Pool;

    fn pick(pool: &Pool, limit: usize, totals: &[f64], seed: u64) -> Vec<u32> {
        let candidates: Vec<u32> = (0..totals.len() as u32).collect();
        let mut picked = Vec::new();
        pool.cycle(|cycle| {
            MaxScorePicker { limit }.pick(cycle, &candidates, totals, &Random::seeded(seed), &mut picked);
        });
        picked
    }

    #[test]
    fn the_best_score_wins_whatever_the_load() {
        let pool = Pool::of(3).in_flight(1, 1);
        assert_eq!(pick(&pool, 1, &[0.1, 0.9, 0.5], 1), [1]);
        assert_eq!(pick(&pool, 2, &[0.1, 0.9, 0.5], 1), [1, 2]);
        assert_eq!(pick(&pool, 9, &[0.1, 0.9, 0.5], 1), [1, 2, 0]);
    }

    #[test]
    fn ties_go_to_the_least_loaded() {
        let pool = Pool::of(3).in_flight(0, 1).in_flight(2, 1).in_flight(2, 1);
        for seed in 0..20 {
            assert_eq!(pick(&pool, 1, &[0.5; 3], seed), [1]);
            assert_eq!(pick(&pool, 3, &[0.5; 3], seed), [1, 0, 2]);
        }
    }

    #[test]
    fn equal_load_is_drawn_and_a_seed_repeats_itself() {
        let pool = Pool::of(4);
        let drawn: BTreeSet<Vec<u32>> = (0..50).map(|seed| pick(&pool, 1, &[0.5; 4], seed)).collect();
        assert_eq!(drawn.len(), 4);
        assert_eq!(pick(&pool, 1, &[0.5; 4], 7), pick(&pool, 1, &[0.5; 4], 7));
    }
}
