//! `prefix-cache-affinity-filter`: keeps the endpoints that hold the prefix, unless they are so busy
//! that another one would answer sooner.
//!
//! | parameter | default |
//! |---|---|
//! | `affinityThreshold` | 0.80; at most 1, 0 and below keep everything |
//! | `explorationProbability` | 0 |
//! | `maxTTFTPenaltyMs` | 18000; 0 always sticks |
//! | `ttftSource` | `prefillThroughput`; or `latencyPredictor` |
//! | `peakPrefillThroughput` | 15928 tokens/s, above 0 where it is used |
//! | `prefixMatchInfoProducerName`, `inFlightLoadProducerName`, `latencyPredictionInfoProducerName` | the default producers |
//!
//! At most one endpoint, or a threshold of 0: keep all. With the exploration probability: keep all.
//! Sticky endpoints match at least the threshold's share of the blocks; without one keep all. If the
//! best TTFT among them is worse than the best among the others by more than the penalty: keep all;
//! else keep the sticky ones. TTFT = in-flight tokens / throughput · 1000 ms, or what the predictor expects. Endpoints
//! without a prediction are not compared: where a side has none, the prefix is kept.

use llmd_epp_api::attribute::{IN_FLIGHT_LOAD, LATENCY_PREDICTION_INFO, PREFIX_CACHE_MATCH_INFO};
use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, InFlightLoad, LatencyPrediction, Need, Plugin, PluginType,
    PrefixMatch, Random, Stability,
};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "prefix-cache-affinity-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| Ok(Plugin::filter(PrefixCacheAffinityFilter::new(context)?)),
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    affinity_threshold: f64,
    exploration_probability: f64,
    #[serde(rename = "maxTTFTPenaltyMs")]
    max_ttft_penalty_ms: f64,
    ttft_source: TtftSource,
    peak_prefill_throughput: f64,
    prefix_match_info_producer_name: String,
    latency_prediction_info_producer_name: String,
    in_flight_load_producer_name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum TtftSource {
    #[default]
    PrefillThroughput,
    LatencyPredictor,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            affinity_threshold: 0.80,
            exploration_probability: 0.0,
            max_ttft_penalty_ms: 18_000.0,
            ttft_source: TtftSource::default(),
            peak_prefill_throughput: 15_928.0,
            prefix_match_info_producer_name: String::new(),
            latency_prediction_info_producer_name: String::new(),
            in_flight_load_producer_name: String::new(),
        }
    }
}

#[derive(Debug)]
struct PrefixCacheAffinityFilter {
    threshold: f64,
    exploration: f64,
    penalty_ms: f64,
    source: Source,
    prefix: AttributeKey<PrefixMatch>,
}

impl PrefixCacheAffinityFilter {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let parameters: Parameters = context.parameters()?;
        if parameters.affinity_threshold > 1.0 || parameters.affinity_threshold.is_nan() {
            return Err(BuildError::value("affinityThreshold", "must be at most 1"));
        }
        if !(0.0..=1.0).contains(&parameters.exploration_probability) {
            return Err(BuildError::value("explorationProbability", "must be in 0..=1"));
        }
        if parameters.max_ttft_penalty_ms < 0.0 || parameters.max_ttft_penalty_ms.is_nan() {
            return Err(BuildError::value("maxTTFTPenaltyMs", "must not be negative"));
        }
        Ok(Self {
            threshold: parameters.affinity_threshold,
            exploration: parameters.exploration_probability,
            penalty_ms: parameters.max_ttft_penalty_ms,
            source: Source::new(context, &parameters)?,
            prefix: context.consumes(
                PREFIX_CACHE_MATCH_INFO,
                Some(&parameters.prefix_match_info_producer_name),
                Need::Required,
            )?,
        })
    }
}

/// Where the time to the first token comes from.
#[derive(Debug)]
enum Source {
    /// Tokens per second.
    Throughput(f64),
    Predictor(AttributeKey<LatencyPrediction>),
}

impl Source {
    fn new(context: &mut BuildContext<'_>, parameters: &Parameters) -> Result<Self, BuildError> {
        if parameters.ttft_source == TtftSource::LatencyPredictor {
            return Ok(Self::Predictor(context.consumes(
                LATENCY_PREDICTION_INFO,
                Some(&parameters.latency_prediction_info_producer_name),
                Need::Optional,
            )?));
        }
        let throughput = parameters.peak_prefill_throughput;
        if parameters.max_ttft_penalty_ms > 0.0 && (throughput <= 0.0 || throughput.is_nan()) {
            let reason = "must be greater than 0";
            return Err(BuildError::value("peakPrefillThroughput", reason));
        }
        // The load itself is read from the slots; the declaration makes sure that it is accounted.
        let producer = Some(&*parameters.in_flight_load_producer_name);
        context.consumes::<InFlightLoad>(IN_FLIGHT_LOAD, producer, Need::Required)?;
        Ok(Self::Throughput(throughput))
    }

    fn ttft_ms(&self, cycle: &Cycle<'_>, index: u32) -> Option<f64> {
        match self {
            Self::Throughput(throughput) => {
                let tokens = cycle.snapshot.endpoints[index as usize].slot().tokens();
                Some(tokens as f64 / throughput * 1000.0)
            }
            Self::Predictor(key) => Some(cycle.attributes.get(*key)?.of(index)?.ttft_ms),
        }
    }
}

impl Filter for PrefixCacheAffinityFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, random: &Random) {
        if candidates.len() <= 1 || self.threshold <= 0.0 {
            return;
        }
        if self.exploration > 0.0 && random.unit() < self.exploration {
            return;
        }
        let Some(matched) = cycle.attributes.get(self.prefix) else {
            return;
        };
        let is_sticky = |index: u32| matched.ratio(index) >= self.threshold;
        if !candidates.iter().any(|index| is_sticky(*index)) {
            return;
        }
        let best = |sticky: bool| {
            let side = candidates.iter().filter(|index| is_sticky(**index) == sticky);
            side.filter_map(|index| self.source.ttft_ms(cycle, *index))
                .reduce(f64::min)
        };
        let too_busy = self.penalty_ms > 0.0
            && matches!((best(true), best(false)), (Some(sticky), Some(other)) if sticky - other > self.penalty_ms);
        if !too_busy {
            candidates.retain(|index| is_sticky(*index));
        }
    }
}

#[cfg(test)]
mod tests {
    use llmd_epp_api::Prediction;
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, Prepared, build_error};

    fn kept(parameters: serde_json::Value, pool: &Pool, matched: &[u32]) -> Vec<u32> {
        let prepared = Prepared::new(&PLUGIN, &parameters).matched(matched.to_vec(), 10);
        prepared.kept(pool)
    }

    #[test]
    fn sticks_to_the_prefix_until_it_costs_too_much() {
        let idle = Pool::of(3);
        assert_eq!(kept(json!({}), &idle, &[9, 2, 8]), [0, 2]);
        assert_eq!(kept(json!({}), &idle, &[7, 2, 0]), [0, 1, 2]);
        assert_eq!(
            kept(json!({"affinityThreshold": 0}), &idle, &[9, 2, 8]),
            [0, 1, 2]
        );
        assert_eq!(
            kept(json!({"explorationProbability": 1}), &idle, &[9, 2, 8]),
            [0, 1, 2]
        );

        let busy = Pool::of(3).in_flight(0, 300_000).in_flight(2, 400_000);
        assert_eq!(kept(json!({}), &busy, &[9, 2, 8]), [0, 1, 2], "18.8 s behind");
        assert_eq!(
            kept(json!({"maxTTFTPenaltyMs": 20000}), &busy, &[9, 2, 8]),
            [0, 2]
        );
        assert_eq!(kept(json!({"maxTTFTPenaltyMs": 0}), &busy, &[9, 2, 8]), [0, 2]);
    }

    #[test]
    fn predictions_decide_where_a_predictor_is_asked_for() {
        let kept = |predicted: &[Option<f64>]| {
            let predicted = predicted.iter().map(|ttft| {
                ttft.map(|ttft_ms| Prediction {
                    ttft_ms,
                    ..Prediction::default()
                })
            });
            let parameters = json!({"ttftSource": "latencyPredictor", "maxTTFTPenaltyMs": 100});
            // The first endpoint holds the whole prefix.
            Prepared::new(&PLUGIN, &parameters)
                .matched(vec![10, 0, 0], 10)
                .predicted(predicted.collect())
                .kept(&Pool::of(3))
        };
        assert_eq!(kept(&[Some(301.0), Some(200.0), None]), [0, 1, 2]);
        assert_eq!(kept(&[Some(300.0), Some(200.0), None]), [0]);
        assert_eq!(kept(&[Some(900.0), None, None]), [0], "nothing to compare with");
        assert_eq!(
            kept(&[None, Some(1.0), Some(1.0)]),
            [0],
            "nothing known of the sticky one"
        );
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (field, value) in [
            ("ttftSource", json!("oracle")),
            ("affinityThreshold", json!(1.1)),
            ("explorationProbability", json!(-1)),
            ("maxTTFTPenaltyMs", json!(-1)),
            ("peakPrefillThroughput", json!(0)),
        ] {
            let error = build_error(&PLUGIN, json!({ field: value }));
            assert!(error.contains(field), "{error}");
        }
    }
}
