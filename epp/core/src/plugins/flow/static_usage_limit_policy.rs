//! `static-usage-limit-policy`: one saturation ceiling for all priorities; inert while flow control
//! is off.
//!
//! | parameter | default |
//! |---|---|
//! | `threshold` | 1.0 |

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "static-usage-limit-policy";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters { threshold } = context.parameters()?;
        if threshold.is_some_and(|value| !value.is_finite() || value <= 0.0) {
            return Err(BuildError::value("threshold", "must be greater than 0"));
        }
        Ok(Plugin::component(Component::FlowPolicy))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    threshold: Option<f64>,
}
