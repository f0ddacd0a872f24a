//! `header-profile-handler`: a header names the profile.
//!
//! | parameter | default |
//! |---|---|
//! | `headerName` | `EPP-Profile` |
//! | `defaultProfile` | `decode`, for requests without the header |
//!
//! A single configured profile always runs. A name that is not configured runs none, which is answered with 429.

use std::sync::Arc;

use llmd_epp_api::plugin::{ProfileHandler, ProfileRun};
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Rejection, Stability};
use llmd_openai::header;
use serde::Deserialize;

use super::single_profile_handler::SingleProfileHandler;

/// Type name in configurations.
pub const TYPE: &str = "header-profile-handler";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            header_name,
            default_profile,
        } = context.parameters()?;
        if header_name.is_empty() {
            return Err(BuildError::value("headerName", "must not be empty"));
        }
        Ok(Plugin {
            profile_handler: Some(Arc::new(HeaderProfileHandler {
                header: header_name.to_ascii_lowercase(),
                default_profile,
            })),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    header_name: String,
    default_profile: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            header_name: header::EPP_PROFILE.to_owned(),
            default_profile: "decode".to_owned(),
        }
    }
}

struct HeaderProfileHandler {
    header: String,
    default_profile: String,
}

impl ProfileHandler for HeaderProfileHandler {
    fn next(&self, cycle: &mut Cycle<'_>, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Option<usize> {
        if !runs.is_empty() {
            return None;
        }
        if profiles.len() == 1 {
            return Some(0);
        }
        let named = cycle
            .request
            .headers
            .get(&self.header)
            .filter(|name| !name.is_empty());
        let wanted = named.unwrap_or(&self.default_profile);
        profiles.iter().position(|profile| &**profile == wanted)
    }

    fn primary(&self, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Result<usize, Rejection> {
        SingleProfileHandler.primary(profiles, runs)
    }

    fn check(&self, _: &[Arc<str>]) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build};

    fn chosen(
        parameters: serde_json::Value,
        header: Option<(&str, &str)>,
        profiles: &[&str],
    ) -> Option<usize> {
        let handler = build(&PLUGIN, parameters).profile_handler.unwrap();
        let mut pool = Pool::of(1);
        if let Some((name, value)) = header {
            pool.request.headers.push(name, value.as_bytes());
        }
        let profiles: Vec<Arc<str>> = profiles.iter().map(|name| (*name).into()).collect();
        pool.cycle(|cycle| handler.next(cycle, &profiles, &[]))
    }

    #[test]
    fn the_header_names_the_profile() {
        let profiles = ["prefill", "decode", "batch"];
        assert_eq!(
            chosen(json!({}), Some(("EPP-Profile", "batch")), &profiles),
            Some(2)
        );
        assert_eq!(chosen(json!({}), None, &profiles), Some(1));
        assert_eq!(chosen(json!({}), Some(("epp-profile", "other")), &profiles), None);
        let parameters = json!({"headerName": "X-Way", "defaultProfile": "batch"});
        assert_eq!(
            chosen(parameters.clone(), Some(("x-way", "prefill")), &profiles),
            Some(0)
        );
        assert_eq!(
            chosen(parameters, Some(("epp-profile", "decode")), &profiles),
            Some(2)
        );
    }

    #[test]
    fn a_single_profile_always_runs() {
        assert_eq!(
            chosen(json!({}), Some(("epp-profile", "other")), &["only"]),
            Some(0)
        );
    }
}
