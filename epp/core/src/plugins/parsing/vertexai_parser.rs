//! `vertexai-parser`: messages of Vertex AI's prediction service over gRPC.
//!
//! No parameters.

use llmd_epp_api::registry::Component;
use llmd_epp_api::{Plugin, PluginType, Stability};

/// Type name in configurations.
pub const TYPE: &str = "vertexai-parser";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::component(Component::Parser))
    },
};
