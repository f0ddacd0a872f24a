//! `session-affinity-scorer`: 1 for the endpoint that a session is bound to, 0 for all others.
//!
//! Parameters: those of [`crate::plugins::session_affinity`].

use std::sync::Arc;

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Plugin, PluginType, Stability};

use crate::plugins::session_affinity::{self, Affinity};

/// Type name in configurations.
pub const TYPE: &str = "session-affinity-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let (plugin, affinity) = session_affinity::build(context)?;
        Ok(Plugin {
            scorer: Some(Arc::new(SessionAffinityScorer(affinity))),
            ..plugin
        })
    },
};

struct SessionAffinityScorer(Arc<dyn Affinity>);

impl Scorer for SessionAffinityScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let bound = self.0.bound(cycle, candidates);
        let position = candidates.iter().position(|index| Some(*index) == bound);
        if let Some(position) = position {
            scores[position] = 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build};

    #[test]
    fn only_the_bound_endpoint_scores() {
        let scorer = build(&PLUGIN, json!({})).scorer.unwrap();
        assert_eq!(Pool::of(3).scored(&*scorer), [0.0, 0.0, 0.0]);
        let mut pool = Pool::of(3);
        // default/e1
        pool.request.headers.push("x-session-token", b"ZGVmYXVsdC9lMQ==");
        assert_eq!(pool.scored(&*scorer), [0.0, 1.0, 0.0]);
    }
}
