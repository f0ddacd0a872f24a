//! `endpoint-attribute-scorer`: prefers endpoints by a number that the data layer read.
//!
//! | parameter | default |
//! |---|---|
//! | `attributeKey` | required; as `attribute` of `endpoint-attribute-filter` |
//! | `producer` | `core-metrics-extractor` |
//! | `algorithm.type` | `linear_lower_is_better`, `linear_higher_is_better`; required |
//! | `algorithm.normalization` | `fixedRange` {`min`, `max`}, or `adaptiveRange` {}: the range of the candidates |
//!
//! The number is mapped linearly to 0..=1. An endpoint without it scores 0; a range of one value gives 1.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Stability};
use serde::Deserialize;

use crate::plugins::endpoint_attribute::EndpointAttribute;

/// Type name in configurations.
pub const TYPE: &str = "endpoint-attribute-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            attribute_key,
            producer,
            algorithm,
        } = context.parameters()?;
        let Some(algorithm) = algorithm else {
            return Err(BuildError::value("algorithm", "must be set"));
        };
        let normalization = algorithm.normalization.unwrap_or_default();
        let range = match (normalization.fixed_range, normalization.adaptive_range) {
            (Some(_), Some(_)) => {
                return Err(BuildError::value(
                    "algorithm.normalization",
                    "must have one of fixedRange and adaptiveRange",
                ));
            }
            (Some(range), None) if range.min >= range.max => {
                return Err(BuildError::value(
                    "algorithm.normalization.fixedRange",
                    "min must be less than max",
                ));
            }
            (range, _) => range,
        };
        Ok(Plugin::scorer(EndpointAttributeScorer {
            attribute: EndpointAttribute::new(context, "attributeKey", &attribute_key, producer.as_deref())?,
            lower_is_better: algorithm.kind == Kind::LinearLowerIsBetter,
            range,
        }))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    attribute_key: String,
    producer: Option<String>,
    algorithm: Option<Algorithm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Algorithm {
    #[serde(rename = "type")]
    kind: Kind,
    normalization: Option<Normalization>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    LinearLowerIsBetter,
    LinearHigherIsBetter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Normalization {
    fixed_range: Option<Range>,
    adaptive_range: Option<Nothing>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    min: f64,
    max: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

struct EndpointAttributeScorer {
    attribute: EndpointAttribute,
    lower_is_better: bool,
    range: Option<Range>,
}

impl EndpointAttributeScorer {
    fn range(&self, cycle: &Cycle<'_>, candidates: &[u32]) -> Range {
        self.range.unwrap_or_else(|| {
            let values = candidates
                .iter()
                .filter_map(|index| self.attribute.of(cycle.snapshot, *index));
            let empty = Range {
                min: f64::INFINITY,
                max: f64::NEG_INFINITY,
            };
            values.fold(empty, |range, value| Range {
                min: range.min.min(value),
                max: range.max.max(value),
            })
        })
    }
}

impl Scorer for EndpointAttributeScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let Range { min, max } = self.range(cycle, candidates);
        for (score, index) in scores.iter_mut().zip(candidates) {
            let Some(value) = self.attribute.of(cycle.snapshot, *index) else {
                continue;
            };
            let share = if max > min {
                ((value - min) / (max - min)).clamp(0.0, 1.0)
            } else {
                f64::from(u8::from(!self.lower_is_better))
            };
            *score = if self.lower_is_better { 1.0 - share } else { share };
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    fn scores(kind: &str, normalization: serde_json::Value) -> Vec<f64> {
        let heat = |celsius: f64| {
            move |record: &mut llmd_epp_api::MetricsRecord| record.custom.push(("heat".into(), celsius))
        };
        let pool = Pool::of(4)
            .record(0, heat(50.0))
            .record(1, heat(75.0))
            .record(2, heat(100.0));
        let parameters =
            json!({"attributeKey": "heat", "algorithm": {"type": kind, "normalization": normalization}});
        pool.scored(&*build(&PLUGIN, parameters).scorer.unwrap())
    }

    #[test]
    fn numbers_are_mapped_linearly_and_unknown_ones_score_zero() {
        assert_eq!(
            scores("linear_lower_is_better", json!({"adaptiveRange": {}})),
            [1.0, 0.5, 0.0, 0.0]
        );
        assert_eq!(
            scores("linear_higher_is_better", json!({"adaptiveRange": {}})),
            [0.0, 0.5, 1.0, 0.0]
        );
        let fixed = json!({"fixedRange": {"min": 0, "max": 75}});
        assert_eq!(
            scores("linear_higher_is_better", fixed),
            [2.0 / 3.0, 1.0, 1.0, 0.0]
        );
    }

    #[test]
    fn equal_numbers_score_one() {
        let plugin = |kind: &str| {
            let parameters = json!({"attributeKey": "WaitingQueueSize", "algorithm": {"type": kind}});
            build(&PLUGIN, parameters).scorer.unwrap()
        };
        assert_eq!(Pool::of(2).scored(&*plugin("linear_lower_is_better")), [1.0, 1.0]);
        assert_eq!(
            Pool::of(2).scored(&*plugin("linear_higher_is_better")),
            [1.0, 1.0]
        );
    }

    #[test]
    fn wrong_parameters_are_named() {
        assert!(build_error(&PLUGIN, json!({"attributeKey": "a"})).contains("algorithm"));
        let algorithm =
            json!({"type": "linear_lower_is_better", "normalization": {"fixedRange": {"min": 1, "max": 1}}});
        let error = build_error(&PLUGIN, json!({"attributeKey": "a", "algorithm": algorithm}));
        assert!(error.contains("fixedRange"), "{error}");
    }
}
