//! Windows, tickets and what scorers see.

use serde_json::{Value, json};

use super::*;
use crate::config::{BuildEnv, EndpointPickerConfig, assemble};
use crate::plugins::testing::{Pool, build_error, request};
use crate::scheduler::Scheduler;

fn scheduler(parameters: &Value) -> Scheduler {
    let config = json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": TYPE, "name": "burst", "parameters": parameters},
            {"type": "prefix-cache-scorer", "parameters": {"prefixMatchInfoProducerName": "burst"}},
            {"type": "queue-scorer"},
        ],
        "schedulingProfiles": [{"name": "default", "plugins": [
            {"pluginRef": "prefix-cache-scorer", "weight": 3},
            {"pluginRef": "queue-scorer"},
        ]}],
    });
    let decoded = EndpointPickerConfig::decode(&config.to_string()).unwrap();
    let env = BuildEnv {
        allow_experimental: true,
        ..BuildEnv::detached()
    };
    assemble(&decoded.config, env).unwrap().scheduler
}

/// Where requests with these prompts go when they come at once; held until all are scheduled.
fn burst(scheduler: &Scheduler, pool: &Pool, prompts: &[&str]) -> Vec<String> {
    let gathered = prompts.iter().map(|prompt| {
        let mut request = request(prompt);
        let due = scheduler.gather(pool.now, &mut request, &pool.snapshot);
        (request, due)
    });
    let gathered: Vec<_> = gathered.collect();
    let decided = gathered.iter().map(|(request, due)| {
        let now = due.unwrap_or(pool.now);
        scheduler.schedule(now, request, &pool.snapshot, None).unwrap()
    });
    let held: Vec<_> = decided.collect();
    held.iter()
        .map(|decision| decision.endpoints[0].name().name.to_string())
        .collect()
}

#[test]
fn requests_with_one_prompt_share_an_endpoint() {
    let (scheduler, pool) = (scheduler(&json!({})), Pool::of(4));
    let (one, other) = ("one prompt", "another prompt");
    let picks = burst(&scheduler, &pool, &[one, other, one, other, one, other]);
    assert_eq!(picks[0], picks[2]);
    assert_eq!(picks[0], picks[4]);
    assert_eq!(picks[1], picks[3]);
    assert_eq!(picks[1], picks[5]);
    assert_ne!(picks[0], picks[1], "groups are spread");
}

#[test]
fn the_limit_per_replica_spreads_a_group() {
    let (scheduler, pool) = (scheduler(&json!({"maxPerReplica": 2})), Pool::of(4));
    let mut picks = burst(&scheduler, &pool, &["one prompt"; 8]);
    picks.sort();
    assert_eq!(picks, ["e0", "e0", "e1", "e1", "e2", "e2", "e3", "e3"]);
}

#[test]
fn a_window_ends_and_the_next_request_opens_another() {
    let (scheduler, pool) = (scheduler(&json!({"windowDurationMs": 250})), Pool::of(2));
    let due = |after: u64| {
        let now = pool.now + Duration::from_millis(after);
        let due = scheduler.gather(now, &mut request("a prompt"), &pool.snapshot);
        due.map(|due| due.duration_since(pool.now).as_millis())
    };
    assert_eq!(due(0), Some(250));
    assert_eq!(due(249), Some(250));
    assert_eq!(due(250), Some(500));
    let empty = scheduler.gather(pool.now, &mut request(""), &pool.snapshot);
    assert_eq!(empty, None, "nothing to share");
    let nowhere = scheduler.gather(pool.now, &mut request("a prompt"), &Pool::of(0).snapshot);
    assert_eq!(nowhere, None, "nowhere to go");
}

#[test]
fn requests_beyond_the_batch_do_not_wait() {
    let (scheduler, pool) = (scheduler(&json!({"maxBatchSize": 2})), Pool::of(2));
    let waits = || {
        let due = scheduler.gather(pool.now, &mut request("a prompt"), &pool.snapshot);
        due.is_some()
    };
    assert_eq!([waits(), waits(), waits()], [true, true, false]);
}

#[test]
fn an_assigned_endpoint_that_is_gone_is_no_affinity() {
    let (scheduler, pool) = (scheduler(&json!({})), Pool::of(2));
    let mut requests = [request("a prompt"), request("a prompt")];
    let due = requests
        .each_mut()
        .map(|request| scheduler.gather(pool.now, request, &pool.snapshot).unwrap());
    let first = scheduler
        .schedule(due[0], &requests[0], &pool.snapshot, None)
        .unwrap();
    let left = u32::from(&*first.endpoints[0].name().name == "e0");
    let second = scheduler
        .schedule(due[1], &requests[1], &pool.snapshot, Some(&[left]))
        .unwrap();
    assert_ne!(first.endpoints[0].name(), second.endpoints[0].name());
}

#[test]
fn wrong_parameters_are_named() {
    for (field, value) in [
        ("windowDurationMs", json!(0)),
        ("windowDurationMs", json!(10_001)),
        ("maxPerReplica", json!(0)),
        ("maxBatchSize", json!(-2)),
        ("blockSizeTokens", json!(0)),
        ("balanceBy", json!("bytes")),
    ] {
        let error = build_error(&PLUGIN, json!({field: value}));
        assert!(error.contains(field), "{error}");
    }
}
