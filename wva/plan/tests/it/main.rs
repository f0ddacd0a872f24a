//! Plans of small fleets: the reference's worked examples, and every choice tried.

mod exhaustive;
mod optima;

use llmd_wva_plan::{Fleet, Plan, solve};

pub(crate) fn plan(text: &str) -> Plan {
    solve(&Fleet::read(text).expect("a fleet")).expect("a plan")
}

fn replicas(plan: &Plan) -> Vec<Vec<u32>> {
    let models = plan.models.iter();
    models
        .map(|model| model.variants.iter().map(|variant| variant.replicas).collect())
        .collect()
}

fn near(value: f64, expected: f64) {
    assert!(
        (value - expected).abs() < 1e-6 * expected.abs().max(1.0),
        "{value}, not {expected}"
    );
}

/// Greedy buys two of the largest for 80.
#[test]
fn the_rest_of_a_demand_is_bought_small() {
    let plan = plan(
        "
pools: [{name: h100, gpus: 64}, {name: l40s, gpus: 64}]
models:
- name: m
  demand: 56
  targetUtilization: 0.85
  variants:
  - {name: h100x4, pool: h100, gpus: 4, capacity: 52, price: 40}
  - {name: h100x2, pool: h100, gpus: 2, capacity: 24, price: 20}
  - {name: l40s, pool: l40s, gpus: 1, capacity: 7, price: 6.2}
",
    );
    near(plan.cost, 52.4);
    assert_eq!(replicas(&plan), [[1, 0, 2]]);
    assert!(plan.gap.abs() < 1e-9 && plan.models[0].missing.abs() < 1e-9);
}

/// Greedy gives chat the H100s that only vision can use.
#[test]
fn a_scarce_pool_goes_to_who_cannot_use_another() {
    let plan = plan(
        "
pools: [{name: h100, gpus: 8}, {name: a100, gpus: 8}]
models:
- name: chat
  demand: 100
  lossPerUnit: 20
  variants:
  - {name: h100, pool: h100, gpus: 1, capacity: 25, price: 10}
  - {name: a100, pool: a100, gpus: 1, capacity: 14, price: 6}
- name: vision
  demand: 90
  lossPerUnit: 20
  variants: [{name: h100x4, pool: h100, gpus: 4, capacity: 45, price: 40}]
",
    );
    near(plan.cost, 128.0);
    assert_eq!(replicas(&plan), [vec![0, 8], vec![2]]);
    assert!(
        plan.pools[0].shadow_price > 0.0,
        "one H100 more would help: {:?}",
        plan.pools
    );
}

#[test]
fn demand_is_missed_where_it_costs_least() {
    // Loss of 10 and of 1 times the share that is not served.
    let plan = plan(
        "
pools: [{name: gpu, gpus: 4}]
models:
- name: bulk
  demand: 400000
  lossPerUnit: 0.0000025
  variants: [{name: v, pool: gpu, gpus: 1, capacity: 50000, price: 0}]
- name: premium
  demand: 20000
  lossPerUnit: 0.0005
  variants: [{name: v, pool: gpu, gpus: 1, capacity: 20000, price: 0}]
",
    );
    near(plan.cost, 0.625);
    assert_eq!(replicas(&plan), [[3], [1]]);
}

#[test]
fn the_order_of_regret_is_not_the_order_of_the_best_plan() {
    for a100 in [16, 9] {
        let plan = plan(&format!(
            "
pools: [{{name: h100, gpus: 8}}, {{name: a100, gpus: {a100}}}]
models:
- name: s1
  demand: 1
  variants:
  - {{name: h, pool: h100, gpus: 5, capacity: 1, price: 50}}
  - {{name: a, pool: a100, gpus: 9, capacity: 1, price: 61}}
- name: s2
  demand: 1
  variants: &both
  - {{name: h, pool: h100, gpus: 4, capacity: 1, price: 40}}
  - {{name: a, pool: a100, gpus: 7, capacity: 1, price: 50}}
- name: s3
  demand: 1
  variants: *both
"
        ));
        near(plan.cost, 141.0);
        assert_eq!(replicas(&plan), [[0, 1], [1, 0], [1, 0]]);
    }
}

#[test]
fn replicas_are_exchanged_only_where_the_saving_pays_for_it() {
    let fleet = |hours: f64| {
        plan(&format!(
            "
horizonHours: {hours}
pools: [{{name: gpu, gpus: 16}}]
models:
- name: m
  demand: 60
  variants:
  - {{name: x, pool: gpu, gpus: 1, capacity: 30, price: 30, startPrice: 12}}
  - {{name: y, pool: gpu, gpus: 1, capacity: 22, price: 23, current: 3}}
"
        ))
    };
    assert_eq!(
        replicas(&fleet(1.0)),
        [[0, 3]],
        "69 are less than 60 and two starts"
    );
    assert_eq!(replicas(&fleet(4.0)), [[2, 0]]);
}

#[test]
fn bounds_hold_and_a_capacity_may_follow_from_objectives() {
    let plan = plan(
        "
pools: [{name: gpu, gpus: 16}]
models:
- name: m
  demand: 30
  variants:
  - name: v
    pool: gpu
    gpus: 1
    price: 10
    max: 2
    engine: {alpha: 8, beta: 0.02, gamma: 0.0001, input: 1000, output: 200, batch: 64, waiting: 128}
    slo: {ttftMs: 200, quantile: 0.99}
  - {name: dear, pool: gpu, gpus: 1, price: 100, capacity: 5, min: 1}
",
    );
    assert!((plan.models[0].variants[0].capacity - 11.3917).abs() < 1e-3);
    assert_eq!(replicas(&plan), [[2, 2]], "two of 11.39, and 7.2 more");
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let minimal = "pools: [{name: p, gpus: 1}]\nmodels: [{name: m, demand: 1, variants: [{name: v, pool: p, gpus: 1, price: 1, capacity: 1}]}]";
    assert!(Fleet::read(minimal).is_ok());
    for (from, to, expected) in [
        (
            "pool: p",
            "pool: q",
            "models[0].variants[0].pool is q: name one of pools[].name",
        ),
        (
            "capacity: 1",
            "capacity: 0",
            "models[0].variants[0].capacity is 0: use a number above 0",
        ),
        (", capacity: 1", "", "give capacity, or engine and slo"),
        ("demand: 1", "demand: -1", "models[0].demand is -1"),
        ("demand: 1", "demands: 1", "models[0]: unknown field `demands`"),
        (
            "gpus: 1, price",
            "gpus: 0, price",
            "models[0].variants[0].gpus is 0",
        ),
        ("demand: 1", "demand: 1, targetUtilization: 1.5", "at most 1"),
    ] {
        let error = Fleet::read(&minimal.replace(from, to)).expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let full = minimal.replace("capacity: 1", "capacity: 1, min: 2");
    let error = solve(&Fleet::read(&full).expect("a fleet"))
        .expect_err("does not fit")
        .to_string();
    assert!(error.contains("lower min"), "{error}");
}

/// Searches are cut off, and say so by a gap.
#[test]
fn a_demand_of_many_replicas_ends_with_a_bound() {
    let variants: Vec<String> = (0..8)
        .map(|number| {
            format!(
                "  - {{name: v{number}, pool: p, gpus: 1, capacity: {}, price: {}}}",
                7 + number,
                10 + number
            )
        })
        .collect();
    let plan = plan(&format!(
        "pools: [{{name: p, gpus: 100000}}]\nmodels:\n- name: m\n  demand: 100000\n  variants:\n{}",
        variants.join("\n")
    ));
    assert!(plan.models[0].missing.abs() < 1e-9 && plan.bound > 0.0);
    assert!(
        plan.bound <= plan.cost && plan.gap < 0.001,
        "{} of {}",
        plan.gap,
        plan.cost
    );
}
