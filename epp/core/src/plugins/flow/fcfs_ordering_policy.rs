//! `fcfs-ordering-policy`: first come, first served inside a flow; orders nothing while flow control is off.
//!
//! No parameters.

use llmd_epp_api::registry::Component;
use llmd_epp_api::{Plugin, PluginType, Stability};

/// Type name in configurations.
pub const TYPE: &str = "fcfs-ordering-policy";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::component(Component::FlowPolicy))
    },
};
