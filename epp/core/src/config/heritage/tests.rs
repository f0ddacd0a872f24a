//! A configuration that replaces another one.

use std::sync::Arc;

use super::*;
use crate::config::{Assembly, BuildEnv, assemble};
use crate::plugins::testing::{Pool, request};
use crate::scheduler::Decision;

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
const PREFIX: &str = "plugins:
- {type: approx-prefix-cache-producer, parameters: {lruCapacityPerServer: 500}}
- {type: prefix-cache-scorer}
- {type: no-hit-lru-scorer}
";

fn first(body: &str, registry: &prometheus::Registry) -> Assembly {
    let env = BuildEnv {
        registry: registry.clone(),
        ..BuildEnv::detached()
    };
    built(body, env)
}

fn next(body: &str, before: &Assembly) -> Assembly {
    let env = BuildEnv {
        predecessor: Some(Arc::clone(&before.heritage)),
        ..BuildEnv::detached()
    };
    built(body, env)
}

fn built(body: &str, env: BuildEnv) -> Assembly {
    let decoded = EndpointPickerConfig::decode(&format!("{HEAD}{body}")).unwrap();
    assemble(&decoded.config, env).unwrap()
}

/// A decision whose answer has begun.
fn decide(assembly: &Assembly, pool: &Pool, prompt: &str) -> Decision {
    let request = request(prompt);
    let decision = assembly
        .scheduler
        .schedule(pool.now, &request, &pool.snapshot, None);
    let mut decision = decision.unwrap();
    decision.on_first_chunk(pool.now);
    decision
}

fn name(decision: &Decision) -> String {
    decision.endpoints[0].name().name.to_string()
}

fn carried(assembly: &Assembly) -> Vec<&str> {
    assembly.carried.iter().map(|name| &**name).collect()
}

#[test]
fn what_was_learned_outlives_a_change_of_other_plugins() {
    let pool = Pool::of(6);
    let registry = prometheus::Registry::new();
    let before = first(PREFIX, &registry);
    let prompt = "a long prompt that fills some blocks ".repeat(40);
    let sent = name(&decide(&before, &pool, &prompt));
    // Another scorer before the ones that stay: every index into the configuration moves.
    let more = format!(
        "plugins:\n- {{type: queue-scorer}}\n{}",
        &PREFIX["plugins:\n".len()..]
    );
    let after = next(&more, &before);
    assert!(
        carried(&after).contains(&"approx-prefix-cache-producer"),
        "{after:?}"
    );
    assert!(
        carried(&after).contains(&"prefix-cache-scorer") && carried(&after).contains(&"no-hit-lru-scorer")
    );
    assert!(!carried(&after).contains(&"queue-scorer"));
    for _ in 0..5 {
        assert_eq!(name(&decide(&after, &pool, &prompt)), sent, "the prefix is known");
    }
    // And once more, with the first order again.
    let third = next(PREFIX, &after);
    assert_eq!(name(&decide(&third, &pool, &prompt)), sent);
}

#[test]
fn an_instance_with_other_parameters_starts_from_nothing() {
    let pool = Pool::of(2);
    let before = first(PREFIX, &prometheus::Registry::new());
    let prompt = "a long prompt that fills some blocks ".repeat(40);
    let sent = name(&decide(&before, &pool, &prompt));
    let after = next(&PREFIX.replace("500", "501"), &before);
    assert!(!carried(&after).contains(&"approx-prefix-cache-producer"));
    assert!(
        carried(&after).contains(&"prefix-cache-scorer"),
        "its key is where it was"
    );
    // Without a hit the least recently used endpoint wins, which the scorer that went on still knows.
    assert_ne!(name(&decide(&after, &pool, &prompt)), sent);
}

#[test]
fn load_that_the_old_configuration_booked_is_seen_and_given_back() {
    let pool = Pool::of(2);
    let registry = prometheus::Registry::new();
    let before = first("plugins: [{type: active-request-scorer}]\n", &registry);
    let held = decide(&before, &pool, "x");
    let after = next("plugins: [{type: active-request-scorer, name: other}]\n", &before);
    let second = decide(&after, &pool, "x");
    assert_ne!(name(&held), name(&second), "the load is seen");
    drop(before);
    let load = || {
        pool.snapshot
            .endpoints
            .iter()
            .map(|e| e.slot().requests())
            .sum::<u64>()
    };
    assert_eq!(load(), 2);
    drop((held, second));
    assert_eq!(load(), 0);
}

#[test]
fn metrics_go_on_in_the_same_series() {
    let pool = Pool::of(1);
    let registry = prometheus::Registry::new();
    let before = first(PREFIX, &registry);
    drop(decide(&before, &pool, "x"));
    let after = next(PREFIX, &before);
    drop(decide(&after, &pool, "x"));
    let families = registry.gather();
    let attempts = families
        .iter()
        .find(|f| f.name() == "llm_d_epp_scheduler_attempts_total")
        .unwrap();
    assert_eq!(attempts.get_metric()[0].get_counter().get_value(), 2.0);
}

#[test]
fn a_wrong_successor_changes_nothing() {
    let registry = prometheus::Registry::new();
    let before = first(PREFIX, &registry);
    let pool = Pool::of(4);
    let prompt = "a long prompt that fills some blocks ".repeat(40);
    let sent = name(&decide(&before, &pool, &prompt));
    let text = format!(
        "{HEAD}{PREFIX}- {{type: prefix-cache-scorer, name: b, parameters: {{prefixMatchInfoProducerName: nobody}}}}\n"
    );
    let decoded = EndpointPickerConfig::decode(&text).unwrap();
    let env = BuildEnv {
        predecessor: Some(Arc::clone(&before.heritage)),
        ..BuildEnv::detached()
    };
    let error = assemble(&decoded.config, env)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("unregistered plugin nobody"), "{error}");
    assert_eq!(name(&decide(&before, &pool, &prompt)), sent);
}
