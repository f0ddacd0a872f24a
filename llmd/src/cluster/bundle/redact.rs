//! Takes out of an object what may be secret.

use llmd_render::KEPT_PATH_FILE;
use serde_json::Value;

/// Stands for what was taken out.
const REDACTED: &str = "<redacted>";
/// Annotations that hold another copy of the object.
const COPIES: [&str; 1] = ["kubectl.kubernetes.io/last-applied-configuration"];

/// An object without values of environment variables, without copies of itself and without noise.
pub(super) fn object(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            for copy in COPIES {
                annotations.remove(copy);
            }
        }
    }
    walk(&mut object);
    object
}

/// Every list called `env`, wherever it is: pods have it, templates, our own kinds, and the kept text of a path.
fn walk(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::Array(variables) if key == "env" => variables.iter_mut().for_each(hide),
                    Value::String(text) if key == KEPT_PATH_FILE => *text = kept_path(text),
                    other => walk(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(walk),
        _ => {}
    }
}

/// What somebody else put there is not known to hold no secrets.
fn kept_path(text: &str) -> String {
    let path = serde_yaml::from_str::<Value>(text).ok();
    let without = path.and_then(|path| serde_yaml::to_string(&object(path)).ok());
    without.unwrap_or_else(|| REDACTED.to_owned())
}

fn hide(variable: &mut Value) {
    if let Some(value) = variable.get_mut("value") {
        *value = REDACTED.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::object;

    #[test]
    fn no_value_of_a_variable_stays_and_names_do() {
        let pod = json!({
            "metadata": {
                "managedFields": [{}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "canary",
                    "mine": "stays",
                },
            },
            "spec": {
                "engine": {"env": [{"name": "A", "value": "canary"}]},
                "containers": [{"env": [
                    {"name": "B", "value": "canary"},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ]}],
            },
        });
        let config_map = json!({"data": {
            "path.yaml": "spec: {template: {engine: {env: [{name: D, value: canary}]}}}",
        }});
        let text = format!("{}{}", object(pod), object(config_map));
        assert!(!text.contains("canary"), "{text}");
        for kept in [
            "\"A\"",
            "\"B\"",
            "name: D",
            "secretKeyRef",
            "\"mine\"",
            "<redacted>",
        ] {
            assert!(text.contains(kept), "{kept} is not in {text}");
        }
    }
}
