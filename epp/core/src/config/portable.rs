//! What upstream would reject of a configuration that we take: our own plugins and parameters.

use super::EndpointPickerConfig;

/// Upstream's plugin types with the parameters of their first level (llm-d-router 0.10), a line each.
const UPSTREAM: &str = include_str!("portable/upstream.txt");

impl EndpointPickerConfig {
    /// One line per key that upstream does not know; empty for a configuration that runs there, too.
    pub fn foreign_keys(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, spec) in self.plugins.iter().enumerate() {
            let Some(known) = parameters_of(&spec.plugin_type) else {
                lines.push(format!(
                    "plugins[{index}].type: upstream has no plugin type '{}'",
                    spec.plugin_type
                ));
                continue;
            };
            let Some(parameters) = spec.parameters.as_object() else {
                continue;
            };
            let foreign = parameters.keys().filter(|key| !known.contains(&key.as_str()));
            lines.extend(foreign.map(|key| {
                format!(
                    "plugins[{index}].parameters.{key}: upstream's '{}' has no such parameter",
                    spec.plugin_type
                )
            }));
        }
        lines
    }
}

fn parameters_of(plugin_type: &str) -> Option<Vec<&'static str>> {
    let mut lines = UPSTREAM.lines().filter_map(|line| line.split_once(':'));
    let (_, parameters) = lines.find(|(name, _)| *name == plugin_type)?;
    Some(parameters.split_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use llmd_epp_api::registry::BuildState;
    use llmd_epp_api::{BuildContext, MetricsScope, PluginType, TypedName};

    use super::*;
    use crate::registry::{self, TABLE};

    /// Plugin types and parameters that only we have. `llmd epp validate --portable` refuses them.
    const OWN: &[(&str, &[&str])] = &[
        ("disagg-profile-handler", &["jointCandidates"]),
        ("served-model-filter", &[]),
    ];

    /// The parameters a type takes, as its own refusal of another one lists them.
    fn taken(plugin_type: &'static PluginType) -> Vec<String> {
        let mut state = BuildState::new(MetricsScope::new(prometheus::Registry::new(), true));
        let error = (plugin_type.build)(&mut BuildContext {
            name: &TypedName {
                plugin_type: plugin_type.name,
                name: plugin_type.name.into(),
            },
            instance: 0,
            parameters: &serde_json::json!({"no such parameter": 0}),
            state: &mut state,
            default_producer: &registry::default_producer,
        })
        .map(|_| ())
        .unwrap_err()
        .to_string();
        assert!(error.contains("unknown field"), "{}: {error}", plugin_type.name);
        let listed = error.split("expected").nth(1).unwrap_or_default();
        let names = listed.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }

    #[test]
    fn every_type_and_parameter_is_upstreams_or_known_to_be_ours() {
        let mut surprises = Vec::new();
        for plugin_type in TABLE {
            let own = OWN.iter().filter(|(name, _)| *name == plugin_type.name);
            let own: Vec<&str> = own.flat_map(|(_, parameters)| *parameters).copied().collect();
            let is_own_type = OWN
                .iter()
                .any(|(name, parameters)| *name == plugin_type.name && parameters.is_empty());
            let Some(known) = parameters_of(plugin_type.name) else {
                if !is_own_type {
                    surprises.push(format!("type {}", plugin_type.name));
                }
                continue;
            };
            for parameter in taken(plugin_type) {
                if !known.contains(&&*parameter) && !own.contains(&&*parameter) {
                    surprises.push(format!("{}: {parameter}", plugin_type.name));
                }
            }
        }
        assert_eq!(
            surprises, [""; 0],
            "add them to UPSTREAM with their source, or to OWN"
        );
    }

    #[test]
    fn what_upstream_lacks_is_named_by_its_key() {
        let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2, seed: 1}}
- {type: our-scorer}
";
        let config = EndpointPickerConfig::decode(text).unwrap().config;
        assert_eq!(
            config.foreign_keys(),
            [
                "plugins[1].parameters.seed: upstream's 'max-score-picker' has no such parameter",
                "plugins[2].type: upstream has no plugin type 'our-scorer'",
            ]
        );
        assert_eq!(EndpointPickerConfig::upstream_default().foreign_keys(), [""; 0]);
    }
}
