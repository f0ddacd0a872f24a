//! `pd-profile-handler`: prefill and decode on endpoints of their own. Deprecated: `disagg-profile-handler`.
//!
//! | parameter | default |
//! |---|---|
//! | `decodeProfile`, `prefillProfile` | `decode`, `prefill` |
//! | `deciderPluginName` | `prefix-based-pd-decider` |
//! | `primaryPort` | 0: requests go to the rank's own port |
//! | `prefixPluginType`, `prefixPluginName`, `prefixMatchInfoProducerName` | without effect: the decider reads the prefix |
//!
//! With a `primaryPort` requests enter the decode pod by it, and `x-data-parallel-host-port` names the rank.

use std::sync::Arc;

use llmd_epp_api::plugin::{Decider, PreRequest, ProfileHandler, ProfileRun, SchedulingResult};
use llmd_epp_api::{
    BuildContext, BuildError, Cycle, Plugin, PluginType, Rejection, RequestChanges, Stability,
};
use serde::Deserialize;

use super::disaggregation::{Decisions, PdDecisions, decoding, profile, run_of, set_headers};
use super::primary_port;

/// Type name in configurations.
pub const TYPE: &str = "pd-profile-handler";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Deprecated {
        since: "0.7",
        removed_in: "a later release",
    },
    default_producer_of: &[],
    build: |context| {
        let handler = Arc::new(PdProfileHandler::new(context)?);
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
    decode_profile: String,
    prefill_profile: String,
    decider_plugin_name: String,
    primary_port: u16,
    prefix_plugin_type: Option<String>,
    prefix_plugin_name: Option<String>,
    prefix_match_info_producer_name: Option<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            decode_profile: "decode".to_owned(),
            prefill_profile: "prefill".to_owned(),
            decider_plugin_name: "prefix-based-pd-decider".to_owned(),
            primary_port: 0,
            prefix_plugin_type: None,
            prefix_plugin_name: None,
            prefix_match_info_producer_name: None,
        }
    }
}

struct PdProfileHandler {
    decode: String,
    prefill: String,
    decider: Arc<dyn Decider>,
    primary_port: Option<u16>,
    decisions: Decisions,
}

impl PdProfileHandler {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let Parameters {
            decode_profile,
            prefill_profile,
            decider_plugin_name,
            primary_port,
            prefix_plugin_type,
            prefix_plugin_name,
            prefix_match_info_producer_name,
        } = context.parameters()?;
        for (value, name) in [
            (prefix_plugin_type, "prefixPluginType"),
            (prefix_plugin_name, "prefixPluginName"),
            (prefix_match_info_producer_name, "prefixMatchInfoProducerName"),
        ] {
            if value.is_some() {
                context.warn_without_effect(name);
            }
        }
        let decider = context.decider("deciderPluginName", &decider_plugin_name)?;
        let families = context.metrics(PdDecisions::register)?;
        Ok(Self {
            decode: decode_profile,
            prefill: prefill_profile,
            decider,
            primary_port: (primary_port > 0).then_some(primary_port),
            decisions: Decisions::of_pd(&families, context.name),
        })
    }
}

impl ProfileHandler for PdProfileHandler {
    fn next(&self, cycle: &mut Cycle<'_>, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Option<usize> {
        let Some(decode) = run_of(&self.decode, profiles, runs) else {
            return profile(&self.decode, profiles);
        };
        let decode = decode.picked.first().copied()?;
        let is_open = run_of(&self.prefill, profiles, runs).is_none();
        let prefill = profile(&self.prefill, profiles).filter(|_| is_open)?;
        self.decider.decide(cycle, Some(decode)).then_some(prefill)
    }

    fn primary(&self, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Result<usize, Rejection> {
        decoding(&self.decode, profiles, runs)
    }

    fn check(&self, profiles: &[Arc<str>]) -> Result<(), String> {
        let missing = [("decodeProfile", &self.decode), ("prefillProfile", &self.prefill)]
            .into_iter()
            .find(|(_, name)| profile(name, profiles).is_none());
        match missing {
            None => Ok(()),
            Some((field, name)) => Err(format!(
                "pd-profile-handler needs the scheduling profile '{name}'; add it or set parameters.{field}"
            )),
        }
    }
}

impl PreRequest for PdProfileHandler {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        let stages = set_headers(cycle, result, &self.prefill, "", changes);
        if let Some(port) = self.primary_port {
            primary_port::enter(cycle, result, port, changes);
        }
        self.decisions.count(&cycle.request.target_model, stages);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BuildEnv, EndpointPickerConfig, assemble};
    use crate::plugins::testing::Pool;

    fn changes(plugins: &str, prompt: &str) -> (RequestChanges, Vec<String>) {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}
- {{type: decode-filter}}
- {{type: prefill-filter}}
schedulingProfiles:
- {{name: prefill, plugins: [{{pluginRef: prefill-filter}}]}}
- {{name: decode, plugins: [{{pluginRef: decode-filter}}]}}
"
        );
        let decoded = EndpointPickerConfig::decode(&text).unwrap();
        let assembly = assemble(&decoded.config, BuildEnv::detached()).unwrap();
        let mut pool = Pool::of(2)
            .label(0, "llm-d.ai/role", "decode")
            .label(1, "llm-d.ai/role", "prefill");
        pool.request = crate::plugins::testing::request(prompt);
        let decision = assembly
            .scheduler
            .schedule(pool.now, &pool.request, &pool.snapshot, None);
        let mut decision = decision.unwrap();
        (std::mem::take(&mut decision.changes), assembly.warnings)
    }

    const DECIDER: &str = "- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 100}}";

    #[test]
    fn a_long_prompt_is_prefilled_elsewhere_and_a_short_one_is_not() {
        let plugins = format!("- {{type: pd-profile-handler}}\n{DECIDER}");
        let (long, warnings) = changes(&plugins, &"x".repeat(400));
        assert_eq!(
            long.set_headers,
            [("x-prefiller-host-port".into(), "10.0.0.1:8000".to_owned())]
        );
        assert!(
            warnings.iter().any(|line| line.contains("pd-profile-handler")),
            "{warnings:?}"
        );
        assert_eq!(changes(&plugins, "short").0.set_headers, []);
    }

    #[test]
    fn a_primary_port_is_where_requests_enter() {
        let plugins = format!("- {{type: pd-profile-handler, parameters: {{primaryPort: 9000}}}}\n{DECIDER}");
        let (changes, _) = changes(&plugins, "short");
        assert_eq!(changes.destination.as_deref(), Some("10.0.0.0:9000"));
        assert_eq!(
            changes.set_headers,
            [("x-data-parallel-host-port".into(), "10.0.0.0:8000".to_owned())]
        );
    }
}
