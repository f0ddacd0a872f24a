//! `latency-scorer`: prefers endpoints by how much of the request's latency objectives they are expected to leave.
//!
//! | parameter | default |
//! |---|---|
//! | `ttftWeight`, `tpotWeight` | 0.8, 0.2; shares of their sum, 1 and 0 when it is not above 0 |
//! | `headroomSelectionStrategy` | `least`: packs up to the objective; `most`: spreads. Any other value is `least` |
//! | `compositeKVWeight`, `compositeQueueWeight`, `compositePrefixWeight` | 1 each; shares of their sum, 1, 0, 0 when it is not above 0 |
//! | `latencyPredictionInfoProducerName`, `prefixMatchInfoProducerName` | the default producers |
//!
//! With predictions one set of the candidates is scored by their headrooms and the rest gets 0; `headroom` has the rule.
//! Without any, KV use, queue and cached prefix decide: `round(100·(kv·(1 − use) + queue·(max − waiting)/max +
//! prefix·matched share))/100`; an empty queue everywhere counts 1.

mod headroom;

use llmd_epp_api::attribute::{LATENCY_PREDICTION_INFO, PREFIX_CACHE_MATCH_INFO};
use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, LatencyPrediction, Need, Plugin, PluginType, PrefixMatch,
    Stability,
};
use serde::Deserialize;

use headroom::{Strategy, Weights};

/// Type name in configurations.
pub const TYPE: &str = "latency-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| Ok(Plugin::scorer(LatencyScorer::new(context)?)),
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    ttft_weight: f64,
    tpot_weight: f64,
    headroom_selection_strategy: String,
    #[serde(rename = "compositeKVWeight")]
    composite_kv_weight: f64,
    composite_queue_weight: f64,
    composite_prefix_weight: f64,
    latency_prediction_info_producer_name: String,
    prefix_match_info_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            ttft_weight: 0.8,
            tpot_weight: 0.2,
            headroom_selection_strategy: "least".to_owned(),
            composite_kv_weight: 1.0,
            composite_queue_weight: 1.0,
            composite_prefix_weight: 1.0,
            latency_prediction_info_producer_name: String::new(),
            prefix_match_info_producer_name: String::new(),
        }
    }
}

/// Shares of their sum; all goes to the first when there is no sum.
fn shares<const N: usize>(weights: [f64; N]) -> [f64; N] {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        return weights.map(|weight| weight / sum);
    }
    std::array::from_fn(|at| if at == 0 { 1.0 } else { 0.0 })
}

struct LatencyScorer {
    weights: Weights,
    strategy: Strategy,
    /// Of KV use, queue and prefix.
    composite: [f64; 3],
    predictions: AttributeKey<LatencyPrediction>,
    prefix: AttributeKey<PrefixMatch>,
}

impl LatencyScorer {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let parameters: Parameters = context.parameters()?;
        let [ttft, tpot] = shares([parameters.ttft_weight, parameters.tpot_weight]);
        let strategy = match parameters.headroom_selection_strategy.as_str() {
            "most" => Strategy::Most,
            _ => Strategy::Least,
        };
        Ok(Self {
            weights: Weights { ttft, tpot },
            strategy,
            composite: shares([
                parameters.composite_kv_weight,
                parameters.composite_queue_weight,
                parameters.composite_prefix_weight,
            ]),
            predictions: context.consumes(
                LATENCY_PREDICTION_INFO,
                Some(&parameters.latency_prediction_info_producer_name),
                Need::Optional,
            )?,
            prefix: context.consumes(
                PREFIX_CACHE_MATCH_INFO,
                Some(&parameters.prefix_match_info_producer_name),
                Need::Required,
            )?,
        })
    }

    fn score_composite(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let snapshot = cycle.snapshot;
        let waiting = |index: u32| f64::from(snapshot.waiting[index as usize]);
        let longest = candidates.iter().map(|index| waiting(*index)).fold(0.0, f64::max);
        let matched = cycle.attributes.get(self.prefix);
        let [kv, queue, prefix] = self.composite;
        for (score, index) in scores.iter_mut().zip(candidates) {
            let room = if longest > 0.0 {
                (longest - waiting(*index)) / longest
            } else {
                1.0
            };
            let cached = matched.map_or(0.0, |matched| matched.ratio(*index));
            let used = snapshot.kv_usage[*index as usize];
            *score = (100.0 * (kv * (1.0 - used) + queue * room + prefix * cached)).round() / 100.0;
        }
    }
}

impl Scorer for LatencyScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let predictions = cycle
            .attributes
            .get(self.predictions)
            .filter(|known| candidates.iter().any(|index| known.of(*index).is_some()));
        match predictions {
            Some(predictions) => {
                headroom::score(self.weights, self.strategy, predictions, candidates, scores);
            }
            None => self.score_composite(cycle, candidates, scores),
        }
    }
}

#[cfg(test)]
mod tests;
