//! The operator: makes the cluster look like what its `LLMDeployment`s say, and says why when it cannot.
//!
//! Takes in: our three kinds, and the objects that it made, through watches.
//! Holds: reduced copies of these objects, what it applied last, back-off per resource.
//! Gives out: server-side applies, deletes of what is no longer wanted, status, events, metrics.
//!
//! ```text
//!  watch ─▶ dereference ─▶ validate + render (llmd-render, pure) ─▶ apply, prune ─▶ observe ─▶ status
//!             caches            no client, no clock                 field managers   causes     one line
//! ```
//!
//! Only the holder of the Lease writes. Running models do not need the operator.

pub mod apply;
mod backoff;
mod capabilities;
pub mod causes;
mod context;
mod dereference;
mod engine_logs;
mod error;
mod events;
mod flags;
mod gate;
mod metrics;
pub mod observe;
mod pin;
pub mod rbac;
mod reconcile;
mod rollout;
mod run;
mod scope;
pub mod status;
mod status_write;
mod stores;
mod throttle;
mod usage;

pub use engine_logs::{Found as EngineLog, read_once as read_engine_log};
pub use flags::{Options, flag_set, render_options};
pub use run::{RunError, run, serve};
