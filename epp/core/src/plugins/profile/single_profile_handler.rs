//! `single-profile-handler`: runs the one profile.
//!
//! No parameters. More than one profile is a configuration error.

use std::sync::Arc;

use llmd_epp_api::plugin::{ProfileHandler, ProfileRun};
use llmd_epp_api::{Cycle, ErrorCode, Plugin, PluginType, RejectReason, Rejection, Stability};

/// Type name in configurations.
pub const TYPE: &str = "single-profile-handler";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin {
            profile_handler: Some(Arc::new(SingleProfileHandler)),
            ..Plugin::default()
        })
    },
};

pub(super) struct SingleProfileHandler;

impl ProfileHandler for SingleProfileHandler {
    fn next(&self, _: &mut Cycle<'_>, _: &[Arc<str>], runs: &[ProfileRun]) -> Option<usize> {
        runs.is_empty().then_some(0)
    }

    fn primary(&self, _: &[Arc<str>], runs: &[ProfileRun]) -> Result<usize, Rejection> {
        if runs.first().is_none_or(|run| run.picked.is_empty()) {
            return Err(Rejection::new(
                ErrorCode::ResourceExhausted,
                "no endpoints available for the given request",
            )
            .because(RejectReason::Saturated));
        }
        Ok(0)
    }

    fn check(&self, profiles: &[Arc<str>]) -> Result<(), String> {
        if profiles.len() == 1 {
            return Ok(());
        }
        Err("SingleProfileHandler cannot support multiple scheduling profiles; keep one of schedulingProfiles".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    #[test]
    fn runs_the_profile_once_and_rejects_when_it_found_nothing() {
        let names: [Arc<str>; 1] = ["default".into()];
        let handler = SingleProfileHandler;
        let empty = ProfileRun::default();
        Pool::of(1).cycle(|cycle| {
            assert_eq!(handler.next(cycle, &names, &[]), Some(0));
            assert_eq!(handler.next(cycle, &names, std::slice::from_ref(&empty)), None);
        });
        let rejection = handler.primary(&names, &[empty]).unwrap_err();
        assert_eq!(
            (rejection.code, rejection.reason),
            (ErrorCode::ResourceExhausted, Some(RejectReason::Saturated))
        );
        let two: [Arc<str>; 2] = ["a".into(), "b".into()];
        assert!(
            handler
                .check(&two)
                .unwrap_err()
                .contains("cannot support multiple scheduling profiles")
        );
    }
}
