//! `data-parallel-profile-handler`: one profile over ranks that share a pod's primary port.
//!
//! | parameter | default |
//! |---|---|
//! | `primaryPort` | 8000 |
//!
//! The request goes to `primaryPort` of the chosen pod; `x-data-parallel-host-port` names the rank.

use std::sync::Arc;

use llmd_epp_api::plugin::{PreRequest, ProfileHandler, ProfileRun, SchedulingResult};
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Rejection, RequestChanges, Stability};
use serde::Deserialize;

use super::primary_port;
use super::single_profile_handler::SingleProfileHandler;

/// Type name in configurations.
pub const TYPE: &str = "data-parallel-profile-handler";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters { primary_port } = context.parameters()?;
        if primary_port == 0 {
            return Err(BuildError::value("primaryPort", "must be in 1..=65535"));
        }
        let handler = Arc::new(DataParallelProfileHandler { primary_port });
        Ok(Plugin {
            profile_handler: Some(handler.clone()),
            pre_request: Some(handler),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    primary_port: u16,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { primary_port: 8000 }
    }
}

struct DataParallelProfileHandler {
    primary_port: u16,
}

impl ProfileHandler for DataParallelProfileHandler {
    fn next(&self, cycle: &mut Cycle<'_>, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Option<usize> {
        SingleProfileHandler.next(cycle, profiles, runs)
    }

    fn primary(&self, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Result<usize, Rejection> {
        SingleProfileHandler.primary(profiles, runs)
    }

    fn check(&self, profiles: &[Arc<str>]) -> Result<(), String> {
        if profiles.len() == 1 {
            return Ok(());
        }
        Err("data parallel profile handler requires exactly one scheduling profile; keep one of schedulingProfiles".into())
    }
}

impl PreRequest for DataParallelProfileHandler {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        primary_port::enter(cycle, result, self.primary_port, changes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error, changes};

    #[test]
    fn the_request_enters_by_the_primary_port_and_names_its_rank() {
        let plugin = build(&PLUGIN, json!({"primaryPort": 9000}));
        let changes = changes(&plugin, &Pool::of(3), &[("default", &[2, 1])], 0);
        assert_eq!(
            changes.destination.as_deref(),
            Some("10.0.0.2:9000,10.0.0.1:9000")
        );
        assert_eq!(
            changes.set_headers,
            [("x-data-parallel-host-port".into(), "10.0.0.2:8000".to_owned())]
        );
    }

    #[test]
    fn wrong_ports_and_several_profiles_are_refused() {
        assert!(build_error(&PLUGIN, json!({"primaryPort": 0})).contains("primaryPort"));
        assert!(build_error(&PLUGIN, json!({"primaryPort": 70000})).contains("primaryPort"));
        let handler = build(&PLUGIN, json!({})).profile_handler.unwrap();
        assert!(handler.check(&["a".into(), "b".into()]).is_err());
    }
}
