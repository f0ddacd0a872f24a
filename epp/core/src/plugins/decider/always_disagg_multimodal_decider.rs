//! `always-disagg-multimodal-decider`: a request with images, audio or video is encoded elsewhere.
//!
//! No parameters.

use std::sync::Arc;

use llmd_epp_api::plugin::Decider;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

/// Type name in configurations.
pub const TYPE: &str = "always-disagg-multimodal-decider";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin {
            decider: Some(Arc::new(AlwaysDisaggMultimodalDecider)),
            ..Plugin::default()
        })
    },
};

struct AlwaysDisaggMultimodalDecider;

impl Decider for AlwaysDisaggMultimodalDecider {
    fn decide(&self, cycle: &Cycle<'_>, _: Option<u32>) -> bool {
        cycle.request.facts.media_parts > 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build};

    #[test]
    fn yes_for_media() {
        let decider = build(&PLUGIN, json!({})).decider.unwrap();
        let mut pool = Pool::of(1);
        assert!(!pool.cycle(|cycle| decider.decide(cycle, Some(0))));
        pool.request.facts.media_parts = 1;
        assert!(pool.cycle(|cycle| decider.decide(cycle, Some(0))));
    }
}
