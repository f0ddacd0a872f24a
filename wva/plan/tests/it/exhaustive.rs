//! Random small fleets against every choice there is, and larger ones against the bound.

use llmd_wva_plan::Fleet;
use llmd_wva_plan::fleet::{Model, Pool, Variant};

/// Fleets of 1 to 4 models with 1 to 3 variants in 1 to 2 pools, often scarce.
fn fleet(random: &mut fastrand::Rng) -> Fleet {
    let pools: Vec<Pool> = (0..random.usize(1..3))
        .map(|number| Pool {
            name: format!("p{number}"),
            gpus: random.u32(0..9),
            price_factor: 1.0,
        })
        .collect();
    let models = (0..random.usize(1..5)).map(|number| Model {
        name: format!("m{number}"),
        demand: f64::from(random.u32(0..40)),
        target_utilization: 1.0,
        loss_per_unit: f64::from(random.u32(1..30)),
        variants: (0..random.usize(1..4))
            .map(|number| Variant {
                name: format!("v{number}"),
                pool: pools[random.usize(..pools.len())].name.clone(),
                gpus: random.u32(1..4),
                price: f64::from(random.u32(1..40)),
                capacity: Some(f64::from(random.u32(1..20))),
                engine: None,
                slo: None,
                current: random.u32(0..3),
                min: 0,
                max: random.bool().then(|| random.u32(0..4)),
                start_price: f64::from(random.u32(0..10)),
                stop_price: f64::from(random.u32(0..10)),
            })
            .collect(),
    });
    Fleet {
        horizon_hours: 1.0,
        models: models.collect(),
        pools: pools.clone(),
    }
}

/// Tries all replicas of all variants.
fn cheapest(fleet: &Fleet, model: usize, left: &[u32]) -> f64 {
    let Some(one) = fleet.models.get(model) else {
        return 0.0;
    };
    let mut best = f64::INFINITY;
    variants(
        fleet,
        one,
        0,
        left,
        (0.0, one.demand),
        &mut |left, spent, missing| {
            let own = spent + missing.max(0.0) * one.loss_per_unit;
            best = best.min(own + cheapest(fleet, model + 1, left));
        },
    );
    best
}

fn variants(
    fleet: &Fleet,
    model: &Model,
    index: usize,
    left: &[u32],
    (spent, missing): (f64, f64),
    take: &mut dyn FnMut(&[u32], f64, f64),
) {
    let Some(variant) = model.variants.get(index) else {
        return take(left, spent, missing);
    };
    let pool = fleet
        .pools
        .iter()
        .position(|pool| pool.name == variant.pool)
        .expect("there");
    for replicas in 0..=(left[pool] / variant.gpus).min(variant.max.unwrap_or(u32::MAX)) {
        let mut left = left.to_vec();
        left[pool] -= replicas * variant.gpus;
        let changes = f64::from(replicas.saturating_sub(variant.current)) * variant.start_price
            + f64::from(variant.current.saturating_sub(replicas)) * variant.stop_price;
        let cost = f64::from(replicas) * variant.price + changes;
        let served = f64::from(replicas) * variant.capacity.expect("given");
        variants(
            fleet,
            model,
            index + 1,
            &left,
            (spent + cost, missing - served),
            take,
        );
    }
}

#[test]
fn no_choice_is_cheaper_and_the_bound_is_below() {
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..400 {
        let fleet = fleet(&mut random);
        let plan = llmd_wva_plan::solve(&fleet).expect("a plan");
        let left: Vec<u32> = fleet.pools.iter().map(|pool| pool.gpus).collect();
        let best = cheapest(&fleet, 0, &left);
        let same = |a: f64, b: f64| (a - b).abs() < 1e-6 * b.abs().max(1.0);
        assert!(
            same(plan.cost, best),
            "fleet {number}: {} instead of {best}: {fleet:?}",
            plan.cost
        );
        assert!(
            plan.bound <= best + 1e-6 && plan.gap < 1e-6,
            "fleet {number}: {plan:?}"
        );
        assert!(
            plan.pools.iter().all(|pool| pool.used <= pool.gpus),
            "fleet {number}"
        );
    }
}

/// A hundred models with five variants each in six pools that have this share of what their cheapest variants need.
fn large(share: f64, random: &mut fastrand::Rng) -> Fleet {
    let mut needed = [0.0; 6];
    let models: Vec<Model> = (0..100)
        .map(|number| {
            let demand = 20.0 + 380.0 * random.f64();
            let variants: Vec<(usize, Variant)> = (0..5)
                .map(|number| {
                    let (pool, gpus) = (random.usize(..6), [1, 2, 4, 8][random.usize(..4)]);
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
            let unit = |variant: &Variant| variant.price / variant.capacity.expect("given");
            let cheapest = variants.iter().min_by(|a, b| unit(&a.1).total_cmp(&unit(&b.1)));
            let (pool, variant) = cheapest.expect("five");
            needed[*pool] += (demand / variant.capacity.expect("given")).ceil() * f64::from(variant.gpus);
            Model {
                name: format!("m{number}"),
                demand,
                target_utilization: 1.0,
                loss_per_unit: 20.0,
                variants: variants.into_iter().map(|(_, variant)| variant).collect(),
            }
        })
        .collect();
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

#[test]
fn large_fleets_are_close_to_their_bound() {
    let mut random = fastrand::Rng::with_seed(3);
    for share in [0.5, 1.1] {
        let fleet = large(share, &mut random);
        let plan = llmd_wva_plan::solve(&fleet).expect("a plan");
        assert!(
            plan.bound <= plan.cost && plan.gap < 0.01,
            "{share}: {} over {}",
            plan.cost,
            plan.bound
        );
        assert!(
            plan.pools.iter().all(|pool| pool.used <= pool.gpus),
            "{share}: {:?}",
            plan.pools
        );
        assert_eq!(
            plan,
            llmd_wva_plan::solve(&fleet).expect("a plan"),
            "the same again"
        );
    }
}
