//! `prefix-cache-affinity-filter`: keeps the endpoints that hold the prefix, unless they are so busy
//! that another one would answer sooner.
//!
//! | parameter | default |
//! |---|---|
//! | `affinityThreshold` | 0.80; at most 1, 0 and below keep everything |
//! | `explorationProbability` | 0 |
//! | `maxTTFTPenaltyMs` | 18000; 0 always sticks |
//! | `ttftSource` | `prefillThroughput` |
//! | `peakPrefillThroughput` | 15928 tokens/s |
//! | `prefixMatchInfoProducerName`, `inFlightLoadProducerName` | the default producers |
//!
//! At most one endpoint, or a threshold of 0: keep all. With the exploration probability: keep all.
//! Sticky endpoints match at least the threshold's share of the blocks; without one keep all. If the
//! best TTFT among them is worse than the best among the others by more than the penalty: keep all;
//! else keep the sticky ones. TTFT = in-flight tokens / throughput · 1000 ms.
//! The source `latencyPredictor` needs a predictor, which this build does not have.

use llmd_epp_api::attribute::{IN_FLIGHT_LOAD, PREFIX_CACHE_MATCH_INFO};
use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, InFlightLoad, Need, Plugin, PluginType, PrefixMatch,
    Random, Stability,
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
    ttft_source: String,
    peak_prefill_throughput: f64,
    prefix_match_info_producer_name: String,
    latency_prediction_info_producer_name: String,
    in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            affinity_threshold: 0.80,
            exploration_probability: 0.0,
            max_ttft_penalty_ms: 18_000.0,
            ttft_source: "prefillThroughput".into(),
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
    throughput: f64,
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
        if parameters.peak_prefill_throughput <= 0.0 || parameters.peak_prefill_throughput.is_nan() {
            return Err(BuildError::value(
                "peakPrefillThroughput",
                "must be greater than 0",
            ));
        }
        if parameters.ttft_source != "prefillThroughput" {
            let reason = format!(
                "'{}' is not available in this build; use prefillThroughput",
                parameters.ttft_source
            );
            return Err(BuildError::value("ttftSource", reason));
        }
        if !parameters.latency_prediction_info_producer_name.is_empty() {
            return Err(BuildError::value(
                "latencyPredictionInfoProducerName",
                "latency prediction is not available in this build; remove the parameter",
            ));
        }
        // The load itself is read from the slots; the declaration makes sure that it is accounted.
        context.consumes::<InFlightLoad>(
            IN_FLIGHT_LOAD,
            Some(&parameters.in_flight_load_producer_name),
            Need::Required,
        )?;
        Ok(Self {
            threshold: parameters.affinity_threshold,
            exploration: parameters.exploration_probability,
            penalty_ms: parameters.max_ttft_penalty_ms,
            throughput: parameters.peak_prefill_throughput,
            prefix: context.consumes(
                PREFIX_CACHE_MATCH_INFO,
                Some(&parameters.prefix_match_info_producer_name),
                Need::Required,
            )?,
        })
    }

    fn ttft_ms(&self, cycle: &Cycle<'_>, index: u32) -> f64 {
        let tokens = cycle.snapshot.endpoints[index as usize].slot().tokens();
        tokens as f64 / self.throughput * 1000.0
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
        let (mut best_sticky, mut best_other) = (f64::INFINITY, f64::INFINITY);
        let mut has_sticky = false;
        for index in candidates.iter().copied() {
            if is_sticky(index) {
                has_sticky = true;
                best_sticky = best_sticky.min(self.ttft_ms(cycle, index));
            } else {
                best_other = best_other.min(self.ttft_ms(cycle, index));
            }
        }
        if !has_sticky {
            return;
        }
        let too_busy = self.penalty_ms > 0.0 && best_sticky - best_other > self.penalty_ms;
        if !too_busy {
            candidates.retain(|index| is_sticky(*index));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build_error, with_prefix};

    fn kept(parameters: serde_json::Value, pool: &Pool, matched: &[u32]) -> Vec<u32> {
        with_prefix(&PLUGIN, parameters, matched, 10, |plugin, cycle| {
            let mut candidates: Vec<u32> = (0..matched.len() as u32).collect();
            let filter = plugin.filter.as_ref().unwrap();
            filter.filter(cycle, &mut candidates, &Random::seeded(1));
            candidates
        })(pool)
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
    fn a_predictor_is_refused_by_name() {
        let error = build_error(&PLUGIN, json!({"ttftSource": "latencyPredictor"}));
        assert!(
            error.contains("ttftSource") && error.contains("latencyPredictor"),
            "{error}"
        );
        let error = build_error(&PLUGIN, json!({"affinityThreshold": 1.1}));
        assert!(error.contains("affinityThreshold"), "{error}");
    }
}
