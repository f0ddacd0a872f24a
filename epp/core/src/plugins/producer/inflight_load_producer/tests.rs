//! Unit tests of in-flight accounting.

use llmd_epp_api::plugin::ProfileRun;
use llmd_epp_api::registry::BuildState;
use serde_json::json;

use super::*;
use crate::plugins::testing::{Pool, build_error, build_in, request};

/// Books 400 bytes of text (100 tokens) on endpoint 0 (`default`) and endpoint 1 (`prefill`).
fn booked(
    parameters: serde_json::Value,
    max_output: Option<u64>,
) -> (Pool, Vec<Box<dyn ResponseHook>>, String) {
    let registry = prometheus::Registry::new();
    let mut state = BuildState::new(MetricsScope::new(registry.clone(), true));
    let plugin = build_in(&mut state, &PLUGIN, &parameters).unwrap();
    let mut attributes = state.layout.attributes();
    let mut pool = Pool::of(2);
    pool.request = request(&"x".repeat(400));
    pool.request.facts.max_output_tokens = max_output;
    let mut cycle = Cycle {
        request: &pool.request,
        snapshot: &pool.snapshot,
        now: pool.now,
        attributes: &mut attributes,
    };
    plugin.producer.as_ref().unwrap().produce(&mut cycle, &[0, 1]);
    let run = |profile, index| ProfileRun {
        profile,
        picked: vec![index],
        ..ProfileRun::default()
    };
    let (profiles, runs) = (["default".into(), "prefill".into()], [run(0, 0), run(1, 1)]);
    let result = SchedulingResult {
        profiles: &profiles,
        runs: &runs,
        primary: 0,
    };
    let mut hooks = Vec::new();
    plugin
        .reserve
        .as_ref()
        .unwrap()
        .reserve(&cycle, result, &mut hooks);
    let mut page = String::new();
    prometheus::TextEncoder::new()
        .encode_utf8(&registry.gather(), &mut page)
        .unwrap();
    (pool, hooks, page)
}

fn load(pool: &Pool, index: usize) -> (u64, u64) {
    let slot = pool.snapshot.endpoints[index].slot();
    (slot.requests(), slot.tokens())
}

#[test]
fn tokens_end_with_the_first_chunk_and_the_request_with_the_response() {
    let (pool, mut hooks, page) = booked(json!({}), None);
    assert_eq!((load(&pool, 0), load(&pool, 1)), ((1, 100), (1, 100)));
    let labels = "{endpoint_name=\"e0\",fairness_id=\"default-flow\",namespace=\"default\",priority=\"0\",producer_name=\"inflight-load-producer\"}";
    assert!(
        page.contains(&format!("llm_d_epp_inflight_requests{labels} 1")),
        "{page}"
    );
    assert!(
        page.contains(&format!("llm_d_epp_inflight_tokens{labels} 100")),
        "{page}"
    );
    for hook in &mut hooks {
        hook.on_first_chunk(pool.now);
    }
    assert_eq!((load(&pool, 0), load(&pool, 1)), ((1, 0), (0, 0)));
    for hook in &mut hooks {
        hook.on_complete(pool.now, &ResponseEnd::default(), &mut Vec::new());
    }
    drop(hooks);
    assert_eq!((load(&pool, 0), load(&pool, 1)), ((0, 0), (0, 0)));
}

#[test]
fn an_output_estimate_is_held_to_the_end() {
    let (pool, mut hooks, _) = booked(json!({"addEstimatedOutputTokens": true}), None);
    assert_eq!(load(&pool, 0), (1, 250));
    for hook in &mut hooks {
        hook.on_first_chunk(pool.now);
    }
    assert_eq!((load(&pool, 0), load(&pool, 1)), ((1, 250), (0, 0)));
    drop(hooks);
    assert_eq!(load(&pool, 0), (0, 0));
}

#[test]
fn output_caps_bound_the_estimate() {
    let tokens = |parameters, cap| load(&booked_pool(parameters, cap).0, 0).1;
    assert_eq!(
        tokens(
            json!({"addEstimatedOutputTokens": true, "maxEstimatedOutputTokens": 20}),
            None
        ),
        120
    );
    assert_eq!(
        tokens(
            json!({"addEstimatedOutputTokens": true, "maxEstimatedOutputTokens": 20}),
            Some(7)
        ),
        107
    );
    assert_eq!(
        tokens(
            json!({"addEstimatedOutputTokens": true, "outputRatio": 0.5}),
            Some(7000)
        ),
        150
    );
}

fn booked_pool(parameters: serde_json::Value, cap: Option<u64>) -> (Pool, Vec<Box<dyn ResponseHook>>) {
    let (pool, hooks, _) = booked(parameters, cap);
    (pool, hooks)
}

#[test]
fn an_abort_at_once_gives_everything_back() {
    let (pool, hooks, _) = booked(json!({}), None);
    drop(hooks);
    assert_eq!((load(&pool, 0), load(&pool, 1)), ((0, 0), (0, 0)));
}

#[test]
fn wrong_parameters_are_refused_by_name() {
    assert!(build_error(&PLUGIN, json!({"outputRatio": -1})).contains("outputRatio"));
    assert!(build_error(&PLUGIN, json!({"outputratio": 1})).contains("outputratio"));
}
