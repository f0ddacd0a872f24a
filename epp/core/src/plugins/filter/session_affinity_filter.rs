//! `session-affinity-filter`: keeps the endpoint that a session is bound to, and everything when it is not there.
//!
//! Parameters: those of [`crate::plugins::session_affinity`]. `multicluster-session-affinity-filter` is the same for
//! endpoints that are clusters.

use std::sync::Arc;

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{BuildContext, BuildError, Cycle, Plugin, PluginType, Random, Stability};

use crate::plugins::session_affinity::{self, Affinity};

/// Type name in configurations.
pub const TYPE: &str = "session-affinity-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build,
};

/// The registry line of the type for clusters.
pub const MULTICLUSTER: PluginType = PluginType {
    name: "multicluster-session-affinity-filter",
    ..PLUGIN
};

fn build(context: &mut BuildContext<'_>) -> Result<Plugin, BuildError> {
    let (plugin, affinity) = session_affinity::build(context)?;
    Ok(Plugin {
        filter: Some(Arc::new(SessionAffinityFilter(affinity))),
        ..plugin
    })
}

struct SessionAffinityFilter(Arc<dyn Affinity>);

impl Filter for SessionAffinityFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        if let Some(bound) = self.0.bound(cycle, candidates) {
            candidates.clear();
            candidates.push(bound);
        }
    }
}
