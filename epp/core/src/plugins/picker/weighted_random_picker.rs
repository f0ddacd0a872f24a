//! `weighted-random-picker`: draws without replacement, in proportion to the totals.
//!
//! | parameter | default |
//! |---|---|
//! | `maxNumOfEndpoints` | 1 |
//!
//! Key `U^(1/total)` with U uniform in 0..1, a total of 0 or below gives key 0; the highest keys win.
//! When all totals are 0 the draw is uniform.

use std::cmp::Ordering;

use llmd_epp_api::plugin::Picker;
use llmd_epp_api::{Cycle, Plugin, PluginType, Random, Stability};

use super::parameters::max_num_of_endpoints;

/// Type name in configurations.
pub const TYPE: &str = "weighted-random-picker";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        Ok(Plugin::picker(WeightedRandomPicker {
            limit: max_num_of_endpoints(context)?,
        }))
    },
};

struct WeightedRandomPicker {
    limit: usize,
}

impl WeightedRandomPicker {
    fn key(total: f64, all_zero: bool, random: &Random) -> f64 {
        let uniform = random.unit();
        if all_zero {
            uniform
        } else if total > 0.0 {
            uniform.powf(1.0 / total)
        } else {
            0.0
        }
    }
}

impl Picker for WeightedRandomPicker {
    fn pick(
        &self,
        _: &Cycle<'_>,
        candidates: &[u32],
        totals: &[f64],
        random: &Random,
        picked: &mut Vec<u32>,
    ) {
        let all_zero = totals.iter().all(|total| *total <= 0.0);
        let keyed = candidates.iter().zip(totals);
        let keyed = keyed.map(|(index, total)| (Self::key(*total, all_zero, random), *index));
        if self.limit == 1 {
            let best = keyed.reduce(|best, next| if next.0 > best.0 { next } else { best });
            picked.extend(best.map(|(_, index)| index));
            return;
        }
        let mut order: Vec<(f64, u32)> = keyed.collect();
        order.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal));
        picked.extend(order.iter().take(self.limit).map(|(_, index)| *index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    fn draws(totals: &[f64]) -> Vec<i64> {
        let pool = Pool::of(totals.len());
        let candidates: Vec<u32> = (0..totals.len() as u32).collect();
        let random = Random::seeded(11);
        let mut counts = vec![0; totals.len()];
        for _ in 0..6000 {
            let mut picked = Vec::new();
            pool.cycle(|cycle| {
                WeightedRandomPicker { limit: 1 }.pick(cycle, &candidates, totals, &random, &mut picked);
            });
            counts[picked[0] as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_in_proportion_to_the_totals() {
        let counts = draws(&[1.0, 2.0, 3.0, 0.0]);
        // Four standard deviations around 1000, 2000 and 3000.
        for (count, expected) in counts.iter().zip([1000, 2000, 3000, 0]) {
            assert!((count - expected).abs() < 170, "{counts:?}");
        }
        assert_eq!(counts[3], 0);
    }

    #[test]
    fn all_zero_is_uniform() {
        let counts = draws(&[0.0, 0.0]);
        assert!(counts.iter().all(|count| *count > 2800), "{counts:?}");
    }

    #[test]
    fn several_are_distinct() {
        let pool = Pool::of(3);
        let mut picked = Vec::new();
        pool.cycle(|cycle| {
            let picker = WeightedRandomPicker { limit: 2 };
            picker.pick(
                cycle,
                &[0, 1, 2],
                &[0.0, 0.5, 0.9],
                &Random::seeded(1),
                &mut picked,
            );
        });
        picked.sort_unstable();
        assert_eq!(picked, [1, 2], "a zero total comes last");
    }
}
