//! How long plans of fleets take on one core, and how far from the best they can be.

#![allow(clippy::print_stdout, reason = "the figures are what this is for")]

use std::time::Instant;

use llmd_wva_plan::fleet::{Model, Pool, Variant};
use llmd_wva_plan::{Fleet, Plan, solve};
use serde_json::json;

/// Pools that all models share.
const POOLS: usize = 6;
/// The shortest of so many times counts: others are the machine's.
const TIMES: usize = 3;

/// Models with variants of one to eight GPUs, and pools with this share of what the cheapest ones need.
fn fleet(models: usize, variants: usize, share: f64) -> Fleet {
    let mut random = fastrand::Rng::with_seed(1);
    let mut needed = [0.0; POOLS];
    let models = (0..models).map(|number| {
        let demand = 20.0 + 380.0 * random.f64();
        let variants: Vec<(usize, Variant)> = (0..variants)
            .map(|number| {
                let (pool, gpus) = (random.usize(..POOLS), [1, 2, 4, 8][random.usize(..4)]);
                let scale = f64::from(gpus);
                let variant = Variant {
                    name: format!("v{number}"),
                    pool: format!("p{pool}"),
                    gpus,
                    price: scale * (2.0 + 4.0 * random.f64()),
                    capacity: Some(scale * (6.0 + 8.0 * random.f64())),
                    engine: None,
                    slo: None,
                    current: 0,
                    min: 0,
                    max: None,
                    start_price: 0.0,
                    stop_price: 0.0,
                };
                (pool, variant)
            })
            .collect();
        let unit = |variant: &Variant| variant.price / variant.capacity.unwrap_or(f64::MIN_POSITIVE);
        let cheapest = variants.iter().min_by(|a, b| unit(&a.1).total_cmp(&unit(&b.1)));
        if let Some((pool, variant)) = cheapest {
            let replicas = (demand / variant.capacity.unwrap_or(demand)).ceil();
            needed[*pool] += replicas * f64::from(variant.gpus);
        }
        Model {
            name: format!("m{number}"),
            demand,
            target_utilization: 1.0,
            loss_per_unit: 20.0,
            variants: variants.into_iter().map(|(_, variant)| variant).collect(),
        }
    });
    let models = models.collect();
    let pools = needed.iter().enumerate().map(|(number, needed)| Pool {
        name: format!("p{number}"),
        gpus: (needed * share) as u32,
        price_factor: 1.0,
    });
    Fleet {
        horizon_hours: 1.0,
        pools: pools.collect(),
        models,
    }
}

/// The plan, and the milliseconds that it took.
fn timed(fleet: &Fleet) -> (Plan, f64) {
    let mut best = f64::INFINITY;
    let mut plan = None;
    for _ in 0..TIMES {
        let began = Instant::now();
        plan = solve(fleet).ok();
        best = best.min(began.elapsed().as_secs_f64() * 1e3);
    }
    (plan.expect("pools have room for no replicas at all"), best)
}

fn figure(name: &str, value: f64, unit: &str, budget: Option<f64>) {
    let note = "one core, the shortest of three; six pools, replicas of 1 to 8 GPUs, seed 1";
    println!(
        "figure: {}",
        json!({"name": name, "value": value, "unit": unit, "budget": budget, "note": note})
    );
}

fn main() {
    for (models, variants, budget) in [(100, 5, 5.0), (1000, 8, 70.0), (5000, 8, 300.0)] {
        let (plan, milliseconds) = timed(&fleet(models, variants, 0.85));
        let of = format!("planner: {models} models with {variants} variants");
        figure(&format!("{of}, one plan"), milliseconds, "ms", Some(budget));
        let most = (models >= 1000).then_some(0.1);
        figure(
            &format!("{of}, proven gap with 85 % of the need"),
            plan.gap * 100.0,
            "%",
            most,
        );
    }
    for share in [0.3, 0.5, 0.7] {
        let (plan, _) = timed(&fleet(1000, 8, share));
        let name = format!(
            "planner: 1000 models with 8 variants, proven gap with {:.0} % of the need",
            share * 100.0
        );
        figure(&name, plan.gap * 100.0, "%", Some(1.0));
    }
}
