//! Environment variables of the resource, as Kubernetes has them.

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector,
};

/// A variable as it stands in the resource.
pub(super) fn variable(variable: &llmd_crds::EnvVar) -> EnvVar {
    EnvVar {
        name: variable.name.clone(),
        value: variable.value.clone(),
        value_from: variable.value_from.as_ref().map(source),
    }
}

fn source(source: &llmd_crds::EnvVarSource) -> EnvVarSource {
    let llmd_crds::EnvVarSource {
        secret_key_ref,
        config_map_key_ref,
        field_ref,
    } = source;
    EnvVarSource {
        secret_key_ref: secret_key_ref.as_ref().map(|reference| SecretKeySelector {
            name: reference.name.clone(),
            key: reference.key.clone(),
            optional: reference.optional,
        }),
        config_map_key_ref: config_map_key_ref.as_ref().map(|reference| ConfigMapKeySelector {
            name: reference.name.clone(),
            key: reference.key.clone(),
            optional: reference.optional,
        }),
        field_ref: field_ref.as_ref().map(|reference| ObjectFieldSelector {
            field_path: reference.field_path.clone(),
            ..ObjectFieldSelector::default()
        }),
        ..EnvVarSource::default()
    }
}
