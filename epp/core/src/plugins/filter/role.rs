//! The role label that the three role filters read.

use llmd_epp_api::{Cycle, ROLE_LABEL};

/// Keeps endpoints whose role is listed, or that have no role when `unlabeled` is allowed.
pub(super) fn keep_roles(cycle: &Cycle<'_>, candidates: &mut Vec<u32>, roles: &[&str], unlabeled: bool) {
    candidates.retain(|index| {
        let role = cycle.snapshot.endpoints[*index as usize].label(ROLE_LABEL);
        role.map_or(unlabeled, |role| roles.contains(&role))
    });
}
