//! Endpoints that the command line lists.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use llmd_epp_api::{EndpointName, EndpointSpec};

/// Namespace of endpoints outside Kubernetes, as upstream's of a file.
const NAMESPACE: &str = "default";

/// One endpoint per address. Ports of one host are its data-parallel ranks, in the order of the list; hosts are
/// numbered as they come.
pub fn endpoints(addresses: &[SocketAddr]) -> Vec<EndpointSpec> {
    let mut ranks: BTreeMap<std::net::IpAddr, (usize, u32)> = BTreeMap::new();
    addresses
        .iter()
        .map(|address| {
            let hosts = ranks.len();
            let (host, next) = ranks.entry(address.ip()).or_insert((hosts, 0));
            let rank = *next;
            *next += 1;
            let pod = format!("endpoint-{host}");
            EndpointSpec {
                name: EndpointName::new(NAMESPACE, format!("{pod}-rank-{rank}").as_str()),
                pod: pod.into(),
                address: address.ip(),
                port: address.port(),
                rank,
                reach: llmd_epp_api::Reach::default(),
                labels: BTreeMap::new(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_host_are_its_ranks() {
        let list = ["10.0.0.1:8000", "[fd00::1]:8000", "10.0.0.1:8001"].map(|text| text.parse().unwrap());
        let shown: Vec<String> = endpoints(&list)
            .iter()
            .map(|spec| format!("{} {} {} {}", spec.name, spec.address, spec.port, spec.rank))
            .collect();
        assert_eq!(
            shown,
            [
                "default/endpoint-0-rank-0 10.0.0.1 8000 0",
                "default/endpoint-1-rank-0 fd00::1 8000 0",
                "default/endpoint-0-rank-1 10.0.0.1 8001 1",
            ]
        );
    }
}
