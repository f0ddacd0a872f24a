//! `by-label`: keeps endpoints with one of some values of a label. Deprecated: `label-selector-filter`.
//!
//! | parameter | default |
//! |---|---|
//! | `label` | required |
//! | `validValues[]` | none; may be empty only with `allowsNoLabel` |
//! | `allowsNoLabel` | false: endpoints without the label go |

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Random, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "by-label";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Deprecated {
        since: "0.9",
        removed_in: "0.11",
    },
    default_producer_of: &[],
    build: |context| {
        let parameters: Parameters = context.parameters()?;
        if parameters.label.is_empty() {
            return Err(BuildError::value("label", "must name a label"));
        }
        if parameters.valid_values.is_empty() && !parameters.allows_no_label {
            return Err(BuildError::value(
                "validValues",
                "must not be empty unless allowsNoLabel is true",
            ));
        }
        Ok(Plugin::filter(ByLabel(parameters)))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    label: String,
    valid_values: Vec<String>,
    allows_no_label: bool,
}

struct ByLabel(Parameters);

impl Filter for ByLabel {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        let Parameters {
            label,
            valid_values,
            allows_no_label,
        } = &self.0;
        candidates.retain(
            |index| match cycle.snapshot.endpoints[*index as usize].label(label) {
                Some(value) => valid_values.iter().any(|valid| valid == value),
                None => *allows_no_label,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    fn kept(parameters: serde_json::Value) -> Vec<u32> {
        let pool = Pool::of(3).label(0, "tier", "gold").label(1, "tier", "iron");
        pool.filtered(&*build(&PLUGIN, parameters).filter.unwrap())
    }

    #[test]
    fn listed_values_and_on_request_no_label_at_all() {
        assert_eq!(kept(json!({"label": "tier", "validValues": ["gold"]})), [0]);
        assert_eq!(
            kept(json!({"label": "tier", "validValues": ["gold"], "allowsNoLabel": true})),
            [0, 2]
        );
        assert_eq!(kept(json!({"label": "tier", "allowsNoLabel": true})), [2]);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(build_error(&PLUGIN, json!({"validValues": ["a"]})).contains("parameters.label"));
        assert!(build_error(&PLUGIN, json!({"label": "a"})).contains("validValues"));
    }
}
