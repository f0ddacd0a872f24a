//! Where endpoints are, as their labels say.

use std::sync::Arc;

use crate::endpoint::Endpoint;

/// Attribute name of [`Topology`].
pub const TOPOLOGY: &str = "Topology";

/// A level of locality, the tightest first: who shares one shares those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locality {
    /// The same host.
    Host,
    /// The same rack.
    Rack,
    /// The same zone.
    Zone,
    /// The same region.
    Region,
}

impl Locality {
    /// All levels, the tightest first.
    pub const ALL: [Self; 4] = [Self::Host, Self::Rack, Self::Zone, Self::Region];
}

/// Which labels of an endpoint say where it is (upstream `Topology`, which holds their values per endpoint).
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Label keys in the order of [`Locality::ALL`]; empty before it is written.
    pub labels: Arc<[Box<str>]>,
}

impl Topology {
    /// The value of `endpoint` at a level; `None` when it has none.
    pub fn value<'a>(&self, endpoint: &'a Endpoint, level: Locality) -> Option<&'a str> {
        let key = self.labels.get(level as usize)?;
        endpoint.label(key).filter(|value| !value.is_empty())
    }

    /// The tightest level that both endpoints share. A missing value is shared with nobody.
    pub fn shared(&self, one: &Endpoint, other: &Endpoint) -> Option<Locality> {
        let mut levels = Locality::ALL.into_iter();
        levels.find(|level| {
            let value = self.value(one, *level);
            value.is_some() && value == self.value(other, *level)
        })
    }

    /// Whether any level of `endpoint` is known.
    pub fn is_known(&self, endpoint: &Endpoint) -> bool {
        let mut levels = Locality::ALL.into_iter();
        levels.any(|level| self.value(endpoint, level).is_some())
    }
}
