//! Stages, deciders, headers and the parameters of both generations.

mod joint;
mod missing;

use std::sync::Arc;

use llmd_epp_api::attribute::PEER_ENDPOINT;
use llmd_epp_api::plugin::ProfileRun;
use llmd_epp_api::{Cycle, DataKey, ErrorCode, PeerEndpoint, RejectReason};

use super::{PLUGIN, TYPE};
use crate::config::{BuildEnv, EndpointPickerConfig, assemble};
use crate::plugins::testing::{Pool, build_in, state};
use crate::scheduler::{Decision, Scheduler};

const PROFILES: &str = "
- {type: decode-filter}
- {type: prefill-filter}
- {type: encode-filter}
schedulingProfiles:
- {name: encode, plugins: [{pluginRef: encode-filter}]}
- {name: prefill, plugins: [{pluginRef: prefill-filter}]}
- {name: decode, plugins: [{pluginRef: decode-filter}]}
";

fn try_scheduler(plugins: &str) -> Result<(Scheduler, Vec<String>, prometheus::Registry), String> {
    let text =
        format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}{PROFILES}");
    let env = BuildEnv::detached();
    let registry = env.registry.clone();
    let decoded = EndpointPickerConfig::decode(&text).map_err(|error| error.to_string())?;
    let assembly = assemble(&decoded.config, env).map_err(|error| error.to_string())?;
    Ok((assembly.scheduler, assembly.warnings, registry))
}

fn scheduler(plugins: &str) -> Scheduler {
    try_scheduler(plugins).unwrap().0
}

/// `e0` decodes, `e1` and `e2` prefill, `e3` encodes.
fn pool() -> Pool {
    let roles = ["decode", "prefill", "prefill", "encode"];
    roles.iter().enumerate().fold(Pool::of(4), |pool, (index, role)| {
        pool.label(index, "llm-d.ai/role", role)
    })
}

fn decide(scheduler: &Scheduler, pool: &Pool) -> Decision {
    scheduler
        .schedule(pool.now, &pool.request, &pool.snapshot, None)
        .unwrap()
}

fn stages(decision: &Decision) -> Vec<&str> {
    decision.profiles.iter().map(|profile| &*profile.name).collect()
}

fn header<'a>(decision: &'a Decision, name: &str) -> Option<&'a str> {
    let mut headers = decision.changes.set_headers.iter();
    let found = headers.find(|(header, _)| &**header == name);
    found.map(|(_, value)| value.as_str())
}

const ALWAYS: &str = "
- {type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider, encode: media}}}
- {type: always-disagg-pd-decider}
- {type: always-disagg-multimodal-decider, name: media}";

#[test]
fn decode_comes_first_and_the_deciders_say_what_follows() {
    let (scheduler, mut pool) = (scheduler(ALWAYS), pool());
    let text = decide(&scheduler, &pool);
    assert_eq!(stages(&text), ["decode", "prefill"]);
    assert_eq!(&*text.endpoints[0].name().name, "e0");
    let prefiller = header(&text, "x-prefiller-host-port").unwrap();
    assert!(
        ["10.0.0.1:8000", "10.0.0.2:8000"].contains(&prefiller),
        "{prefiller}"
    );
    assert_eq!(header(&text, "x-encoder-hosts-ports"), None);

    pool.request.facts.media_parts = 2;
    let picture = decide(&scheduler, &pool);
    assert_eq!(stages(&picture), ["decode", "encode", "prefill"]);
    assert_eq!(header(&picture, "x-encoder-hosts-ports"), Some("10.0.0.3:8000"));
}

#[test]
fn a_stage_that_finds_nothing_is_left_out_and_decode_is_needed() {
    let scheduler = scheduler(ALWAYS);
    let alone = Pool::of(1).label(0, "llm-d.ai/role", "decode");
    let decision = decide(&scheduler, &alone);
    assert_eq!(header(&decision, "x-prefiller-host-port"), None);

    let nobody = Pool::of(1).label(0, "llm-d.ai/role", "prefill");
    let rejection = scheduler
        .schedule(nobody.now, &nobody.request, &nobody.snapshot, None)
        .unwrap_err();
    assert_eq!(rejection.message, "failed to find available decode workers");
    assert_eq!(
        (rejection.code, rejection.reason),
        (ErrorCode::ResourceExhausted, Some(RejectReason::Saturated))
    );
}

#[test]
fn without_a_decider_only_decode_runs() {
    let decision = decide(&scheduler("\n- {type: disagg-profile-handler}"), &pool());
    assert_eq!(stages(&decision), ["decode"]);
}

#[test]
fn prefill_first_always_prefills() {
    let plugins = "
- {type: disagg-profile-handler, parameters: {stageOrder: prefill-first, deciders: {encode: media}}}
- {type: always-disagg-multimodal-decider, name: media}";
    let (scheduler, mut pool) = (scheduler(plugins), pool());
    assert_eq!(stages(&decide(&scheduler, &pool)), ["prefill", "decode"]);
    pool.request.facts.media_parts = 1;
    assert_eq!(
        stages(&decide(&scheduler, &pool)),
        ["prefill", "encode", "decode"]
    );

    let forbidden = plugins.replace("{encode: media}", "{prefill: media}");
    let error = try_scheduler(&forbidden).unwrap_err();
    assert!(
        error.contains("deciders.prefill") && error.contains("prefill-first"),
        "{error}"
    );
}

#[test]
fn flat_names_work_with_a_warning_and_cannot_be_mixed() {
    let plugins = "
- {type: disagg-profile-handler, parameters: {deciderPluginName: always-disagg-pd-decider}}
- {type: always-disagg-pd-decider}";
    let (scheduler, warnings, _) = try_scheduler(plugins).unwrap();
    assert_eq!(stages(&decide(&scheduler, &pool())), ["decode", "prefill"]);
    assert!(
        warnings
            .iter()
            .any(|line| line.contains("deciderPluginName") && line.contains("deciders.prefill")),
        "{warnings:?}"
    );
    let mixed = plugins.replace(
        "{deciderPluginName",
        "{profiles: {decode: decode}, deciderPluginName",
    );
    let error = try_scheduler(&mixed).unwrap_err();
    assert!(
        error.contains("deciderPluginName") && error.contains("mixed"),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let no_decider = "\n- {type: disagg-profile-handler, parameters: {deciders: {prefill: nobody}}}";
    let error = try_scheduler(no_decider).unwrap_err();
    assert!(
        error.contains("deciders.prefill") && error.contains("'nobody'"),
        "{error}"
    );
    let not_one = "\n- {type: disagg-profile-handler, parameters: {deciders: {prefill: decode-filter}}}";
    let error = try_scheduler(not_one).unwrap_err();
    assert!(error.contains("is not a decider"), "{error}");
    let no_profile = "\n- {type: disagg-profile-handler, parameters: {profiles: {decode: other}}}";
    let error = try_scheduler(no_profile).unwrap_err();
    assert!(error.contains("'other'"), "{error}");
}

#[test]
fn decisions_are_counted_under_both_names() {
    let (scheduler, _, registry) = try_scheduler(ALWAYS).unwrap();
    let mut pool = pool();
    drop(decide(&scheduler, &pool));
    pool.request.facts.media_parts = 1;
    drop(decide(&scheduler, &pool));
    let mut page = String::new();
    let families = registry.gather();
    prometheus::TextEncoder::new()
        .encode_utf8(&families, &mut page)
        .unwrap();
    for line in [
        "llm_d_epp_disagg_decision_total{decision_type=\"prefill-decode\",model_name=\"m\",plugin_name=\"disagg-profile-handler\",plugin_type=\"disagg-profile-handler\"} 1",
        "llm_d_epp_disagg_decision_total{decision_type=\"encode-prefill-decode\",model_name=\"m\",plugin_name=\"disagg-profile-handler\",plugin_type=\"disagg-profile-handler\"} 1",
        "llm_d_inference_scheduler_disagg_decision_total{decision_type=\"prefill-decode\",model_name=\"m\"} 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

#[test]
fn the_endpoint_of_the_profile_before_is_published() {
    let mut state = state();
    let parameters = serde_json::json!({"stageOrder": "prefill-first"});
    let handler = build_in(&mut state, &PLUGIN, &parameters)
        .unwrap()
        .profile_handler;
    let key = DataKey {
        attribute: PEER_ENDPOINT,
        producer: TYPE.into(),
    };
    let key = state.layout.resolve::<PeerEndpoint>(key).unwrap();
    let pool = pool();
    let mut attributes = state.layout.attributes();
    let mut cycle = Cycle {
        request: &pool.request,
        snapshot: &pool.snapshot,
        now: pool.now,
        attributes: &mut attributes,
    };
    let profiles: [Arc<str>; 2] = ["decode".into(), "prefill".into()];
    let prefilled = ProfileRun {
        profile: 1,
        picked: vec![2],
        ..ProfileRun::default()
    };
    let handler = handler.unwrap();
    assert_eq!(handler.next(&mut cycle, &profiles, &[]), Some(1));
    assert!(cycle.attributes.get(key).is_none());
    assert_eq!(handler.next(&mut cycle, &profiles, &[prefilled]), Some(0));
    assert_eq!(cycle.attributes.get(key).unwrap().index, 2);
}
