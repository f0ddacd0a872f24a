//! `topology-affinity-filter`: keeps endpoints near the one that an earlier profile chose.
//!
//! | parameter | default |
//! |---|---|
//! | `minAffinity` | `host`; or `rack`, `zone`, `region` |
//! | `topologyProducerName` | the default producer, `topology-extractor` |
//!
//! The one to compare with is `peer-endpoint` of `disagg-profile-handler`. Everything stays when it is not there, when
//! nobody knows where it is, and when no endpoint is near enough.

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{Cycle, Locality, Plugin, PluginType, Random, Stability};
use serde::Deserialize;

use crate::plugins::peer::Peer;

/// Type name in configurations.
pub const TYPE: &str = "topology-affinity-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            min_affinity,
            topology_producer_name,
        } = context.parameters()?;
        Ok(Plugin::filter(TopologyAffinityFilter {
            loosest: min_affinity.into(),
            peer: Peer::new(context, &topology_producer_name)?,
        }))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    min_affinity: Affinity,
    topology_producer_name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Affinity {
    #[default]
    Host,
    Rack,
    Zone,
    Region,
}

impl From<Affinity> for Locality {
    fn from(affinity: Affinity) -> Self {
        match affinity {
            Affinity::Host => Self::Host,
            Affinity::Rack => Self::Rack,
            Affinity::Zone => Self::Zone,
            Affinity::Region => Self::Region,
        }
    }
}

struct TopologyAffinityFilter {
    loosest: Locality,
    peer: Peer,
}

impl Filter for TopologyAffinityFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        let Some(distance) = self.peer.of(cycle) else {
            return;
        };
        let is_near = |index: &u32| distance.to(*index).is_some_and(|level| level <= self.loosest);
        if candidates.iter().any(is_near) {
            candidates.retain(is_near);
        }
    }
}

#[cfg(test)]
mod tests {
    use llmd_epp_api::PeerEndpoint;
    use llmd_epp_api::attribute::PEER_ENDPOINT;
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, Prepared, build_error};

    /// `e0` is the peer; the others share its host, rack, zone, region, and nothing.
    fn pool() -> Pool {
        let labels = ["host", "rack", "zone", "region"];
        let peer = labels
            .iter()
            .fold(Pool::of(6), |pool, label| pool.label(0, label, "same"));
        (1..=4).fold(peer, |pool, index| pool.label(index, labels[index - 1], "same"))
    }

    fn kept(affinity: &str, peer: Option<u32>, pool: &Pool) -> Vec<u32> {
        let prepared = Prepared::new(&PLUGIN, &json!({"minAffinity": affinity})).located();
        let prepared = match peer {
            Some(index) => prepared.with(PEER_ENDPOINT, "disagg-profile-handler", PeerEndpoint { index }),
            None => prepared,
        };
        prepared.kept(pool)
    }

    #[test]
    fn endpoints_at_least_that_close_stay() {
        for (affinity, expected) in [
            ("host", &[0, 1][..]),
            ("rack", &[0, 1, 2]),
            ("zone", &[0, 1, 2, 3]),
            ("region", &[0, 1, 2, 3, 4]),
        ] {
            assert_eq!(kept(affinity, Some(0), &pool()), expected, "{affinity}");
        }
    }

    #[test]
    fn what_is_not_known_keeps_everything() {
        let all = [0, 1, 2, 3, 4, 5];
        assert_eq!(kept("host", None, &pool()), all, "no profile before");
        assert_eq!(kept("region", Some(5), &pool()), all, "a peer without labels");
        assert_eq!(kept("host", Some(2), &pool()), all, "nobody near enough");
        let without_extractor = Prepared::new(&PLUGIN, &json!({}));
        assert_eq!(without_extractor.kept(&pool()), all);
        let error = build_error(&PLUGIN, json!({"minAffinity": "row"}));
        assert!(error.contains("minAffinity"), "{error}");
    }
}
