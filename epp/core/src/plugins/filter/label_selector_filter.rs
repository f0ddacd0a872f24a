//! `label-selector-filter`: keeps endpoints whose labels match a Kubernetes label selector.
//!
//! | parameter | default |
//! |---|---|
//! | `matchLabels` | none |
//! | `matchExpressions[]` {`key`, `operator` `In`, `NotIn`, `Exists`, `DoesNotExist`, `values[]`} | none |
//!
//! `by-label-selector` is its deprecated name. All requirements must hold; an empty selector keeps everything. As in Kubernetes, `NotIn` also
//! matches endpoints without the label.

use std::collections::BTreeMap;

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{BuildError, Cycle, Endpoint, Plugin, PluginType, Random, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "label-selector-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| Ok(Plugin::filter(LabelSelectorFilter::new(context.parameters()?)?)),
};

/// The registry line of the older name.
pub const BY_LABEL_SELECTOR: PluginType = PluginType {
    name: "by-label-selector",
    stability: Stability::Deprecated {
        since: "0.9",
        removed_in: "0.11",
    },
    ..PLUGIN
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

struct LabelSelectorFilter {
    requirements: Vec<Expression>,
}

impl LabelSelectorFilter {
    fn new(parameters: Parameters) -> Result<Self, BuildError> {
        let Parameters {
            match_labels,
            match_expressions,
        } = parameters;
        for (index, expression) in match_expressions.iter().enumerate() {
            let takes_values = matches!(expression.operator, Operator::In | Operator::NotIn);
            if takes_values == expression.values.is_empty() {
                let reason = if takes_values {
                    "must not be empty for the operators In and NotIn"
                } else {
                    "must be empty for the operators Exists and DoesNotExist"
                };
                return Err(BuildError::value(
                    &format!("matchExpressions[{index}].values"),
                    reason,
                ));
            }
        }
        let equal = match_labels.into_iter().map(|(key, value)| Expression {
            key,
            operator: Operator::In,
            values: vec![value],
        });
        Ok(Self {
            requirements: equal.chain(match_expressions).collect(),
        })
    }

    fn matches(&self, endpoint: &Endpoint) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = endpoint.label(&requirement.key);
            let is_listed = value.is_some_and(|value| requirement.values.iter().any(|known| known == value));
            match requirement.operator {
                Operator::In => is_listed,
                Operator::NotIn => !is_listed,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl Filter for LabelSelectorFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _random: &Random) {
        candidates.retain(|index| self.matches(&cycle.snapshot.endpoints[*index as usize]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    fn kept(parameters: serde_json::Value) -> Vec<u32> {
        let plugin = build(&PLUGIN, parameters);
        let pool = Pool::of(3).label(0, "zone", "a").label(1, "zone", "b");
        pool.filtered(&*plugin.filter.unwrap())
    }

    #[test]
    fn requirements_are_joined_by_and() {
        assert_eq!(kept(json!({"matchLabels": {"zone": "a"}})), [0]);
        assert_eq!(
            kept(json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]})),
            [0, 1]
        );
        assert_eq!(
            kept(json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]})),
            [1, 2]
        );
        assert_eq!(
            kept(json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]})),
            [0, 1]
        );
        assert_eq!(
            kept(json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]})),
            [2]
        );
        assert_eq!(
            kept(
                json!({"matchLabels": {"zone": "a"}, "matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]})
            ),
            [] as [u32; 0]
        );
        assert_eq!(kept(json!({})), [0, 1, 2]);
    }

    #[test]
    fn a_selector_that_kubernetes_refuses_is_refused() {
        let error = build_error(
            &PLUGIN,
            json!({"matchExpressions": [{"key": "zone", "operator": "In"}]}),
        );
        assert!(error.contains("matchExpressions[0].values"), "{error}");
        let error = build_error(&PLUGIN, json!({"matchLabel": {}}));
        assert!(error.contains("matchLabel"), "{error}");
    }
}
