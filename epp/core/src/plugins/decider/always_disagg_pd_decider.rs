//! `always-disagg-pd-decider`: every request is prefilled elsewhere.
//!
//! No parameters.

use std::sync::Arc;

use llmd_epp_api::plugin::Decider;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

/// Type name in configurations.
pub const TYPE: &str = "always-disagg-pd-decider";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin {
            decider: Some(Arc::new(AlwaysDisaggPdDecider)),
            ..Plugin::default()
        })
    },
};

struct AlwaysDisaggPdDecider;

impl Decider for AlwaysDisaggPdDecider {
    fn decide(&self, _: &Cycle<'_>, _: Option<u32>) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    #[test]
    fn yes_without_parameters() {
        let decider = build(&PLUGIN, json!({})).decider.unwrap();
        assert!(Pool::of(1).cycle(|cycle| decider.decide(cycle, None)));
        let error = build_error(&PLUGIN, json!({"threshold": 1}));
        assert!(error.contains("threshold"), "{error}");
    }
}
