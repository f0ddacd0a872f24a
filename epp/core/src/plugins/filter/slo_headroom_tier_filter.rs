//! `slo-headroom-tier-filter`: keeps the endpoints that are expected to meet the request's latency objectives.
//!
//! | parameter | default |
//! |---|---|
//! | `epsilonExploreNeg` ε | 0.01, in 0..=1 |
//! | `latencyPredictionInfoProducerName` | the default producer |
//!
//! The positive tier has no headroom below 0; everything else, endpoints without a prediction included, is negative. The
//! positive tier stays, with probability ε the negative one instead. A tier alone stays, and so does everything when
//! nothing is predicted or at most one endpoint is left.

use llmd_epp_api::attribute::LATENCY_PREDICTION_INFO;
use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{
    AttributeKey, BuildError, Cycle, LatencyPrediction, Need, Plugin, PluginType, Prediction, Random,
    Stability,
};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "slo-headroom-tier-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            epsilon_explore_neg,
            latency_prediction_info_producer_name,
        } = context.parameters()?;
        if !(0.0..=1.0).contains(&epsilon_explore_neg) {
            return Err(BuildError::value("epsilonExploreNeg", "must be in 0..=1"));
        }
        Ok(Plugin::filter(SloHeadroomTierFilter {
            exploration: epsilon_explore_neg,
            predictions: context.consumes(
                LATENCY_PREDICTION_INFO,
                Some(&latency_prediction_info_producer_name),
                Need::Optional,
            )?,
        }))
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    epsilon_explore_neg: f64,
    latency_prediction_info_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            epsilon_explore_neg: 0.01,
            latency_prediction_info_producer_name: String::new(),
        }
    }
}

struct SloHeadroomTierFilter {
    exploration: f64,
    predictions: AttributeKey<LatencyPrediction>,
}

impl Filter for SloHeadroomTierFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, random: &Random) {
        if candidates.len() <= 1 {
            return;
        }
        let Some(predictions) = cycle.attributes.get(self.predictions) else {
            return;
        };
        let is_positive = |index: &u32| predictions.of(*index).is_some_and(Prediction::has_headroom);
        let positive = candidates.iter().filter(|index| is_positive(index)).count();
        if positive == 0 || positive == candidates.len() {
            return;
        }
        let explores = self.exploration > 0.0 && random.unit() < self.exploration;
        candidates.retain(|index| is_positive(index) != explores);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, Prepared, build_error};

    fn kept(parameters: serde_json::Value, headrooms: &[Option<(f64, f64)>]) -> Vec<u32> {
        let predicted = headrooms.iter().map(|headroom| {
            headroom.map(|(ttft_headroom_ms, tpot_headroom_ms)| Prediction {
                ttft_headroom_ms,
                tpot_headroom_ms,
                ..Prediction::default()
            })
        });
        let prepared = Prepared::new(&PLUGIN, &parameters).predicted(predicted.collect());
        prepared.kept(&Pool::of(headrooms.len()))
    }

    #[test]
    fn the_positive_tier_stays_and_the_negative_one_when_exploring() {
        let mixed = [Some((0.0, 0.0)), Some((5.0, -1.0)), None, Some((9.0, 1.0))];
        assert_eq!(kept(json!({"epsilonExploreNeg": 0}), &mixed), [0, 3]);
        assert_eq!(kept(json!({"epsilonExploreNeg": 1}), &mixed), [1, 2]);
    }

    #[test]
    fn one_tier_alone_stays() {
        let negative = [Some((-1.0, 0.0)), None];
        assert_eq!(kept(json!({"epsilonExploreNeg": 1}), &negative), [0, 1]);
        let positive = [Some((1.0, 0.0)), Some((2.0, 3.0))];
        assert_eq!(kept(json!({"epsilonExploreNeg": 1}), &positive), [0, 1]);
        assert_eq!(kept(json!({}), &[None, None]), [0, 1]);
        assert_eq!(kept(json!({}), &[Some((-1.0, -1.0))]), [0]);
        let nothing_predicted = Prepared::new(&PLUGIN, &json!({}));
        assert_eq!(nothing_predicted.kept(&Pool::of(2)), [0, 1]);
    }

    #[test]
    fn a_probability_out_of_range_is_refused_by_name() {
        for value in [json!(-0.1), json!(1.1)] {
            let error = build_error(&PLUGIN, json!({"epsilonExploreNeg": value}));
            assert!(error.contains("epsilonExploreNeg"), "{error}");
        }
    }
}
