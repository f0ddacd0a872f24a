//! Laying one partial spec over another: objects by key, named lists by name, the rest replaced.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Lists whose members are identified by `name` (the schema's list maps).
const NAMED: [&str; 2] = ["pools", "env"];

/// `over` laid over `base`. Absent fields leave the base as it is.
///
/// # Errors
/// When a type cannot be written as JSON and read back: a defect of the type.
pub(crate) fn overlay<T: Serialize + DeserializeOwned>(base: &T, over: &T) -> Result<T, serde_json::Error> {
    let mut merged = serde_json::to_value(base)?;
    lay(&mut merged, serde_json::to_value(over)?, "");
    serde_json::from_value(merged)
}

/// [`overlay`] for optional parts.
pub(crate) fn overlay_option<T: Serialize + DeserializeOwned + Clone>(
    base: Option<&T>,
    over: Option<&T>,
) -> Result<Option<T>, serde_json::Error> {
    match (base, over) {
        (Some(base), Some(over)) => overlay(base, over).map(Some),
        (one, other) => Ok(other.or(one).cloned()),
    }
}

fn lay(base: &mut Value, over: Value, key: &str) {
    match (base, over) {
        // The configuration of the Endpoint Picker is one document: mixing two makes neither.
        (Value::Object(base), Value::Object(over)) if key != "inline" => {
            for (name, value) in over {
                match base.get_mut(&name) {
                    Some(slot) => lay(slot, value, &name),
                    None => {
                        base.insert(name, value);
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(over)) if NAMED.contains(&key) => {
            for value in over {
                match base
                    .iter_mut()
                    .find(|member| member.get("name") == value.get("name"))
                {
                    // A variable has one source: mixing two makes none.
                    Some(slot) if key == "env" => *slot = value,
                    Some(slot) => lay(slot, value, ""),
                    None => base.push(value),
                }
            }
        }
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(base: &Value, over: &Value) -> Value {
        overlay(base, over).unwrap()
    }

    #[test]
    fn maps_merge_named_lists_merge_by_name_other_lists_are_replaced() {
        let base = json!({"pools": [{"name": "a", "replicas": 1, "x": 1}], "list": [1, 2], "args": {"k": "1", "l": "2"}});
        let over =
            json!({"pools": [{"name": "b"}, {"name": "a", "replicas": 2}], "list": [3], "args": {"k": "9"}});
        assert_eq!(
            merged(&base, &over),
            json!({"pools": [{"name": "a", "replicas": 2, "x": 1}, {"name": "b"}], "list": [3], "args": {"k": "9", "l": "2"}})
        );
    }

    #[test]
    fn a_variable_replaces_the_paths_as_a_whole() {
        let base = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let over = json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]});
        let both = json!({"env": [over["env"][0], base["env"][1]]});
        assert_eq!(merged(&base, &over), both);
    }

    #[test]
    fn an_inline_configuration_replaces_the_paths_as_a_whole() {
        let base = json!({"config": {"inline": {"plugins": [1], "a": 1}}});
        let over = json!({"config": {"inline": {"plugins": [2]}}});
        assert_eq!(merged(&base, &over), over);
    }
}
