//! The choice of prefill and decode as one.

use llmd_epp_api::Random;

use super::{Decision, Pool, Scheduler, decide, header, pool as roles, scheduler, stages, try_scheduler};
use crate::config::{BuildEnv, EndpointPickerConfig};

/// The first stage scores room, the second one room and nearness to the first.
fn joint(order: &str, candidates: usize) -> Scheduler {
    let (decider, first, second) = match order {
        "decode-first" => (
            "deciders: {prefill: always-disagg-pd-decider}, ",
            "decode",
            "prefill",
        ),
        _ => ("", "prefill", "decode"),
    };
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: disagg-profile-handler, parameters: {{stageOrder: {order}, {decider}jointCandidates: {candidates}}}}}
- {{type: always-disagg-pd-decider}}
- {{type: decode-filter}}
- {{type: prefill-filter}}
- {{type: kv-cache-utilization-scorer}}
- {{type: topology-affinity-scorer}}
- {{type: topology-extractor}}
schedulingProfiles:
- name: {first}
  plugins: [{{pluginRef: {first}-filter}}, {{pluginRef: kv-cache-utilization-scorer}}]
- name: {second}
  plugins:
  - {{pluginRef: {second}-filter}}
  - {{pluginRef: kv-cache-utilization-scorer}}
  - {{pluginRef: topology-affinity-scorer}}
"
    );
    let decoded = EndpointPickerConfig::decode(&text).unwrap();
    let env = BuildEnv {
        allow_experimental: true,
        ..BuildEnv::detached()
    };
    Scheduler::build(&decoded.config, env).unwrap()
}

/// Endpoints by role, host and use of the KV cache.
fn pool(members: &[(&str, &str, f64)]) -> Pool {
    let empty = Pool::of(members.len());
    let members = members.iter().enumerate();
    members.fold(empty, |pool, (index, (role, host, usage))| {
        pool.label(index, "llm-d.ai/role", role)
            .label(index, "kubernetes.io/hostname", host)
            .kv_usage(index, *usage)
    })
}

/// Indices of the decode endpoint, and of the prefill endpoint where there is one.
fn chosen(decision: &Decision, pool: &Pool) -> (usize, Option<usize>) {
    let index = |address: &str| {
        let mut endpoints = pool.snapshot.endpoints.iter();
        endpoints
            .position(|endpoint| &**endpoint.target() == address)
            .unwrap()
    };
    let prefill = header(decision, "x-prefiller-host-port").map(index);
    (index(decision.endpoints[0].target()), prefill)
}

fn pair(scheduler: &Scheduler, pool: &Pool) -> (usize, Option<usize>) {
    chosen(&decide(scheduler, pool), pool)
}

/// The emptiest decode engine is on a host without a prefill engine, the second one beside it.
const SPLIT: [(&str, &str, f64); 3] = [("decode", "a", 0.1), ("decode", "b", 0.2), ("prefill", "b", 0.0)];

#[test]
fn the_best_pair_is_not_always_the_best_of_each() {
    let pool = pool(&SPLIT);
    assert_eq!(pair(&joint("decode-first", 0), &pool), (0, Some(2)));
    assert_eq!(pair(&joint("decode-first", 8), &pool), (1, Some(2)));
    // The only one that is tried is the one that decode picked.
    assert_eq!(pair(&joint("decode-first", 1), &pool), (0, Some(2)));
}

#[test]
fn prefill_first_chooses_pairs_too() {
    let split = SPLIT.map(|(role, host, usage)| match role {
        "decode" => ("prefill", host, usage),
        _ => ("decode", host, usage),
    });
    assert_eq!(pair(&joint("prefill-first", 0), &pool(&split)), (2, Some(0)));
    assert_eq!(pair(&joint("prefill-first", 8), &pool(&split)), (2, Some(1)));
}

#[test]
fn without_the_other_side_decode_keeps_its_pick() {
    let alone = pool(&SPLIT[..2]);
    let decision = decide(&joint("decode-first", 8), &alone);
    assert_eq!(chosen(&decision, &alone), (0, None));
    assert_eq!(stages(&decision), ["decode", "prefill"]);
    let mut profiles = decision.profiles.iter();
    assert!(
        profiles.all(|profile| profile.scores.is_empty()),
        "scores are kept where they are asked for only"
    );
}

#[test]
fn no_pair_has_a_higher_sum_than_the_chosen_one() {
    let random = Random::seeded(7);
    let (together, apart) = (joint("decode-first", 64), joint("decode-first", 0));
    let mut differences = 0;
    for _ in 0..300 {
        let members: Vec<(&str, &str, f64)> = (0..8)
            .map(|index| {
                let role = if index < 4 { "decode" } else { "prefill" };
                (role, ["a", "b", "c"][random.below(3)], random.unit())
            })
            .collect();
        let sum = |decode: usize, prefill: usize| {
            let near = if members[decode].1 == members[prefill].1 {
                1.0
            } else {
                0.0
            };
            (1.0 - members[decode].2) + (1.0 - members[prefill].2) + near
        };
        let pool = pool(&members);
        let (decode, prefill) = pair(&together, &pool);
        let pairs = (0..4).flat_map(|decode| (4..8).map(move |prefill| (decode, prefill)));
        let best = pairs
            .map(|(decode, prefill)| sum(decode, prefill))
            .fold(0.0, f64::max);
        let found = sum(decode, prefill.unwrap());
        assert!((best - found).abs() < 1e-9, "{members:?}: {found}, not {best}");
        differences += u32::from(pair(&apart, &pool) != (decode, prefill));
    }
    assert!(
        differences > 30,
        "the pools must tell the two ways apart: {differences}"
    );
}

#[test]
fn equal_pairs_share_the_requests() {
    let members = [("decode", "a", 0.5), ("decode", "a", 0.5), ("prefill", "a", 0.5)];
    let (scheduler, pool) = (joint("decode-first", 8), pool(&members));
    let firsts = (0..200).filter(|_| pair(&scheduler, &pool).0 == 0).count();
    assert!((50..150).contains(&firsts), "{firsts} of 200");
}

#[test]
fn a_decider_that_wants_no_prefill_ends_the_choice() {
    let plugins = "
- {type: disagg-profile-handler, parameters: {jointCandidates: 4, deciders: {prefill: media}}}
- {type: always-disagg-multimodal-decider, name: media}";
    let (scheduler, mut pool) = (scheduler(plugins), roles());
    assert_eq!(stages(&decide(&scheduler, &pool)), ["decode"]);
    pool.request.facts.media_parts = 1;
    assert_eq!(stages(&decide(&scheduler, &pool)), ["decode", "prefill"]);
}

#[test]
fn the_work_under_the_lock_is_bounded() {
    let plugins = "\n- {type: disagg-profile-handler, parameters: {jointCandidates: 65}}";
    let error = try_scheduler(plugins).unwrap_err();
    assert!(
        error.contains("jointCandidates") && error.contains("at most 64"),
        "{error}"
    );
}
