//! The Endpoint Picker without a transport: parsers, pipeline, plugins, one request's state machine.
//!
//! Takes in: request and response chunks, endpoint snapshots, instants.
//! Holds: the configured plugins, the open exchanges' reservations, request metrics.
//! Gives out: where a request goes and what changes on its way, or a typed rejection.
//!
//! ```text
//!  chunks ─▶ Exchange ─▶ parser ─▶ Scheduler (producers ▶ filters ▶ scorers ▶ picker) ─▶ Routed
//!               ▲                                                    │ reservation
//!  response ────┘◀───────────────── released exactly once ───────────┘
//! ```

pub mod exchange;
pub mod parsers;
pub mod plugins;
pub mod request_metrics;

pub use exchange::{Epp, Exchange, Hints, Routed, Termination};
