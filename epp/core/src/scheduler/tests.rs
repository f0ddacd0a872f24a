//! Whole decisions over small pools.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use llmd_epp_api::ResponseEnd;

use super::*;
use crate::config::assemble;
use crate::plugins::testing::{Pool, request};

mod burst;
mod interleavings;
mod steps;

fn scheduler_with(text: &str, env: BuildEnv) -> Scheduler {
    let decoded = EndpointPickerConfig::decode(text).unwrap();
    assemble(&decoded.config, env).unwrap().scheduler
}

fn scheduler(plugins_and_profiles: &str) -> Scheduler {
    let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{plugins_and_profiles}");
    scheduler_with(&text, BuildEnv::detached())
}

fn default_scheduler(env: BuildEnv) -> Scheduler {
    Scheduler::build(&EndpointPickerConfig::upstream_default(), env).unwrap()
}

/// A decision whose answer has begun.
fn begun(scheduler: &Scheduler, pool: &Pool, request: &InferenceRequest, subset: Option<&[u32]>) -> Decision {
    let mut decision = scheduler
        .schedule(pool.now, request, &pool.snapshot, subset)
        .unwrap();
    decision.on_first_chunk(pool.now);
    decision
}

fn name(decision: &Decision) -> &str {
    &decision.endpoints[0].name().name
}

fn requests(pool: &Pool) -> Vec<u64> {
    let endpoints = pool.snapshot.endpoints.iter();
    endpoints.map(|endpoint| endpoint.slot().requests()).collect()
}

fn page(registry: &prometheus::Registry) -> String {
    let mut text = String::new();
    let encoder = prometheus::TextEncoder::new();
    encoder.encode_utf8(&registry.gather(), &mut text).unwrap();
    text
}

#[test]
fn a_concurrent_burst_of_equal_scores_spreads_evenly() {
    let pool = Pool::of(10);
    let scheduler = default_scheduler(BuildEnv::detached());
    let (next, held) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 1000 {
                        return;
                    }
                    // Different from the first block on, so that no prefix is shared.
                    let request = request(&format!("{number} is a cold prompt"));
                    let decision = scheduler.schedule(pool.now, &request, &pool.snapshot, None);
                    held.lock().unwrap().push(decision.unwrap());
                }
            });
        }
    });
    assert_eq!(requests(&pool), [100; 10]);
    held.lock().unwrap().clear();
    assert_eq!(requests(&pool), [0; 10]);
}

#[test]
fn a_shared_prefix_sticks_and_other_prompts_spread() {
    let pool = Pool::of(10);
    let scheduler = default_scheduler(BuildEnv::detached());
    let shared = "You are a helpful assistant. ".repeat(200);
    let mut held = Vec::new();
    for number in 0..20 {
        let request = request(&format!("{shared}{number}"));
        held.push(begun(&scheduler, &pool, &request, None));
    }
    assert!(held.iter().all(|decision| name(decision) == name(&held[0])));
    let other = scheduler.schedule(pool.now, &request("something else"), &pool.snapshot, None);
    assert_ne!(name(&other.unwrap()), name(&held[0]));
}

#[test]
fn equal_seeds_give_equal_decisions() {
    let pool = Pool::of(7);
    let run = |seed| {
        let env = BuildEnv {
            seed,
            ..BuildEnv::detached()
        };
        let scheduler = default_scheduler(env);
        let picks = (0..40).map(|number| {
            let request = request(&format!("{number} prompt"));
            let decision = scheduler
                .schedule(pool.now, &request, &pool.snapshot, None)
                .unwrap();
            name(&decision).to_owned()
        });
        picks.collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn queue_cache_and_weights_decide() {
    let pool = Pool::of(3).waiting(0, 10).kv_usage(1, 0.5).kv_usage(2, 0.1);
    let env = BuildEnv {
        retain_scores: true,
        ..BuildEnv::detached()
    };
    let decision = default_scheduler(env)
        .schedule(pool.now, &pool.request, &pool.snapshot, None)
        .unwrap();
    assert_eq!(name(&decision), "e2");
    let scores: Vec<f64> = decision.scores().iter().map(|(_, score)| *score).collect();
    for (score, expected) in scores.iter().zip([2.0, 3.0, 3.8]) {
        assert!((score - expected).abs() < 1e-9, "{scores:?}");
    }
}

#[test]
fn a_subset_restricts_the_candidates() {
    let pool = Pool::of(4).waiting(3, 50);
    let scheduler = default_scheduler(BuildEnv::detached());
    let decision = scheduler.schedule(pool.now, &pool.request, &pool.snapshot, Some(&[3]));
    assert_eq!(name(&decision.unwrap()), "e3");
    for subset in [&[][..], &[4, 900]] {
        let rejection = scheduler
            .schedule(pool.now, &pool.request, &pool.snapshot, Some(subset))
            .unwrap_err();
        assert_eq!(
            rejection.body(),
            "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request"
        );
        assert_eq!(rejection.reason, Some(RejectReason::NoEndpoints));
    }
}

#[test]
fn filters_that_drain_the_profile_reject_as_contended() {
    let scheduler = scheduler(
        "plugins:
- {type: label-selector-filter, parameters: {matchLabels: {zone: a}}}
",
    );
    let pool = Pool::of(2);
    let rejection = scheduler
        .schedule(pool.now, &pool.request, &pool.snapshot, None)
        .unwrap_err();
    assert_eq!(rejection.code.http_status(), 429);
    assert_eq!(rejection.message, "no endpoints available for the given request");
    assert_eq!(rejection.reason, Some(RejectReason::Saturated));
    assert_eq!(requests(&pool), [0, 0]);
}

#[test]
fn only_sheddable_requests_are_shed_when_saturated() {
    let scheduler = default_scheduler(BuildEnv::detached());
    let mut pool = Pool::of(2).waiting(0, 5).waiting(1, 5);
    assert!(
        scheduler
            .schedule(pool.now, &pool.request, &pool.snapshot, None)
            .is_ok()
    );
    pool.request.objective.priority = -1;
    let rejection = scheduler
        .schedule(pool.now, &pool.request, &pool.snapshot, None)
        .unwrap_err();
    assert_eq!(
        rejection,
        Rejection::new(
            ErrorCode::ResourceExhausted,
            "system saturated, sheddable request dropped"
        )
    );
    let mut roomy = Pool::of(2).waiting(0, 5).waiting(1, 4);
    roomy.request.objective.priority = -1;
    assert!(
        scheduler
            .schedule(roomy.now, &roomy.request, &roomy.snapshot, None)
            .is_ok()
    );
}

#[test]
fn prefer_if_available_needs_a_cached_prefix_and_leaves_no_trace() {
    let scheduler = default_scheduler(BuildEnv::detached());
    let mut pool = Pool::of(2);
    pool.request
        .headers
        .push("Prefer", b"respond-async, if-available");
    for _ in 0..2 {
        let rejection = scheduler
            .schedule(pool.now, &pool.request, &pool.snapshot, None)
            .unwrap_err();
        assert_eq!(rejection.code.http_status(), 412);
        assert_eq!(requests(&pool), [0, 0]);
    }
    drop(begun(&scheduler, &pool, &request("hello"), None));
    assert!(
        scheduler
            .schedule(pool.now, &pool.request, &pool.snapshot, None)
            .is_ok()
    );
}

#[test]
fn hooks_follow_the_response_and_drop_releases_the_rest_once() {
    let scheduler = default_scheduler(BuildEnv::detached());
    let mut pool = Pool::of(1);
    pool.request = request(&"x".repeat(400));
    let load = |pool: &Pool| {
        let slot = pool.snapshot.endpoints[0].slot();
        (slot.requests(), slot.tokens())
    };
    let mut decision = scheduler
        .schedule(pool.now, &pool.request, &pool.snapshot, None)
        .unwrap();
    assert_eq!(load(&pool), (1, 100));
    decision.on_first_chunk(pool.now);
    decision.on_first_chunk(pool.now);
    assert_eq!(load(&pool), (1, 0));
    decision.on_complete(pool.now, &ResponseEnd::default());
    decision.on_complete(pool.now, &ResponseEnd::default());
    drop(decision);
    assert_eq!(load(&pool), (0, 0));
    // The prompt is cached now: only the tokens beyond it count.
    let again = scheduler
        .schedule(pool.now, &pool.request, &pool.snapshot, None)
        .unwrap();
    assert_eq!(load(&pool), (1, 0));
    drop(again);
    assert_eq!(load(&pool), (0, 0));
}

#[test]
fn cold_requests_go_round_with_the_lru_scorer() {
    let scheduler = scheduler("plugins:\n- type: no-hit-lru-scorer\n");
    let pool = Pool::of(4);
    let mut seen = Vec::new();
    for number in 0..8 {
        let request = request(&format!("{number} cold"));
        let decision = scheduler
            .schedule(pool.now, &request, &pool.snapshot, None)
            .unwrap();
        seen.push(name(&decision).to_owned());
    }
    assert_eq!(seen[..4], seen[4..], "the order of the first round repeats");
    seen[..4].sort();
    assert_eq!(seen[..4], ["e0", "e1", "e2", "e3"]);
}

#[test]
fn gone_endpoints_take_their_series_and_prefixes_along() {
    let env = BuildEnv::detached();
    let registry = env.registry.clone();
    let scheduler = default_scheduler(env);
    let pool = Pool::of(2);
    drop(begun(&scheduler, &pool, &pool.request, Some(&[0])));
    drop(begun(&scheduler, &pool, &pool.request, Some(&[1])));
    let before = page(&registry);
    assert!(before.contains("llm_d_epp_scheduler_attempts_total{endpoint_name=\"e0\",namespace=\"default\",port=\"8000\",status=\"success\",target_model_name=\"m\"} 1"), "{before}");
    assert!(before.contains("inference_extension_scheduler_attempts_total{namespace=\"default\",pod_name=\"e0\",port=\"8000\",status=\"success\",target_model_name=\"m\"} 1"), "{before}");
    scheduler.endpoints_changed(&Pool::of(1).snapshot);
    let after = page(&registry);
    assert!(
        after.contains("endpoint_name=\"e0\"") && !after.contains("endpoint_name=\"e1\""),
        "{after}"
    );
    assert!(
        after.contains("inference_extension_prefix_indexer_size 1"),
        "{after}"
    );
}

/// Each reading is a millisecond after the one before.
#[derive(Debug)]
struct Ticking(Instant, AtomicU32);

impl Clock for Ticking {
    fn now(&self) -> Instant {
        self.0 + Duration::from_millis(self.1.fetch_add(1, Ordering::Relaxed).into())
    }
}

#[test]
fn durations_and_failures_are_recorded_with_their_twins() {
    let pool = Pool::of(1);
    let env = BuildEnv {
        clock: Some(Arc::new(Ticking(pool.now, AtomicU32::new(0)))),
        ..BuildEnv::detached()
    };
    let registry = env.registry.clone();
    let scheduler = default_scheduler(env);
    drop(
        scheduler
            .schedule(pool.now, &pool.request, &pool.snapshot, None)
            .unwrap(),
    );
    scheduler
        .schedule(pool.now, &pool.request, &pool.snapshot, Some(&[]))
        .unwrap_err();
    let text = page(&registry);
    for prefix in ["llm_d_epp_", "inference_extension_"] {
        assert!(
            text.contains(&format!("{prefix}scheduler_e2e_duration_seconds_count 2")),
            "{text}"
        );
        let plugin = "plugin_duration_seconds_sum{extension_point=\"Scorer\",plugin_name=\"queue-scorer\",plugin_type=\"queue-scorer\"} 0.001";
        assert!(text.contains(&format!("{prefix}{plugin}")), "{text}");
    }
    let failure = "llm_d_epp_scheduler_attempts_total{endpoint_name=\"\",namespace=\"\",port=\"\",status=\"failure\",target_model_name=\"m\"} 1";
    assert!(text.contains(failure), "{text}");
    assert!(
        text.contains("# HELP llm_d_epp_plugin_duration_seconds [ALPHA] "),
        "{text}"
    );
}

#[test]
fn twins_can_be_switched_off() {
    let env = BuildEnv {
        deprecated_metrics: false,
        ..BuildEnv::detached()
    };
    let registry = env.registry.clone();
    let scheduler = default_scheduler(env);
    let pool = Pool::of(1);
    drop(
        scheduler
            .schedule(pool.now, &pool.request, &pool.snapshot, None)
            .unwrap(),
    );
    let text = page(&registry);
    assert!(
        text.contains("llm_d_epp_") && !text.contains("inference_extension_"),
        "{text}"
    );
}
