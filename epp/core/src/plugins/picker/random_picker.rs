//! `random-picker`: any candidate, scores aside.
//!
//! | parameter | default |
//! |---|---|
//! | `maxNumOfEndpoints` | 1 |

use llmd_epp_api::plugin::Picker;
use llmd_epp_api::{Cycle, Plugin, PluginType, Random, Stability};

use super::parameters::max_num_of_endpoints;

/// Type name in configurations.
pub const TYPE: &str = "random-picker";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        Ok(Plugin::picker(RandomPicker {
            limit: max_num_of_endpoints(context)?,
        }))
    },
};

struct RandomPicker {
    limit: usize,
}

impl Picker for RandomPicker {
    fn pick(&self, _: &Cycle<'_>, candidates: &[u32], _: &[f64], random: &Random, picked: &mut Vec<u32>) {
        if self.limit == 1 {
            picked.extend(candidates.get(random.below(candidates.len())));
            return;
        }
        let from = picked.len();
        picked.extend_from_slice(candidates);
        let drawn = &mut picked[from..];
        for at in 0..self.limit.min(drawn.len()) {
            let other = at + random.below(drawn.len() - at);
            drawn.swap(at, other);
        }
        picked.truncate(from + self.limit);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn every_candidate_is_drawn_and_none_twice() {
        let pool = Pool::of(5);
        let random = Random::seeded(3);
        let mut seen = BTreeSet::new();
        for limit in [1, 3, 9] {
            for _ in 0..50 {
                let mut picked = Vec::new();
                pool.cycle(|cycle| {
                    RandomPicker { limit }.pick(cycle, &[0, 2, 4], &[0.0; 3], &random, &mut picked);
                });
                let distinct: BTreeSet<u32> = picked.iter().copied().collect();
                assert_eq!((distinct.len(), picked.len()), (limit.min(3), limit.min(3)));
                seen.extend(picked);
            }
        }
        assert_eq!(seen, BTreeSet::from([0, 2, 4]));
    }
}
