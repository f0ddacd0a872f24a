//! How far endpoints are from the one that an earlier profile of the request chose.

use std::sync::Arc;

use llmd_epp_api::attribute::{PEER_ENDPOINT, TOPOLOGY};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Endpoint, Locality, Need, PeerEndpoint, Topology,
};

/// What it takes to compare endpoints with the peer.
pub(crate) struct Peer {
    endpoint: AttributeKey<PeerEndpoint>,
    topology: AttributeKey<Topology>,
}

impl Peer {
    /// `producer` is the parameter `topologyProducerName`.
    pub(crate) fn new(context: &mut BuildContext<'_>, producer: &str) -> Result<Self, BuildError> {
        Ok(Self {
            endpoint: context.consumes(PEER_ENDPOINT, None, Need::Optional)?,
            topology: context.consumes(TOPOLOGY, Some(producer), Need::Optional)?,
        })
    }

    /// `None` when no profile chose an endpoint before, or nobody knows where it is.
    pub(crate) fn of<'a>(&self, cycle: &'a Cycle<'_>) -> Option<Distance<'a>> {
        let peer = cycle.attributes.get(self.endpoint)?;
        let topology = cycle.attributes.get(self.topology)?;
        let endpoints = &cycle.snapshot.endpoints;
        let peer = endpoints.get(peer.index as usize)?;
        topology.is_known(peer).then_some(Distance {
            topology,
            peer,
            endpoints,
        })
    }
}

/// The peer among the endpoints.
pub(crate) struct Distance<'a> {
    topology: &'a Topology,
    peer: &'a Endpoint,
    endpoints: &'a [Arc<Endpoint>],
}

impl Distance<'_> {
    /// The tightest level that endpoint `index` shares with the peer.
    pub(crate) fn to(&self, index: u32) -> Option<Locality> {
        self.topology.shared(&self.endpoints[index as usize], self.peer)
    }
}
