//! What a case runs on: configuration, flags and endpoints, and how they are written for a picker.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::case::Member;

/// A set-up; cases with equal ones share a picker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// The configuration without discovery; `None`: any will do.
    pub config: Option<Value>,
    /// Further flags.
    pub flags: Vec<String>,
    /// The endpoints; `None`: any pool with an endpoint will do.
    pub pool: Option<Vec<(String, Member)>>,
    /// Not shared with other cases.
    pub is_own: bool,
}

impl Setup {
    /// Whether the case runs against a picker that is already there, whatever its configuration.
    pub fn is_portable(&self) -> bool {
        self.config.is_none() && self.flags.is_empty() && self.pool.is_none()
    }

    /// Whether the picker is told to serve with TLS.
    pub fn with_tls(&self) -> bool {
        self.flags.iter().any(|flag| flag == "--secure-serving=true")
    }

    /// The endpoints; three equal ones when the case needs none in particular.
    pub fn members(&self) -> Vec<(String, Member)> {
        let three = || {
            ["a", "b", "c"]
                .map(|name| (name.to_owned(), Member::default()))
                .to_vec()
        };
        self.pool.clone().unwrap_or_else(three)
    }

    /// The configuration file, with endpoints from `endpoints`. `fallback` serves cases that need no particular one.
    /// The text `${port}` as a whole value becomes the engines' `port`.
    pub fn config_file(&self, fallback: Option<&Value>, endpoints: &Path, port: u16) -> Value {
        let mut config = self.config.as_ref().or(fallback).cloned().unwrap_or_else(plain);
        let Value::Object(map) = &mut config else {
            return config; // A case about files that are no object.
        };
        let plugins = map.entry("plugins").or_insert_with(|| json!([]));
        if let Value::Array(plugins) = plugins {
            plugins.retain(|plugin| plugin["type"] != "file-discovery");
            plugins.push(json!({
                "type": "file-discovery",
                "parameters": {"path": endpoints, "watchFile": true},
            }));
        }
        let layer = map
            .entry("dataLayer")
            .or_insert_with(|| Value::Object(Map::new()));
        if layer.is_object() {
            layer["discovery"] = json!({"pluginRef": "file-discovery"});
        }
        set_port(&mut config, port);
        config
    }
}

fn set_port(value: &mut Value, port: u16) {
    match value {
        Value::String(text) if text == "${port}" => *value = port.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| set_port(item, port)),
        Value::Object(members) => members.values_mut().for_each(|member| set_port(member, port)),
        _ => {}
    }
}

/// Scorers without memory, so that cases do not influence each other.
fn plain() -> Value {
    json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [{"type": "queue-scorer"}, {"type": "kv-cache-utilization-scorer"}],
        "schedulingProfiles": [{
            "name": "default",
            "plugins": [{"pluginRef": "queue-scorer"}, {"pluginRef": "kv-cache-utilization-scorer"}],
        }],
    })
}
