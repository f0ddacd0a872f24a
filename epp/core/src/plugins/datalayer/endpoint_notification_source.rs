//! `endpoint-notification-source`: tells extractors of endpoints that come, change and go.
//!
//! No parameters. `topology-extractor` is the only one that reads it.

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{Plugin, PluginType, Stability};

use super::notification::Notification;

/// Type name in configurations.
pub const TYPE: &str = "endpoint-notification-source";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        let source = Notification::Endpoints;
        Ok(Plugin::component(Component::DataSource(Arc::new(source))))
    },
};
