//! `token-load-scorer`: prefers endpoints with fewer tokens to compute.
//!
//! | parameter | default |
//! |---|---|
//! | `queueThresholdTokens` T | 4194304 |
//! | `inFlightLoadProducerName` | the default producer |
//!
//! `1 − min(in-flight tokens + uncached tokens of the request, T)/T`.

use llmd_epp_api::attribute::UNCACHED_REQUEST_TOKENS;
use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{AttributeKey, BuildError, Cycle, Need, Plugin, PluginType, Stability, UncachedTokens};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "token-load-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            queue_threshold_tokens,
            in_flight_load_producer_name,
        } = context.parameters()?;
        if queue_threshold_tokens == 0 {
            return Err(BuildError::value(
                "queueThresholdTokens",
                "must be greater than 0",
            ));
        }
        Ok(Plugin::scorer(TokenLoadScorer {
            threshold: queue_threshold_tokens,
            uncached: context.consumes(
                UNCACHED_REQUEST_TOKENS,
                Some(&in_flight_load_producer_name),
                Need::Required,
            )?,
        }))
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    queue_threshold_tokens: u64,
    in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            queue_threshold_tokens: 4_194_304,
            in_flight_load_producer_name: String::new(),
        }
    }
}

struct TokenLoadScorer {
    threshold: u64,
    uncached: AttributeKey<UncachedTokens>,
}

impl Scorer for TokenLoadScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let uncached = cycle.attributes.get(self.uncached);
        for (score, index) in scores.iter_mut().zip(candidates) {
            let at = *index as usize;
            let own = uncached
                .and_then(|tokens| tokens.input.get(at))
                .copied()
                .unwrap_or(0);
            let load = cycle.snapshot.endpoints[at].slot().tokens().saturating_add(own);
            *score = 1.0 - load.min(self.threshold) as f64 / self.threshold as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build};

    #[test]
    fn tokens_in_flight_lower_the_score() {
        let pool = Pool::of(3).in_flight(1, 25).in_flight(2, 900);
        let plugin = build(&PLUGIN, json!({"queueThresholdTokens": 100}));
        assert_eq!(pool.scored(&*plugin.scorer.unwrap()), [1.0, 0.75, 0.0]);
    }
}
