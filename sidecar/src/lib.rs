//! The routing sidecar of a decode engine: it has prompts prefilled elsewhere first.
//!
//! Takes in: requests that a picker sent to this pod, with headers that name prefill engines.
//! Holds: a request's body while its prefill leg runs, kept-alive connections to prefill engines.
//! Gives out: the decode engine's answer, chunk by chunk.
//!
//! ```text
//!  client ─▶ Server (llmd-proxy) ─▶ Flight::plan ──leg──▶ prefill engine   (one token, blocks stay there)
//!                                        │ kv_transfer_params spliced into the body
//!                                        └──────────────▶ decode engine on this host ─▶ client
//! ```
//!
//! Source of flags, headers and bodies: llm-d-router `cmd/pd-sidecar`, `pkg/sidecar` (v0.9).

mod allowed;
mod api;
mod chunked;
mod connector;
mod error;
pub mod flags;
mod flight;
mod hosts;
mod legs;
mod metrics;
mod next_turn;
mod resolver;
mod route;
mod run;
mod spans;

pub use run::{RunError, run, serve, serve_ranks};
