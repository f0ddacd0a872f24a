//! The CustomResourceDefinitions of all our kinds.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::schema::clean;
use crate::{AcceleratorProfile, LLMDeployment, WellLitPath};

/// The definitions, ordered by name, cleaned for the API server.
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        AcceleratorProfile::crd(),
        LLMDeployment::crd(),
        WellLitPath::crd(),
    ]
    .into_iter()
    .map(cleaned)
    .collect()
}

/// The definitions as one YAML text; equal types give equal bytes.
pub fn yaml() -> String {
    let mut text = String::new();
    for definition in all() {
        text.push_str("---\n");
        let mut value = serde_json::to_value(&definition).unwrap_or(Value::Null);
        clean(&mut value); // the typed definition turns bounds into floats again
        match serde_yaml::to_string(&value) {
            Ok(document) => text.push_str(&document),
            // Definitions hold only strings, numbers and maps with string keys: YAML can say all of it.
            Err(error) => debug_assert!(false, "a definition is not YAML: {error}"),
        }
    }
    text
}

fn cleaned(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(&definition).unwrap_or(Value::Null);
    clean(&mut value);
    serde_json::from_value(value).unwrap_or(definition)
}
