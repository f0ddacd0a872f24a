//! `header-based-testing-filter`: keeps the addresses that the request lists; for conformance tests.
//!
//! No parameters. The header `test-epp-endpoint-selection` holds IP addresses, separated by commas; without it
//! everything stays.

use std::net::IpAddr;

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{Cycle, Plugin, PluginType, Random, Stability};

/// Type name in configurations.
pub const TYPE: &str = "header-based-testing-filter";

const HEADER: &str = "test-epp-endpoint-selection";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::filter(HeaderBasedTestingFilter))
    },
};

struct HeaderBasedTestingFilter;

impl Filter for HeaderBasedTestingFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        let Some(listed) = cycle.request.headers.get(HEADER).filter(|list| !list.is_empty()) else {
            return;
        };
        let wanted: Vec<IpAddr> = listed
            .split(',')
            .filter_map(|entry| entry.trim().parse().ok())
            .collect();
        candidates.retain(|index| wanted.contains(&cycle.snapshot.endpoints[*index as usize].spec().address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn listed_addresses_stay() {
        let mut pool = Pool::of(3);
        assert_eq!(pool.filtered(&HeaderBasedTestingFilter), [0, 1, 2]);
        pool.request
            .headers
            .push("Test-EPP-Endpoint-Selection", b"10.0.0.2, nonsense,10.0.0.0");
        assert_eq!(pool.filtered(&HeaderBasedTestingFilter), [0, 2]);
    }

    #[test]
    fn unknown_addresses_leave_nothing() {
        let mut pool = Pool::of(3);
        pool.request
            .headers
            .push("test-epp-endpoint-selection", b"192.0.2.1");
        assert!(pool.filtered(&HeaderBasedTestingFilter).is_empty());
    }
}
