//! `disagg-profile-handler`: encoding, prefill and decode on endpoints of their own.
//!
//! | parameter | default |
//! |---|---|
//! | `stageOrder` | `decode-first`; or `prefill-first` |
//! | `profiles.decode`, `.prefill`, `.encode` | profiles of these names |
//! | `deciders.prefill`, `.encode` | none: the stage does not run |
//! | `jointCandidates` | 0: each stage chooses for itself; at most 64 |
//!
//! The flat names of earlier releases are `decodeProfile`, `prefillProfile`, `encodeProfile`, `prefillDeciderPluginName`
//! (before: `deciderPluginName`) and `encodeDeciderPluginName`; the two kinds cannot be mixed.
//!
//! Decode first: decode, then encoding and prefill where their deciders say so; the prefill profile reads the decode
//! endpoint as `peer-endpoint`. Prefill first: prefill whenever its profile is configured, then encoding, then decode,
//! whose profile reads the prefill endpoint as `peer-endpoint`. A stage that finds no endpoint is left out, decode
//! excepted. `x-prefiller-host-port` and `x-encoder-hosts-ports` tell
//! the sidecar.
//!
//! With `jointCandidates` (ours) prefill and decode are one choice: that many of the first stage's best endpoints are
//! each tried as `peer-endpoint` of the second, and the pair with the highest sum of both profiles' totals wins. The
//! first stage's picker decides whether there is a second stage at all, and between equal pairs. The second profile runs
//! once per endpoint tried, under the pool's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llmd_epp_api::attribute::PEER_ENDPOINT;
use llmd_epp_api::plugin::{Decider, PreRequest, ProfileHandler, ProfileRun, SchedulingResult};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, PeerEndpoint, Plugin, PluginType, Rejection,
    RequestChanges, Stability,
};
use serde::Deserialize;

use super::disaggregation::{Decisions, DisaggDecisions, Stages, decoding, profile, run_of, set_headers};
use crate::spans;

/// Type name in configurations.
pub const TYPE: &str = "disagg-profile-handler";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[PEER_ENDPOINT],
    build: |context| {
        let handler = Arc::new(DisaggProfileHandler::new(context)?);
        Ok(Plugin {
            profile_handler: Some(handler.clone()),
            pre_request: Some(handler),
            ..Plugin::default()
        })
    },
};

/// More endpoints tried per request would hold the pool's lock for long.
const MOST_JOINT: usize = 64;

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum StageOrder {
    #[default]
    DecodeFirst,
    PrefillFirst,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    stage_order: Option<StageOrder>,
    profiles: Option<Profiles>,
    deciders: Option<Deciders>,
    joint_candidates: usize,
    decode_profile: Option<String>,
    prefill_profile: Option<String>,
    encode_profile: Option<String>,
    prefill_decider_plugin_name: Option<String>,
    encode_decider_plugin_name: Option<String>,
    decider_plugin_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Profiles {
    decode: Option<String>,
    prefill: Option<String>,
    encode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Deciders {
    prefill: Option<String>,
    encode: Option<String>,
}

impl Parameters {
    /// The flat names that are set, with what takes their place.
    fn flat(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [
            (&self.decode_profile, "decodeProfile", "profiles.decode"),
            (&self.prefill_profile, "prefillProfile", "profiles.prefill"),
            (&self.encode_profile, "encodeProfile", "profiles.encode"),
            (
                &self.prefill_decider_plugin_name,
                "prefillDeciderPluginName",
                "deciders.prefill",
            ),
            (
                &self.encode_decider_plugin_name,
                "encodeDeciderPluginName",
                "deciders.encode",
            ),
            (&self.decider_plugin_name, "deciderPluginName", "deciders.prefill"),
        ]
        .into_iter()
        .filter_map(|(value, flat, nested)| value.is_some().then_some((flat, nested)))
    }
}

struct DisaggProfileHandler {
    order: StageOrder,
    decode: String,
    prefill: String,
    encode: String,
    prefill_decider: Option<Arc<dyn Decider>>,
    encode_decider: Option<Arc<dyn Decider>>,
    joint_candidates: usize,
    peer: AttributeKey<PeerEndpoint>,
    decisions: Decisions,
    /// The last request that was to prefill elsewhere found nobody.
    is_without_prefill: AtomicBool,
}

impl DisaggProfileHandler {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let parameters: Parameters = context.parameters()?;
        let flat: Vec<_> = parameters.flat().collect();
        let is_nested = parameters.profiles.is_some() || parameters.deciders.is_some();
        if let (true, Some((name, nested))) = (is_nested, flat.first()) {
            let reason = format!("cannot be mixed with profiles and deciders; use {nested}");
            return Err(BuildError::value(name, reason));
        }
        for (name, nested) in flat {
            context.warn_renamed(name, nested);
        }
        let Parameters {
            stage_order,
            profiles,
            deciders,
            joint_candidates,
            decode_profile,
            prefill_profile,
            encode_profile,
            prefill_decider_plugin_name,
            encode_decider_plugin_name,
            decider_plugin_name,
        } = parameters;
        let (profiles, deciders) = (profiles.unwrap_or_default(), deciders.unwrap_or_default());
        let named = |nested: Option<String>, flat: Option<String>, default: &str| {
            let name = nested.or(flat).filter(|name| !name.is_empty());
            name.unwrap_or_else(|| default.to_owned())
        };
        let prefill_decider = deciders
            .prefill
            .or(prefill_decider_plugin_name)
            .or(decider_plugin_name)
            .filter(|name| !name.is_empty());
        let encode_decider = deciders
            .encode
            .or(encode_decider_plugin_name)
            .filter(|name| !name.is_empty());
        let order = stage_order.unwrap_or_default();
        if order == StageOrder::PrefillFirst && prefill_decider.is_some() {
            let reason = "prefill always runs with stageOrder prefill-first; remove the decider";
            return Err(BuildError::value("deciders.prefill", reason));
        }
        if joint_candidates > MOST_JOINT {
            let reason = format!("must be at most {MOST_JOINT}");
            return Err(BuildError::value("jointCandidates", reason));
        }
        let mut decider =
            |field: &str, name: Option<String>| name.map(|name| context.decider(field, &name)).transpose();
        let prefill_decider = decider("deciders.prefill", prefill_decider)?;
        let encode_decider = decider("deciders.encode", encode_decider)?;
        let families = context.metrics(DisaggDecisions::register)?;
        Ok(Self {
            order,
            decode: named(profiles.decode, decode_profile, "decode"),
            prefill: named(profiles.prefill, prefill_profile, "prefill"),
            encode: named(profiles.encode, encode_profile, "encode"),
            prefill_decider,
            encode_decider,
            joint_candidates,
            peer: context.produces_for_all(PEER_ENDPOINT)?,
            decisions: Decisions::of_disagg(&families, context.name),
            is_without_prefill: AtomicBool::new(false),
        })
    }

    /// Says in the log when prefill begins to happen on decode endpoints for want of others, and when that ends: a line
    /// per change, not per request.
    fn tell_missing_prefill(&self, result: SchedulingResult<'_>) {
        let Some(run) = run_of(&self.prefill, result.profiles, result.runs) else {
            return;
        };
        let is_missing = run.picked.is_empty();
        if self.is_without_prefill.load(Ordering::Relaxed) == is_missing
            || self.is_without_prefill.swap(is_missing, Ordering::Relaxed) == is_missing
        {
            return;
        }
        let profile = &*self.prefill;
        if is_missing {
            tracing::warn!(
                profile,
                "no endpoint can prefill; decode endpoints do it themselves"
            );
        } else {
            tracing::info!(profile, "prefill happens on endpoints of its own again");
        }
    }

    /// Lets the next profile see the endpoint of the one before.
    fn publish(&self, cycle: &mut Cycle<'_>, endpoint: u32) {
        cycle.attributes.fill(self.peer, |peer, _| {
            peer.index = endpoint;
            true
        });
    }

    /// Whether a stage with a decider runs; not twice, and not without its profile.
    fn wants(
        decider: Option<&Arc<dyn Decider>>,
        name: &str,
        cycle: &Cycle<'_>,
        profiles: &[Arc<str>],
        runs: &[ProfileRun],
        decode: Option<u32>,
    ) -> Option<usize> {
        let stage = profile(name, profiles)?;
        let is_open = run_of(name, profiles, runs).is_none();
        (is_open && decider?.decide(cycle, decode)).then_some(stage)
    }

    /// The next stage.
    fn choose(&self, cycle: &mut Cycle<'_>, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Option<usize> {
        let decoding = run_of(&self.decode, profiles, runs);
        let decode = decoding.and_then(|run| run.picked.first().copied());
        let encode = || {
            Self::wants(
                self.encode_decider.as_ref(),
                &self.encode,
                cycle,
                profiles,
                runs,
                decode,
            )
        };
        match self.order {
            StageOrder::DecodeFirst => {
                if decoding.is_none() {
                    return profile(&self.decode, profiles);
                }
                // Nowhere to go: nothing else has to run.
                let endpoint = decode?;
                if let Some(encode) = encode() {
                    return Some(encode);
                }
                let prefill = Self::wants(
                    self.prefill_decider.as_ref(),
                    &self.prefill,
                    cycle,
                    profiles,
                    runs,
                    decode,
                )?;
                self.publish(cycle, endpoint);
                Some(prefill)
            }
            StageOrder::PrefillFirst => {
                let prefilling = run_of(&self.prefill, profiles, runs);
                if prefilling.is_none()
                    && let Some(prefill) = profile(&self.prefill, profiles)
                {
                    return Some(prefill);
                }
                if decoding.is_some() {
                    return None;
                }
                if let Some(encode) = encode() {
                    return Some(encode);
                }
                if let Some(endpoint) = prefilling.and_then(|run| run.picked.first()) {
                    self.publish(cycle, *endpoint);
                }
                profile(&self.decode, profiles)
            }
        }
    }
}

impl ProfileHandler for DisaggProfileHandler {
    fn next(&self, cycle: &mut Cycle<'_>, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Option<usize> {
        let span = spans::pick_disagg_profile(cycle).entered();
        let next = self.choose(cycle, profiles, runs);
        let stage = |index: usize| match &*profiles[index] {
            name if name == self.prefill => "prefill",
            name if name == self.encode => "encode",
            _ => "decode",
        };
        let decision = || {
            if let Some(index) = next {
                return format!("run_{}", stage(index));
            }
            let stages = Stages::of(&self.prefill, &self.encode, profiles, runs);
            format!("complete_{}", stages.label())
        };
        let decode_failed = run_of(&self.decode, profiles, runs).is_some_and(|run| run.picked.is_empty());
        spans::decided(&span, decision, decode_failed);
        next
    }

    fn primary(&self, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Result<usize, Rejection> {
        decoding(&self.decode, profiles, runs)
    }

    fn check(&self, profiles: &[Arc<str>]) -> Result<(), String> {
        if profile(&self.decode, profiles).is_some() {
            return Ok(());
        }
        Err(format!(
            "disagg-profile-handler needs the scheduling profile '{}'; add it or set parameters.profiles.decode",
            self.decode
        ))
    }

    fn rivals(&self) -> usize {
        self.joint_candidates
    }

    fn partner(&self, profiles: &[Arc<str>], runs: &[ProfileRun], next: usize) -> Option<usize> {
        let (first, second) = match self.order {
            StageOrder::DecodeFirst => (&self.decode, &self.prefill),
            StageOrder::PrefillFirst => (&self.prefill, &self.decode),
        };
        if *profiles[next] != **second {
            return None;
        }
        let is_first = |run: &ProfileRun| *profiles[run.profile] == **first && !run.picked.is_empty();
        runs.iter().position(is_first)
    }

    fn propose(&self, cycle: &mut Cycle<'_>, endpoint: u32) -> bool {
        self.publish(cycle, endpoint);
        match (self.order, &self.prefill_decider) {
            // One that holds the prompt may need no prefill: it is no half of a pair.
            (StageOrder::DecodeFirst, Some(decider)) => decider.decide(cycle, Some(endpoint)),
            _ => true,
        }
    }
}

impl PreRequest for DisaggProfileHandler {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        let stages = set_headers(cycle, result, &self.prefill, &self.encode, changes);
        self.tell_missing_prefill(result);
        self.decisions.count(&cycle.request.target_model, stages);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
