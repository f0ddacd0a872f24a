//! `encode-filter`: keeps endpoints that can encode.
//!
//! No parameters. Reads the pod label `llm-d.ai/role`.

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{Cycle, Plugin, PluginType, Random, Stability};

use super::role::keep_roles;

/// Type name in configurations.
pub const TYPE: &str = "encode-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::filter(EncodeFilter))
    },
};

const ROLES: &[&str] = &["encode", "encode-prefill", "encode-prefill-decode"];

struct EncodeFilter;

impl Filter for EncodeFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _random: &Random) {
        keep_roles(cycle, candidates, ROLES, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn keeps_the_listed_roles() {
        let roles = [
            "decode",
            "prefill",
            "encode",
            "prefill-decode",
            "both",
            "encode-prefill",
            "encode-prefill-decode",
            "unheard-of",
        ];
        let mut pool = Pool::of(roles.len() + 1);
        for (index, role) in roles.iter().enumerate() {
            pool = pool.label(index, "llm-d.ai/role", role);
        }
        let kept = pool.filtered(&EncodeFilter);
        let expected: Vec<u32> = (0..=roles.len() as u32)
            .filter(|index| {
                roles
                    .get(*index as usize)
                    .is_some_and(|role| ROLES.contains(role))
            })
            .collect();
        assert_eq!(kept, expected);
        assert!(!kept.contains(&7), "an unknown role serves nothing");
    }
}
