//! The plan of a fleet: replicas, their cost, how far from the best it can be, and what binds.

use serde::Serialize;

use crate::bound;
use crate::fleet::{Fleet, FleetError};
use crate::incumbent;
use crate::problem::Problem;

/// Replicas of all variants.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Over the horizon: running replicas, changes and lost demand.
    pub cost: f64,
    /// No plan costs less.
    pub bound: f64,
    /// Share of the cost by which a better plan could be cheaper at most; 0 where this one is proved to be the best.
    pub gap: f64,
    /// In the fleet's order.
    pub models: Vec<ModelPlan>,
    /// In the fleet's order.
    pub pools: Vec<PoolPlan>,
}

/// A model's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelPlan {
    /// The model.
    pub name: String,
    /// Units per second that nobody serves.
    pub missing: f64,
    /// Over the horizon, lost demand included.
    pub cost: f64,
    /// In the fleet's order.
    pub variants: Vec<VariantPlan>,
}

/// A variant's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantPlan {
    /// The variant.
    pub name: String,
    /// Replicas.
    pub replicas: u32,
    /// Replicas now.
    pub current: u32,
    /// Units per second of one.
    pub capacity: f64,
}

/// A pool's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolPlan {
    /// The pool.
    pub name: String,
    /// GPUs in use.
    pub used: u32,
    /// GPUs there.
    pub gpus: u32,
    /// What one GPU more would save per hour, by the prices of the bound; 0 where some are left.
    pub shadow_price: f64,
}

/// The cheapest plan that is found, with its proof.
///
/// # Errors
/// The least replicas do not fit into a pool.
pub fn solve(fleet: &Fleet) -> Result<Plan, FleetError> {
    let problem = Problem::new(fleet);
    let found = bound::find(&problem).and_then(|bound| Some((incumbent::find(&problem, &bound)?, bound)));
    let Some((best, bound)) = found else {
        return Err(FleetError::Value {
            field: "models[].variants[].min".to_owned(),
            value: "more than the pools have".to_owned(),
            fix: "lower min, or give the pools more GPUs",
        });
    };
    let lower = if best.is_proved {
        best.cost
    } else {
        bound.cost.min(best.cost)
    };
    let free = vec![0.0; problem.pools.len()];
    let mut used = vec![0.0; problem.pools.len()];
    let mut models = Vec::with_capacity(fleet.models.len());
    for ((model, need), choice) in fleet.models.iter().zip(&problem.needs).zip(&best.choices) {
        need.usage(choice, &mut used);
        let mut variants: Vec<VariantPlan> = model
            .variants
            .iter()
            .map(|variant| VariantPlan {
                name: variant.name.clone(),
                replicas: 0,
                current: variant.current,
                capacity: 0.0,
            })
            .collect();
        for (column, replicas) in need.columns.iter().zip(choice) {
            let variant = &mut variants[column.variant];
            (variant.replicas, variant.capacity) = (*replicas, column.rate);
        }
        models.push(ModelPlan {
            name: model.name.clone(),
            missing: need.missing(choice),
            cost: need.cost(choice, &free),
            variants,
        });
    }
    let pools = fleet.pools.iter().zip(&used).zip(&bound.prices);
    let pools = pools.map(|((pool, used), price)| PoolPlan {
        name: pool.name.clone(),
        used: *used as u32,
        gpus: pool.gpus,
        shadow_price: price / fleet.horizon_hours,
    });
    Ok(Plan {
        cost: best.cost,
        bound: lower,
        gap: if best.cost > 0.0 {
            (best.cost - lower) / best.cost
        } else {
            0.0
        },
        models,
        pools: pools.collect(),
    })
}
