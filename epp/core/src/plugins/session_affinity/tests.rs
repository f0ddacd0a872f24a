//! Both strategies, and what is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llmd_epp_api::plugin::{ProfileRun, SchedulingResult};
use llmd_epp_api::{ResponseHead, SessionId};
use serde_json::{Value, json};

use super::*;
use crate::plugins::filter::session_affinity_filter::PLUGIN;
use crate::plugins::testing::{Pool, Prepared, build, build_error, changes};

fn with_header(mut pool: Pool, name: &str, value: &str) -> Pool {
    pool.request.headers.push(name, value.as_bytes());
    pool
}

#[test]
fn a_token_of_the_client_keeps_its_endpoint() {
    let kept = |value: &str| {
        let pool = with_header(Pool::of(3), "x-session-token", value);
        pool.filtered(&*build(&PLUGIN, json!({})).filter.unwrap())
    };
    assert_eq!(kept(&STANDARD.encode("default/e1")), [1]);
    for other in ["", "?", &STANDARD.encode("default/e9"), &STANDARD.encode("e1")] {
        assert_eq!(kept(other), [0, 1, 2], "{other}");
    }
}

#[test]
fn the_response_names_the_endpoint_that_served() {
    let pool = Pool::of(3);
    let token = |parameters: Value, served: Option<&str>| {
        let plugin = build(&PLUGIN, parameters);
        let mut hooks = changes(&plugin, &pool, &[("prefill", &[0]), ("decode", &[2, 1])], 1).hooks;
        let mut set = Vec::new();
        for hook in &mut hooks {
            let mut head = ResponseHead::new(200, None);
            head.served = served;
            hook.on_headers(&head, &mut set);
        }
        let (name, value) = set.pop()?;
        Some((name.to_string(), STANDARD.decode(value).unwrap()))
    };
    let named = |header: &str, name: &[u8]| Some((header.to_owned(), name.to_vec()));
    assert_eq!(token(json!({}), None), named("x-session-token", b"default/e2"));
    assert_eq!(
        token(json!({}), Some("10.0.0.1:8000")),
        named("x-session-token", b"default/e1")
    );
    let header = json!({"encodedEndpointHeaderConfig": {"header": "X-Mine"}});
    assert_eq!(token(header, None), named("x-mine", b"default/e2"));
    let prefill = json!({"profileName": "prefill"});
    assert_eq!(token(prefill, None), named("x-session-token", b"default/e0"));
    assert_eq!(token(json!({"profileName": "encode"}), None), None);
}

fn send(plugin: &Plugin, pool: &Pool, picked: u32) {
    let runs = [ProfileRun {
        picked: vec![picked],
        ..ProfileRun::default()
    }];
    let profiles = ["default".into()];
    let result = SchedulingResult {
        profiles: &profiles,
        runs: &runs,
        primary: 0,
    };
    let reserve = plugin.reserve.as_ref().unwrap();
    pool.cycle(|cycle| reserve.reserve(cycle, result, &mut Vec::new()));
}

#[test]
fn a_session_stays_where_it_began_until_its_endpoint_is_gone_or_it_is_forgotten() {
    let plugin = build(&PLUGIN, json!({"strategy": "session_id"}));
    let filter = plugin.filter.clone().unwrap();
    let mut pool = with_header(Pool::of(3), "x-session-id", "s");
    assert_eq!(pool.filtered(&*filter), [0, 1, 2]);
    send(&plugin, &pool, 1);
    assert_eq!(pool.filtered(&*filter), [1]);
    send(&plugin, &pool, 2);
    assert_eq!(pool.filtered(&*filter), [1], "the first one stays bound");
    let other = with_header(Pool::of(3), "x-session-id", "t");
    assert_eq!(other.filtered(&*filter), [0, 1, 2]);

    pool.now += Duration::from_secs(300);
    assert_eq!(pool.filtered(&*filter), [1]);
    pool.now += Duration::from_secs(1);
    assert_eq!(pool.filtered(&*filter), [0, 1, 2], "forgotten");
    send(&plugin, &pool, 2);
    assert_eq!(pool.filtered(&*filter), [2]);

    let mut smaller = with_header(Pool::of(2), "x-session-id", "s");
    smaller.now = pool.now;
    assert_eq!(smaller.filtered(&*filter), [0, 1]);
    send(&plugin, &smaller, 0);
    assert_eq!(smaller.filtered(&*filter), [0], "bound anew");
    plugin.observer.unwrap().retain(&[pool.snapshot.slot_ids[1]]);
    assert_eq!(pool.filtered(&*filter), [0, 1, 2]);
}

#[test]
fn attributes_of_producers_name_sessions_too() {
    let parameters = json!({"strategy": "session_id", "sessionIdConfig": {"sources": [
        {"header": "X-First"}, {"attribute": "agent-identity"}]}});
    let pool = Pool::of(2);
    let session = SessionId {
        value: "s".to_owned(),
    };
    let prepared = Prepared::new(&PLUGIN, &parameters).with("agent-identity", "agent-identity", session);
    let bound = prepared.run(&pool, |plugin, cycle| {
        let runs = [ProfileRun {
            picked: vec![1],
            ..ProfileRun::default()
        }];
        let profiles = ["default".into()];
        let result = SchedulingResult {
            profiles: &profiles,
            runs: &runs,
            primary: 0,
        };
        plugin
            .reserve
            .as_ref()
            .unwrap()
            .reserve(cycle, result, &mut Vec::new());
        let mut candidates = vec![0, 1];
        let filter = plugin.filter.as_ref().unwrap();
        filter.filter(cycle, &mut candidates, &llmd_epp_api::Random::seeded(1));
        candidates
    });
    assert_eq!(bound, [1]);
}

#[test]
fn wrong_parameters_are_named() {
    let of_sessions = |config: Value| json!({"strategy": "session_id", "sessionIdConfig": config});
    for (parameters, field) in [
        (json!({"strategy": "cookie"}), "strategy"),
        (
            of_sessions(json!({"evictionTtlSeconds": 0})),
            "sessionIdConfig.evictionTtlSeconds",
        ),
        (
            of_sessions(json!({"evictionSweepSeconds": 0})),
            "sessionIdConfig.evictionSweepSeconds",
        ),
        (
            of_sessions(json!({"sources": [{}]})),
            "sessionIdConfig.sources[0].header",
        ),
        (
            of_sessions(json!({"sources": [{"header": "a", "attribute": "SessionID"}]})),
            "sessionIdConfig.sources[0].attribute",
        ),
        (
            of_sessions(json!({"sources": [{"header": "a"}, {"attribute": "Tokens"}]})),
            "sessionIdConfig.sources[1].attribute",
        ),
        (
            of_sessions(json!({"sources": [{"header": "a", "producer": "p"}]})),
            "sessionIdConfig.sources[0].producer",
        ),
    ] {
        let error = build_error(&PLUGIN, parameters);
        assert!(error.contains(field), "{field}: {error}");
    }
}
