//! `no-hit-lru-scorer`: spreads cold requests over the endpoints used longest ago.
//!
//! | parameter | default |
//! |---|---|
//! | `lruSize` | 1024 endpoints |
//! | `prefixMatchInfoProducerName` | the default producer |
//! | `prefixPluginType`, `prefixPluginName` | deprecated, have no effect |
//!
//! Any prefix hit in the pool gives 0.5 to all. Else the candidates are ranked: never used first,
//! then least recently used; `1 − rank/(n − 1)`, 1 for a single one. A cold request moves its
//! primary endpoint and that of the profile `prefill` to the end, under the pool's lock, so that
//! a burst of cold requests spreads.

use std::sync::{Arc, Mutex, PoisonError};

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::{EndpointObserver, Reserve, SchedulingResult, Scorer};
use llmd_epp_api::{
    AttributeKey, BuildError, Cycle, Need, Plugin, PluginType, PrefixMatch, ResponseHook, SlotId, Stability,
};
use rustc_hash::FxHashMap;
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "no-hit-lru-scorer";

const PREFILL_PROFILE: &str = "prefill";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            lru_size,
            prefix_match_info_producer_name,
            prefix_plugin_type,
            prefix_plugin_name,
        } = context.parameters()?;
        if prefix_plugin_type.is_some() {
            context.warn_without_effect("prefixPluginType");
        }
        if prefix_plugin_name.is_some() {
            context.warn_without_effect("prefixPluginName");
        }
        if lru_size == 0 {
            return Err(BuildError::value("lruSize", "must be greater than 0"));
        }
        let scorer = Arc::new(NoHitLruScorer {
            prefix: context.consumes(
                PREFIX_CACHE_MATCH_INFO,
                Some(&prefix_match_info_producer_name),
                Need::Required,
            )?,
            capacity: lru_size,
            state: Mutex::default(),
        });
        Ok(Plugin {
            scorer: Some(scorer.clone()),
            reserve: Some(scorer.clone()),
            observer: Some(scorer),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    lru_size: usize,
    prefix_match_info_producer_name: String,
    prefix_plugin_type: Option<String>,
    prefix_plugin_name: Option<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            lru_size: 1024,
            prefix_match_info_producer_name: String::new(),
            prefix_plugin_type: None,
            prefix_plugin_name: None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// When each endpoint last got a cold request, as a count of cold requests.
    used: FxHashMap<SlotId, u64>,
    uses: u64,
    /// Ranking buffer: (last use, position among the candidates).
    order: Vec<(u64, u32)>,
}

#[derive(Debug)]
struct NoHitLruScorer {
    prefix: AttributeKey<PrefixMatch>,
    capacity: usize,
    state: Mutex<State>,
}

impl NoHitLruScorer {
    fn has_hit(&self, cycle: &Cycle<'_>) -> bool {
        let matched = cycle.attributes.get(self.prefix);
        matched.is_some_and(|matched| matched.matched.iter().any(|blocks| *blocks > 0))
    }
}

impl Scorer for NoHitLruScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        if self.has_hit(cycle) {
            scores.fill(0.5);
            return;
        }
        if candidates.len() == 1 {
            scores.fill(1.0);
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { used, order, .. } = &mut *state;
        order.clear();
        for (position, index) in candidates.iter().enumerate() {
            let last = used
                .get(&cycle.snapshot.slot_ids[*index as usize])
                .copied()
                .unwrap_or(0);
            order.push((last, position as u32));
        }
        order.sort_unstable();
        let span = (candidates.len() - 1) as f64;
        for (rank, (_, position)) in order.iter().enumerate() {
            scores[*position as usize] = 1.0 - rank as f64 / span;
        }
    }
}

impl Reserve for NoHitLruScorer {
    fn reserve(&self, cycle: &Cycle<'_>, result: SchedulingResult<'_>, _: &mut Vec<Box<dyn ResponseHook>>) {
        if self.has_hit(cycle) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let prefill = result
            .first_endpoints()
            .find(|(profile, _)| *profile == PREFILL_PROFILE);
        let targets = result.target().into_iter().chain(prefill.map(|(_, index)| index));
        for index in targets {
            state.uses += 1;
            let uses = state.uses;
            state.used.insert(cycle.snapshot.slot_ids[index as usize], uses);
        }
        while state.used.len() > self.capacity {
            let oldest = state
                .used
                .iter()
                .min_by_key(|(_, last)| **last)
                .map(|(slot, _)| *slot);
            if let Some(oldest) = oldest {
                state.used.remove(&oldest);
            }
        }
    }
}

impl EndpointObserver for NoHitLruScorer {
    fn retain(&self, live: &[SlotId]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used.retain(|slot, _| live.binary_search(slot).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use llmd_epp_api::plugin::ProfileRun;
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, with_prefix};

    fn send(plugin: &Plugin, pool: &Pool, index: u32) {
        let runs = [ProfileRun {
            picked: vec![index],
            ..ProfileRun::default()
        }];
        let profiles = ["default".into()];
        let result = SchedulingResult {
            profiles: &profiles,
            runs: &runs,
            primary: 0,
        };
        pool.cycle(|cycle| {
            plugin
                .reserve
                .as_ref()
                .unwrap()
                .reserve(cycle, result, &mut Vec::new());
        });
    }

    #[test]
    fn never_used_first_then_least_recently_used() {
        let pool = Pool::of(3);
        let plugin = build(&PLUGIN, json!({}));
        let scorer = plugin.scorer.clone().unwrap();
        send(&plugin, &pool, 0);
        send(&plugin, &pool, 1);
        assert_eq!(pool.scored(&*scorer), [0.5, 0.0, 1.0]);
        send(&plugin, &pool, 2);
        send(&plugin, &pool, 0);
        assert_eq!(pool.scored(&*scorer), [0.0, 1.0, 0.5]);
        plugin
            .observer
            .as_ref()
            .unwrap()
            .retain(&[pool.snapshot.slot_ids[1]]);
        assert_eq!(pool.scored(&*scorer), [1.0, 0.0, 0.5]);
        assert_eq!(Pool::of(1).scored(&*scorer), [1.0]);
    }

    #[test]
    fn a_hit_anywhere_makes_it_neutral() {
        let pool = Pool::of(2);
        let scores = with_prefix(&PLUGIN, json!({}), &[0, 1], 4, |plugin, cycle| {
            let mut scores = [0.0; 2];
            plugin.scorer.as_ref().unwrap().score(cycle, &[0, 1], &mut scores);
            scores
        })(&pool);
        assert_eq!(scores, [0.5, 0.5]);
    }
}
