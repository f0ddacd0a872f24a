//! The Endpoint Picker without a transport: configuration, parsers, plugins, the scheduler, one
//! request's state machine. Synchronous and pure.
//!
//! Takes in: an `EndpointPickerConfig`, request and response chunks, endpoint snapshots, instants.
//! Holds: the configured plugins and their side tables, the open exchanges' load, request metrics.
//! Gives out: where a request goes and what changes on its way, or a typed rejection.
//!
//! ```text
//!  config text ─▶ config::assemble ─▶ Scheduler + data-layer plan + parsers   (registry: a line per plugin)
//!  chunks ─▶ Exchange ─▶ parser ─▶ Scheduler ─▶ producers ─▶ [ filters ▶ scorers ▶ picker ▶ reserve ]
//!               ▲                                               one short lock per pool │ Decision
//!  response ────┘◀───────────────── load released exactly once ─────────────────────────┘
//! ```

// Tests compare scores and counters with the exact value that the input gives, and pass `json!`
// literals to their builders.
#![cfg_attr(test, allow(clippy::float_cmp, clippy::needless_pass_by_value))]

pub mod config;
pub mod exchange;
pub mod label_cap;
pub mod metrics;
pub mod parsers;
pub mod plugins;
pub mod registry;
pub mod request_metrics;
pub mod scheduler;
mod spans;
pub mod traffic;

pub use config::{Assembly, BuildEnv, ConfigError, EndpointPickerConfig, assemble};
pub use exchange::{Activity, Epp, Exchange, Hints, Routed, Termination};
pub use scheduler::{Decision, ProfileResult, Scheduler};
