//! `mm-embeddings-cache-scorer`: prefers endpoints that have encoded the request's media before.
//!
//! | parameter | default |
//! |---|---|
//! | `producerName` | the default producer |
//!
//! Tokens of the media that are cached over those of all media; 0 for a request without media.

use llmd_epp_api::attribute::ENCODER_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{AttributeKey, Cycle, EncoderCacheMatch, Need, Plugin, PluginType, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "mm-embeddings-cache-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters { producer_name } = context.parameters()?;
        let cached = context.consumes(ENCODER_CACHE_MATCH_INFO, Some(&producer_name), Need::Required)?;
        Ok(Plugin::scorer(MmEmbeddingsCacheScorer { cached }))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    producer_name: String,
}

struct MmEmbeddingsCacheScorer {
    cached: AttributeKey<EncoderCacheMatch>,
}

impl Scorer for MmEmbeddingsCacheScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let Some(cached) = cycle.attributes.get(self.cached) else {
            return;
        };
        for (score, index) in scores.iter_mut().zip(candidates) {
            *score = cached.ratio(*index);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, Prepared, build_error};

    #[test]
    fn the_cached_share_is_the_score() {
        let scores = |total| {
            let cached = EncoderCacheMatch {
                matched: vec![300, 0, 400],
                total,
            };
            Prepared::new(&PLUGIN, &json!({"producerName": "p"}))
                .with(ENCODER_CACHE_MATCH_INFO, "p", cached)
                .scores(&Pool::of(3))
        };
        assert_eq!(scores(400), [0.75, 0.0, 1.0]);
        assert_eq!(scores(0), [0.0, 0.0, 0.0]);
        let unknown = Prepared::new(&PLUGIN, &json!({}));
        assert_eq!(unknown.scores(&Pool::of(2)), [0.0, 0.0]);
        assert!(build_error(&PLUGIN, json!({"producer": "p"})).contains("producer"));
    }
}
