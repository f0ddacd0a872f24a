//! `k8s-notification-source`: tells extractors of objects of one kind in Kubernetes.
//!
//! | parameter | default |
//! |---|---|
//! | `group` | empty: the core's |
//! | `version` | required |
//! | `kind` | required |
//!
//! No type of extractor reads it, upstream's included: the kind is not watched, and a warning says so.

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};
use serde::Deserialize;

use super::notification::Notification;

/// Type name in configurations.
pub const TYPE: &str = "k8s-notification-source";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters { group, version, kind } = context.parameters()?;
        for (field, value) in [("version", &version), ("kind", &kind)] {
            if value.is_empty() {
                return Err(BuildError::value(field, "is required"));
            }
        }
        let source = Notification::Objects { group, version, kind };
        Ok(Plugin::component(Component::DataSource(Arc::new(source))))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    group: String,
    version: String,
    kind: String,
}
