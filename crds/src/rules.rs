//! The CEL rules of a deployment, evaluated without a cluster.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, ValidationError, Validator, compile_schema};

use crate::LLMDeployment;

/// Compiled once: compiling takes milliseconds, evaluating microseconds.
static RULES: LazyLock<CompiledSchema> = LazyLock::new(|| {
    let definition = LLMDeployment::crd();
    let schema = definition
        .spec
        .versions
        .first()
        .and_then(|version| version.schema.as_ref())
        .and_then(|schema| schema.open_api_v3_schema.as_ref());
    compile_schema(&serde_json::to_value(schema).unwrap_or_default())
});

/// The rules that `deployment` breaks on creation, as the API server would say them.
pub fn broken_rules(deployment: &LLMDeployment) -> Vec<ValidationError> {
    let Ok(object) = serde_json::to_value(deployment) else {
        return Vec::new(); // the type has string keys and finite numbers only
    };
    match Validator::new().validate_compiled(&RULES, &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec(),
    }
}
