//! The bounds that the schema states: lengths, ranges, patterns, as the API server checks them.

use std::sync::LazyLock;

use llmd_crds::LLMDeploymentSpec;
use regex::Regex;
use serde_json::Value;

use crate::field_error::{FieldError, Problem};

/// Schema of `spec`, from the definition that the API server gets.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let definitions = llmd_crds::all();
    let definition = definitions
        .iter()
        .find(|definition| definition.spec.names.kind == "LLMDeployment");
    let schema = definition
        .and_then(|definition| definition.spec.versions.first())
        .and_then(|version| version.schema.as_ref())
        .and_then(|schema| serde_json::to_value(schema).ok());
    schema
        .and_then(|schema| schema.pointer("/openAPIV3Schema/properties/spec").cloned())
        .unwrap_or(Value::Null)
});

/// Checks a whole or partial spec that stands at `field`.
pub(crate) fn check(field: &str, spec: &LLMDeploymentSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    // Types are right already: the value comes out of the typed resource.
    if let Ok(value) = serde_json::to_value(spec) {
        walk(field, &value, &SCHEMA, &mut errors);
    }
    errors
}

fn walk(field: &str, value: &Value, schema: &Value, errors: &mut Vec<FieldError>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let mut refuse = |message: String, value: Option<&Value>| {
        let error = FieldError::new(field, Problem::Invalid, message);
        errors.push(match value {
            Some(Value::String(text)) => error.value(text),
            Some(value) => error.value(value),
            None => error,
        });
    };
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(least) = bound("minimum").filter(|least| number < *least) {
                refuse(format!("must be at least {least}"), Some(value));
            }
            if let Some(most) = bound("maximum").filter(|most| number > *most) {
                refuse(format!("must be at most {most}"), Some(value));
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as f64;
            if bound("minLength").is_some_and(|least| length < least) {
                refuse("must not be empty".to_owned(), None);
            }
            if let Some(most) = bound("maxLength").filter(|most| length > *most) {
                refuse(
                    format!("must be at most {most} characters long, not {length}"),
                    None,
                );
            }
            let pattern = schema.get("pattern").and_then(Value::as_str);
            if let Some(pattern) = pattern
                && Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text))
            {
                refuse(format!("must match {pattern}"), Some(value));
            }
        }
        Value::Array(items) => {
            if let Some(least) = bound("minItems").filter(|least| (items.len() as f64) < *least) {
                refuse(format!("must have at least {least} members"), None);
            }
            if let Some(most) = bound("maxItems").filter(|most| items.len() as f64 > *most) {
                refuse(
                    format!("must have at most {most} members, not {}", items.len()),
                    None,
                );
            }
            if schema.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("map") {
                for (index, item) in items.iter().enumerate() {
                    if items[..index]
                        .iter()
                        .any(|other| other.get("name") == item.get("name"))
                    {
                        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
                        let message = "the name stands twice in the list".to_owned();
                        let place = format!("{field}[{index}].name");
                        errors.push(FieldError::new(place, Problem::Invalid, message).value(name));
                    }
                }
            }
            let inner = schema.get("items").unwrap_or(&Value::Null);
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{field}[{index}]"), item, inner, errors);
            }
        }
        Value::Object(members) => {
            if let Some(most) = bound("maxProperties").filter(|most| members.len() as f64 > *most) {
                refuse(
                    format!("must have at most {most} entries, not {}", members.len()),
                    None,
                );
            }
            let properties = schema.get("properties");
            let others = schema.get("additionalProperties").unwrap_or(&Value::Null);
            for (name, member) in members {
                let inner = properties
                    .and_then(|properties| properties.get(name))
                    .unwrap_or(others);
                walk(&format!("{field}.{name}"), member, inner, errors);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}
