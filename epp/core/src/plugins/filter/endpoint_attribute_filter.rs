//! `endpoint-attribute-filter`: keeps endpoints by a number that the data layer read.
//!
//! | parameter | default |
//! |---|---|
//! | `attribute` | required: `WaitingQueueSize`, `RunningRequestsSize`, `KVCacheUsagePercent`, or the `attributeKey` of a custom metric |
//! | `producer` | `core-metrics-extractor`; the name of the extractor |
//! | `onMissing` | `Pass`; or `Fail` |
//! | `fallbackOnEmpty` | false: nothing may be left |
//! | `algorithm.type` | `threshold` |
//! | `algorithm.threshold` {`operator`, `value`} | required; `LessThan`, `LessThanOrEqual`, `GreaterThan`, `GreaterThanOrEqual`, `Equal`, `NotEqual` |

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Random, Stability};
use serde::Deserialize;

use crate::plugins::endpoint_attribute::EndpointAttribute;

/// Type name in configurations.
pub const TYPE: &str = "endpoint-attribute-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            attribute,
            producer,
            on_missing,
            fallback_on_empty,
            algorithm,
        } = context.parameters()?;
        let Some(Algorithm {
            kind: Kind::Threshold,
            threshold: Some(threshold),
        }) = algorithm
        else {
            return Err(BuildError::value("algorithm.threshold", "must be set"));
        };
        Ok(Plugin::filter(EndpointAttributeFilter {
            attribute: EndpointAttribute::new(context, "attribute", &attribute, producer.as_deref())?,
            passes_missing: on_missing == OnMissing::Pass,
            fallback_on_empty,
            threshold,
        }))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    attribute: String,
    producer: Option<String>,
    on_missing: OnMissing,
    fallback_on_empty: bool,
    algorithm: Option<Algorithm>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
enum OnMissing {
    #[default]
    Pass,
    Fail,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Algorithm {
    #[serde(rename = "type")]
    kind: Kind,
    threshold: Option<Threshold>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Threshold,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    operator: Operator,
    value: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Operator {
    LessThan,
    LessThanOrEqual,
    GreaterThan,
    GreaterThanOrEqual,
    Equal,
    NotEqual,
}

impl Threshold {
    #[allow(clippy::float_cmp, reason = "the operator that the user asked for")]
    fn holds(&self, value: f64) -> bool {
        match self.operator {
            Operator::LessThan => value < self.value,
            Operator::LessThanOrEqual => value <= self.value,
            Operator::GreaterThan => value > self.value,
            Operator::GreaterThanOrEqual => value >= self.value,
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
        }
    }
}

struct EndpointAttributeFilter {
    attribute: EndpointAttribute,
    passes_missing: bool,
    fallback_on_empty: bool,
    threshold: Threshold,
}

impl Filter for EndpointAttributeFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        let passes = |index: &u32| {
            let value = self.attribute.of(cycle.snapshot, *index);
            value.map_or(self.passes_missing, |value| self.threshold.holds(value))
        };
        if self.fallback_on_empty && !candidates.iter().any(passes) {
            return;
        }
        candidates.retain(passes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    fn pool() -> Pool {
        Pool::of(3)
            .record(0, |record| record.custom.push(("temperature".into(), 60.0)))
            .record(1, |record| record.custom.push(("temperature".into(), 80.0)))
            .waiting(2, 7)
    }

    fn kept(attribute: &str, operator: &str, value: f64, more: &[(&str, serde_json::Value)]) -> Vec<u32> {
        let mut parameters = json!({
            "attribute": attribute,
            "algorithm": {"type": "threshold", "threshold": {"operator": operator, "value": value}},
        });
        for (name, value) in more {
            parameters[*name] = value.clone();
        }
        pool().filtered(&*build(&PLUGIN, parameters).filter.unwrap())
    }

    #[test]
    fn numbers_are_compared_and_missing_ones_pass_unless_told() {
        assert_eq!(kept("temperature", "LessThan", 80.0, &[]), [0, 2]);
        assert_eq!(kept("temperature", "LessThanOrEqual", 80.0, &[]), [0, 1, 2]);
        assert_eq!(
            kept("temperature", "NotEqual", 80.0, &[("onMissing", json!("Fail"))]),
            [0]
        );
        assert_eq!(kept("WaitingQueueSize", "GreaterThan", 0.0, &[]), [2]);
        assert_eq!(kept("WaitingQueueSize", "Equal", 0.0, &[]), [0, 1]);
    }

    #[test]
    fn an_empty_result_stays_or_falls_back() {
        assert!(kept("WaitingQueueSize", "GreaterThanOrEqual", 8.0, &[]).is_empty());
        let fallback = [("fallbackOnEmpty", json!(true))];
        assert_eq!(
            kept("WaitingQueueSize", "GreaterThanOrEqual", 8.0, &fallback),
            [0, 1, 2]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = build_error(&PLUGIN, json!({"attribute": "a"}));
        assert!(error.contains("algorithm.threshold"), "{error}");
        let algorithm = json!({"type": "threshold", "threshold": {"operator": "LessThan", "value": 1}});
        let error = build_error(&PLUGIN, json!({"algorithm": algorithm}));
        assert!(error.contains("parameters.attribute"), "{error}");
        let error = build_error(
            &PLUGIN,
            json!({"attribute": "a", "producer": "nobody", "algorithm": algorithm}),
        );
        assert!(error.contains("'nobody'"), "{error}");
    }
}
