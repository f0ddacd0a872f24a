//! `topology-affinity-scorer`: prefers endpoints near the one that an earlier profile chose.
//!
//! | parameter | default |
//! |---|---|
//! | `topologyProducerName` | the default producer, `topology-extractor` |
//!
//! The same host scores 1, rack 0.2, zone 0.05, region 0.02, else 0. The one to compare with is `peer-endpoint` of
//! `disagg-profile-handler`; without it everything scores 0.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{Cycle, Locality, Plugin, PluginType, Stability};
use serde::Deserialize;

use crate::plugins::peer::Peer;

/// Type name in configurations.
pub const TYPE: &str = "topology-affinity-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let parameters: Parameters = context.parameters()?;
        let peer = Peer::new(context, &parameters.topology_producer_name)?;
        Ok(Plugin::scorer(TopologyAffinityScorer { peer }))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    topology_producer_name: String,
}

struct TopologyAffinityScorer {
    peer: Peer,
}

impl Scorer for TopologyAffinityScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let Some(distance) = self.peer.of(cycle) else {
            return;
        };
        for (index, score) in candidates.iter().zip(scores) {
            *score = match distance.to(*index) {
                Some(Locality::Host) => 1.0,
                Some(Locality::Rack) => 0.2,
                Some(Locality::Zone) => 0.05,
                Some(Locality::Region) => 0.02,
                None => 0.0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use llmd_epp_api::PeerEndpoint;
    use llmd_epp_api::attribute::PEER_ENDPOINT;
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, Prepared};

    #[test]
    fn the_tightest_level_that_is_shared_decides() {
        let labels = ["host", "rack", "zone", "region"];
        let peer = labels
            .iter()
            .fold(Pool::of(6), |pool, label| pool.label(0, label, "same"));
        let pool = (1..=4).fold(peer, |pool, index| pool.label(index, labels[index - 1], "same"));
        let prepared = || Prepared::new(&PLUGIN, &json!({})).located();
        let scored = prepared()
            .with(PEER_ENDPOINT, "disagg-profile-handler", PeerEndpoint { index: 0 })
            .scores(&pool);
        assert_eq!(scored, [1.0, 1.0, 0.2, 0.05, 0.02, 0.0]);
        assert_eq!(prepared().scores(&pool), [0.0; 6]);
    }
}
