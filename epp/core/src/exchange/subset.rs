//! The subset hint of the Endpoint Picker Protocol: which endpoints the proxy allows.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use llmd_epp_api::{Endpoint, Snapshot};

/// Addresses the proxy allows. Only the IP counts, as upstream compares it; ports are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset(Vec<IpAddr>);

impl Subset {
    /// Reads `ip:port` entries; those that are no address match nothing.
    pub fn from_entries<'a>(entries: impl IntoIterator<Item = &'a str>) -> Self {
        Self(entries.into_iter().filter_map(ip_of).collect())
    }

    fn allows(&self, endpoint: &Endpoint) -> bool {
        self.0.contains(&endpoint.spec().address)
    }
}

fn ip_of(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    if let Ok(address) = entry.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    entry.parse().ok().or_else(|| {
        let (host, _) = entry.rsplit_once(':')?;
        host.trim_matches(['[', ']']).parse().ok()
    })
}

/// Indices of the endpoints a request may go to; `None` when all of them may.
pub(super) fn candidates(
    snapshot: &Snapshot,
    subset: Option<&Subset>,
    exclude: &[Arc<Endpoint>],
) -> Option<Vec<u32>> {
    if subset.is_none() && exclude.is_empty() {
        return None;
    }
    let is_candidate = |endpoint: &Arc<Endpoint>| {
        subset.is_none_or(|subset| subset.allows(endpoint))
            && !exclude.iter().any(|failed| failed.name() == endpoint.name())
    };
    let indices = (0..)
        .zip(&snapshot.endpoints)
        .filter(|(_, endpoint)| is_candidate(endpoint));
    Some(indices.map(|(index, _)| index).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_with_and_without_port_and_in_ipv6() {
        let subset = Subset::from_entries([
            "10.0.0.1:8000",
            "10.0.0.2",
            "[fd00::1]:80",
            "fd00::2",
            "nonsense",
            "",
        ]);
        let expected = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"];
        assert_eq!(
            subset.0,
            expected.map(|text| text.parse::<IpAddr>().expect("an address"))
        );
    }
}
