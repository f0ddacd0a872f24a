//! The fleet as `llmd wva plan -f` reads it: models, their variants, and the GPUs that all share.
//!
//! ```yaml
//! pools:
//! - {name: h100, gpus: 16}
//! models:
//! - name: chat
//!   demand: 56                # units per second: requests, or tokens, as the capacities below
//!   targetUtilization: 0.85   # of the capacity, 0..1; 1 by default
//!   lossPerUnit: 20           # per hour and unit of demand that nobody serves
//!   variants:
//!   - {name: h100x4, pool: h100, gpus: 4, capacity: 52, price: 40}   # per replica; price per hour
//!   - name: h100x2
//!     pool: h100
//!     gpus: 2
//!     price: 20
//!     current: 1              # replicas now; min, max, startPrice and stopPrice bound and price a change
//!     engine: {alpha: 8, beta: 0.02, gamma: 0.0001, input: 1000, output: 200, batch: 64, waiting: 128}
//!     slo: {ttftMs: 500, itlMs: 25, quantile: 0.99}                  # the capacity follows from both
//! ```

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::queue::{Queue, Slo};

/// Models that compete for pools of GPUs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fleet {
    /// Hours for which a decision stands; running costs count for so long against the prices of changes.
    #[serde(default = "one")]
    pub horizon_hours: f64,
    /// GPUs of a kind that are there and may be used.
    pub pools: Vec<Pool>,
    /// Who needs them.
    pub models: Vec<Model>,
}

/// GPUs of one kind.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// GPUs for the fleet, without those that others hold.
    pub gpus: u32,
    /// Times the price of each variant here, such as 0.4 for spot.
    #[serde(default = "one")]
    pub price_factor: f64,
}

/// A model and the ways to serve it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// Unique name.
    pub name: String,
    /// Units per second.
    pub demand: f64,
    /// Share of the capacity that is planned with, above 0 and at most 1.
    #[serde(default = "one")]
    pub target_utilization: f64,
    /// What a unit of demand that nobody serves costs per hour.
    #[serde(default = "loss")]
    pub loss_per_unit: f64,
    /// At least one.
    pub variants: Vec<Variant>,
}

/// One way to serve a model.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variant {
    /// Unique among the model's.
    pub name: String,
    /// Whose GPUs it takes.
    pub pool: String,
    /// GPUs of a replica, all pods of a group together.
    pub gpus: u32,
    /// Price of a replica per hour.
    pub price: f64,
    /// Units per second of a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// The engine's iteration model, in place of a capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// What the engine has to keep to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Objective>,
    /// Replicas now.
    #[serde(default)]
    pub current: u32,
    /// Least replicas.
    #[serde(default)]
    pub min: u32,
    /// Most replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// What the start of a replica costs.
    #[serde(default)]
    pub start_price: f64,
    /// What the end of a replica costs.
    #[serde(default)]
    pub stop_price: f64,
}

/// [`Queue`] as it is written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "as in Queue")]
pub struct Engine {
    pub alpha: f64,
    pub beta: f64,
    pub gamma: f64,
    pub input: f64,
    pub output: f64,
    pub batch: u32,
    pub waiting: u32,
}

/// [`Slo`] as it is written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "as in Slo")]
pub struct Objective {
    #[serde(default)]
    pub ttft_ms: Option<f64>,
    #[serde(default)]
    pub itl_ms: Option<f64>,
    #[serde(default)]
    pub quantile: Option<f64>,
}

fn one() -> f64 {
    1.0
}

/// Dear enough that demand is served whenever it can be.
fn loss() -> f64 {
    1e6
}

/// Why a fleet cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Not the documented shape.
    #[error("{path}: {reason}")]
    Shape {
        /// Where.
        path: String,
        /// What is wrong, with its line.
        reason: String,
    },
    /// A value out of its range.
    #[error("{field} is {value}: {fix}")]
    Value {
        /// Which one.
        field: String,
        /// What it is.
        value: String,
        /// What it may be.
        fix: &'static str,
    },
}

impl Fleet {
    /// Reads a fleet, YAML or JSON.
    ///
    /// # Errors
    /// Names the field and what it may be.
    pub fn read(text: &str) -> Result<Self, FleetError> {
        let document = serde_yaml::Deserializer::from_str(text);
        let fleet: Self = serde_path_to_error::deserialize(document).map_err(|error| FleetError::Shape {
            path: error.path().to_string(),
            reason: error.inner().to_string(),
        })?;
        fleet.check()?;
        Ok(fleet)
    }

    fn check(&self) -> Result<(), FleetError> {
        let mut names = HashSet::new();
        above_zero("horizonHours", self.horizon_hours)?;
        for (index, pool) in self.pools.iter().enumerate() {
            let field = format!("pools[{index}]");
            above_zero(&format!("{field}.priceFactor"), pool.price_factor)?;
            unique(&format!("{field}.name"), &pool.name, &mut names)?;
        }
        let mut models = HashSet::new();
        for (index, model) in self.models.iter().enumerate() {
            let field = format!("models[{index}]");
            unique(&format!("{field}.name"), &model.name, &mut models)?;
            not_negative(&format!("{field}.demand"), model.demand)?;
            not_negative(&format!("{field}.lossPerUnit"), model.loss_per_unit)?;
            above_zero(&format!("{field}.targetUtilization"), model.target_utilization)?;
            if model.target_utilization > 1.0 {
                return Err(wrong(
                    format!("{field}.targetUtilization"),
                    model.target_utilization,
                    "use at most 1",
                ));
            }
            if model.variants.is_empty() {
                return Err(wrong(
                    format!("{field}.variants"),
                    "empty",
                    "name at least one variant",
                ));
            }
            let mut variants = HashSet::new();
            for (index, variant) in model.variants.iter().enumerate() {
                let field = format!("{field}.variants[{index}]");
                unique(&format!("{field}.name"), &variant.name, &mut variants)?;
                variant.check(&field, &names)?;
            }
        }
        Ok(())
    }
}

impl Variant {
    fn check(&self, field: &str, pools: &HashSet<&str>) -> Result<(), FleetError> {
        if !pools.contains(self.pool.as_str()) {
            return Err(wrong(
                format!("{field}.pool"),
                &self.pool,
                "name one of pools[].name",
            ));
        }
        above_zero(&format!("{field}.gpus"), f64::from(self.gpus))?;
        not_negative(&format!("{field}.price"), self.price)?;
        not_negative(&format!("{field}.startPrice"), self.start_price)?;
        not_negative(&format!("{field}.stopPrice"), self.stop_price)?;
        if self.max.is_some_and(|max| max < self.min) {
            return Err(wrong(format!("{field}.max"), self.min, "has to be at least min"));
        }
        match (self.capacity, &self.engine, &self.slo) {
            (Some(capacity), None, None) => above_zero(&format!("{field}.capacity"), capacity),
            (None, Some(engine), Some(slo)) => {
                for (name, value) in [("alpha", engine.alpha), ("output", engine.output)] {
                    above_zero(&format!("{field}.engine.{name}"), value)?;
                }
                for (name, value) in [
                    ("beta", engine.beta),
                    ("gamma", engine.gamma),
                    ("input", engine.input),
                ] {
                    not_negative(&format!("{field}.engine.{name}"), value)?;
                }
                for (name, value) in [("batch", engine.batch), ("waiting", engine.waiting)] {
                    if !(1..=10_000).contains(&value) {
                        return Err(wrong(format!("{field}.engine.{name}"), value, "use 1 to 10000"));
                    }
                }
                if slo
                    .quantile
                    .is_some_and(|quantile| !(0.0..1.0).contains(&quantile))
                {
                    return Err(wrong(
                        format!("{field}.slo.quantile"),
                        slo.quantile.unwrap_or(0.0),
                        "use 0 to below 1",
                    ));
                }
                Ok(())
            }
            _ => Err(wrong(
                field.to_owned(),
                "without a capacity",
                "give capacity, or engine and slo",
            )),
        }
    }

    /// Units per second of a replica; 0 when it cannot keep to its objectives.
    pub fn rate(&self) -> f64 {
        match (self.capacity, self.engine, self.slo) {
            (Some(capacity), _, _) => capacity,
            (None, Some(engine), Some(slo)) => {
                let queue = Queue {
                    alpha: engine.alpha,
                    beta: engine.beta,
                    gamma: engine.gamma,
                    input: engine.input,
                    output: engine.output,
                    batch: engine.batch,
                    waiting: engine.waiting,
                };
                queue.size(&Slo {
                    ttft: slo.ttft_ms,
                    itl: slo.itl_ms,
                    quantile: slo.quantile,
                })
            }
            _ => 0.0,
        }
    }
}

fn wrong(field: String, value: impl std::fmt::Display, fix: &'static str) -> FleetError {
    FleetError::Value {
        field,
        value: format!("{value}"),
        fix,
    }
}

fn above_zero(field: &str, value: f64) -> Result<(), FleetError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(wrong(field.to_owned(), value, "use a number above 0"))
}

fn not_negative(field: &str, value: f64) -> Result<(), FleetError> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(wrong(field.to_owned(), value, "use 0 or a number above it"))
}

fn unique<'a>(field: &str, name: &'a str, seen: &mut HashSet<&'a str>) -> Result<(), FleetError> {
    if name.is_empty() {
        return Err(wrong(field.to_owned(), "empty", "give a name"));
    }
    if !seen.insert(name) {
        return Err(wrong(field.to_owned(), name, "is there twice; names are unique"));
    }
    Ok(())
}
