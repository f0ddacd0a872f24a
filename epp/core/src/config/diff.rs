//! What differs between two configurations, in words for a log line.
//!
//! Only names of keys, instances and weights are told: a parameter's value may be a secret.

use super::{EndpointPickerConfig, PluginSpec, SchedulingProfile};

impl EndpointPickerConfig {
    /// One line per difference, empty when both mean the same.
    pub fn differences(&self, next: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        plugins(&self.plugins, &next.plugins, &mut lines);
        profiles(&self.scheduling_profiles, &next.scheduling_profiles, &mut lines);
        let changed = [
            ("apiVersion", self.api_version != next.api_version),
            ("featureGates", self.feature_gates != next.feature_gates),
            ("dataLayer", self.data_layer != next.data_layer),
            ("flowControl", self.flow_control != next.flow_control),
            ("requestHandler", self.request_handler != next.request_handler),
        ];
        let changed = changed.into_iter().filter(|(_, differs)| *differs);
        lines.extend(changed.map(|(section, _)| format!("{section} changed")));
        lines
    }
}

fn plugins(old: &[PluginSpec], new: &[PluginSpec], lines: &mut Vec<String>) {
    let find = |specs: &[PluginSpec], name: &str| {
        let mut specs = specs.iter();
        specs.find(|spec| spec.instance_name() == name).cloned()
    };
    for before in old {
        let name = before.instance_name();
        let Some(after) = find(new, name) else {
            lines.push(format!("plugin '{name}' removed"));
            continue;
        };
        if before.plugin_type != after.plugin_type {
            let (from, to) = (&before.plugin_type, &after.plugin_type);
            lines.push(format!("plugin '{name}': type '{from}' becomes '{to}'"));
        } else if before.parameters != after.parameters {
            let keys = changed_keys(&before.parameters, &after.parameters);
            lines.push(format!("plugin '{name}': {} changed", keys.join(", ")));
        }
    }
    for after in new {
        let name = after.instance_name();
        if find(old, name).is_none() {
            lines.push(format!("plugin '{name}' added"));
        }
    }
    let order = |specs: &[PluginSpec]| {
        let names = specs.iter().map(|spec| spec.instance_name().to_owned());
        names.collect::<Vec<_>>()
    };
    let (before, after) = (order(old), order(new));
    if lines.is_empty() && before != after {
        lines.push("plugins in another order".to_owned());
    }
}

/// Paths of the parameters that differ at their first level.
fn changed_keys(old: &serde_json::Value, new: &serde_json::Value) -> Vec<String> {
    let keys = |value: &serde_json::Value| {
        let object = value.as_object();
        object.map_or_else(Vec::new, |object| object.keys().cloned().collect())
    };
    let mut all = keys(old);
    all.extend(keys(new));
    all.sort();
    all.dedup();
    let differs = |key: &String| old.get(key) != new.get(key);
    let changed: Vec<String> = all
        .into_iter()
        .filter(differs)
        .map(|key| format!("parameters.{key}"))
        .collect();
    if changed.is_empty() {
        return vec!["parameters".to_owned()];
    }
    changed
}

fn profiles(old: &[SchedulingProfile], new: &[SchedulingProfile], lines: &mut Vec<String>) {
    let find = |profiles: &[SchedulingProfile], name: &str| {
        let mut profiles = profiles.iter();
        profiles.find(|profile| profile.name == name).cloned()
    };
    let says = |profile: &SchedulingProfile| {
        let entries = profile.plugins.iter().map(|entry| match entry.weight {
            Some(weight) => format!("{} {weight}", entry.plugin_ref),
            None => entry.plugin_ref.clone(),
        });
        entries.collect::<Vec<_>>().join(", ")
    };
    for before in old {
        match find(new, &before.name) {
            None => lines.push(format!("profile '{}' removed", before.name)),
            Some(after) if after != *before => {
                let (from, to) = (says(before), says(&after));
                lines.push(format!("profile '{}': [{from}] becomes [{to}]", before.name));
            }
            Some(_) => {}
        }
    }
    for after in new {
        if find(old, &after.name).is_none() {
            lines.push(format!("profile '{}' added: [{}]", after.name, says(after)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &str) -> EndpointPickerConfig {
        let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{body}");
        EndpointPickerConfig::decode(&text).unwrap().config
    }

    fn between(old: &str, new: &str) -> Vec<String> {
        decode(old).differences(&decode(new))
    }

    #[test]
    fn equal_ones_have_no_differences() {
        let body = "plugins: [{type: queue-scorer}]";
        assert_eq!(
            between(body, "plugins:\n- type: queue-scorer # the same"),
            [""; 0]
        );
    }

    #[test]
    fn keys_and_weights_are_named_and_values_are_not() {
        let old = "plugins: [{type: a}, {type: b, parameters: {x: 1, password: s3cret}}, {type: c, name: d}]
schedulingProfiles: [{name: p, plugins: [{pluginRef: a, weight: 2}]}, {name: q}]";
        let new = "plugins: [{type: b, parameters: {x: 1, password: other}}, {type: e, name: d}, {type: f}]
schedulingProfiles: [{name: p, plugins: [{pluginRef: a, weight: 3}, {pluginRef: b}]}, {name: r}]
flowControl: {maxRequests: 1}";
        let lines = between(old, new);
        assert_eq!(
            lines,
            [
                "plugin 'a' removed",
                "plugin 'b': parameters.password changed",
                "plugin 'd': type 'c' becomes 'e'",
                "plugin 'f' added",
                "profile 'p': [a 2] becomes [a 3, b]",
                "profile 'q' removed",
                "profile 'r' added: []",
                "flowControl changed",
            ]
        );
        assert!(!lines.concat().contains("s3cret") && !lines.concat().contains("other"));
    }

    #[test]
    fn an_order_is_a_difference() {
        let (old, new) = (
            "plugins: [{type: a}, {type: b}]",
            "plugins: [{type: b}, {type: a}]",
        );
        assert_eq!(between(old, new), ["plugins in another order"]);
    }
}
