//! `prefix-cache-scorer`: prefers endpoints that hold the request's prefix.
//!
//! | parameter | default |
//! |---|---|
//! | `prefixMatchInfoProducerName` | the default producer |
//! | `matchLengthWeight` w | 0, in 0..=1 |
//! | `matchLengthScaleTokens` s | 8192 |
//!
//! `w·min(1, m·bs/s)² + (1 − w)·m/total` with m matched blocks of bs tokens; no block gives 0.
//! `multicluster-prefix-cache-scorer` is the same for endpoints that are clusters; it reads the producer of that kind where
//! one is configured.

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Need, Plugin, PluginType, PrefixMatch, Stability,
};
use serde::Deserialize;

use crate::plugins::producer::approx_prefix_cache_producer;

/// Type name in configurations.
pub const TYPE: &str = "prefix-cache-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| PrefixCacheScorer::build(context, None),
};

/// The registry line of the type for endpoints that are clusters.
pub const MULTICLUSTER: PluginType = PluginType {
    name: "multicluster-prefix-cache-scorer",
    stability: Stability::Alpha,
    build: |context| {
        let wanted = approx_prefix_cache_producer::MULTICLUSTER.name;
        let is_declared = context.state.declared.contains(wanted);
        PrefixCacheScorer::build(context, is_declared.then_some(wanted))
    },
    ..PLUGIN
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    prefix_match_info_producer_name: String,
    match_length_weight: f64,
    match_length_scale_tokens: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: String::new(),
            match_length_weight: 0.0,
            match_length_scale_tokens: 8192,
        }
    }
}

struct PrefixCacheScorer {
    prefix: AttributeKey<PrefixMatch>,
    length_weight: f64,
    length_scale: f64,
}

impl PrefixCacheScorer {
    /// `producer` is read when the parameters name none.
    fn build(context: &mut BuildContext<'_>, producer: Option<&str>) -> Result<Plugin, BuildError> {
        let Parameters {
            prefix_match_info_producer_name,
            match_length_weight,
            match_length_scale_tokens,
        } = context.parameters()?;
        if !(0.0..=1.0).contains(&match_length_weight) {
            return Err(BuildError::value("matchLengthWeight", "must be in 0..=1"));
        }
        if match_length_scale_tokens == 0 {
            let reason = "must be greater than 0";
            return Err(BuildError::value("matchLengthScaleTokens", reason));
        }
        let named = Some(&*prefix_match_info_producer_name).filter(|name| !name.is_empty());
        Ok(Plugin::scorer(Self {
            prefix: context.consumes(PREFIX_CACHE_MATCH_INFO, named.or(producer), Need::Required)?,
            length_weight: match_length_weight,
            length_scale: match_length_scale_tokens as f64,
        }))
    }
}

impl Scorer for PrefixCacheScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let Some(matched) = cycle.attributes.get(self.prefix) else {
            return;
        };
        if matched.total == 0 {
            return;
        }
        for (score, index) in scores.iter_mut().zip(candidates) {
            let blocks = matched.matched_blocks(*index);
            if blocks == 0 {
                continue;
            }
            let tokens = f64::from(blocks) * f64::from(matched.block_tokens);
            let length = (tokens / self.length_scale).min(1.0);
            *score =
                self.length_weight * length * length + (1.0 - self.length_weight) * matched.ratio(*index);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build_in, state, with_prefix};

    fn scores(parameters: serde_json::Value, matched: &[u32], total: u32) -> Vec<f64> {
        let pool = Pool::of(matched.len());
        with_prefix(&PLUGIN, parameters, matched, total, |plugin, cycle| {
            let candidates: Vec<u32> = (0..matched.len() as u32).collect();
            let mut scores = vec![0.0; candidates.len()];
            plugin
                .scorer
                .as_ref()
                .unwrap()
                .score(cycle, &candidates, &mut scores);
            scores
        })(&pool)
    }

    #[test]
    fn the_matched_share_is_the_score() {
        assert_eq!(scores(json!({}), &[0, 5, 10], 10), [0.0, 0.5, 1.0]);
        assert_eq!(scores(json!({}), &[0, 0], 0), [0.0, 0.0]);
    }

    #[test]
    fn match_length_counts_when_asked_for() {
        let parameters = json!({"matchLengthWeight": 0.5, "matchLengthScaleTokens": 640});
        // 5 blocks of 64 tokens: half of the scale.
        assert_eq!(scores(parameters, &[5, 10], 10), [0.5 * 0.25 + 0.5 * 0.5, 1.0]);
    }

    #[test]
    fn for_clusters_the_producer_of_that_kind_is_read_where_there_is_one() {
        let read = |declared: &[&str]| {
            let mut state = state();
            state.declared = declared.iter().map(|name| (*name).into()).collect();
            build_in(&mut state, &MULTICLUSTER, &json!({})).unwrap();
            state.declarations[0].key.producer.to_string()
        };
        let of_clusters = "multicluster-approx-prefix-cache-producer";
        assert_eq!(read(&[of_clusters]), of_clusters);
        assert_eq!(read(&[]), "approx-prefix-cache-producer");
    }
}
