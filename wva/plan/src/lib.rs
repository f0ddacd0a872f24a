//! The planner of the Workload Variant Autoscaler: the cheapest replicas of all models' variants together.
//!
//! Takes in: a fleet (models with demand, variants with capacity and price, pools of GPUs). No I/O, no clock.
//! Holds: nothing between two plans.
//! Gives out: replicas by variant, their cost, a proven lower bound, what a GPU more of each pool would save.
//!
//! ```text
//!  Fleet ─▶ capacity (given, or queue model from SLOs) ─▶ prices of pools (master LP) ─▶ choices per model
//!                                                             └─ lower bound          └─▶ repair, exact search ─▶ Plan
//! ```

mod bound;
pub mod fleet;
mod incumbent;
pub mod lp;
pub mod plan;
mod problem;
pub mod queue;
mod search;

pub use fleet::{Fleet, FleetError};
pub use plan::{Plan, solve};
