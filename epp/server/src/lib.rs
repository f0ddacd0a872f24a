//! The Endpoint Picker as a process: ext-proc for Envoy, a built-in HTTP proxy, data layer, health.
//!
//! Takes in: ext-proc streams or HTTP requests, an endpoints file, the engines' metrics pages.
//! Holds: connections, the published snapshot of the pool, the health state.
//! Gives out: routed requests, metrics, `/debug/endpoints`, `grpc.health.v1`.
//!
//! ```text
//!  Envoy ──ext_proc──▶ extproc ─┐                  ┌─ discovery (file, Kubernetes)
//!                               ├─▶ core::Epp ◀────┤  datalayer ──scrapes──▶ engines
//!  client ──HTTP──▶ builtin_proxy ──▶ engine       └─ Snapshot
//! ```

pub mod body_budget;
pub mod builtin_proxy;
pub mod datalayer;
pub mod debug;
pub mod discovery;
pub mod eds;
pub mod extproc;
mod file_watch;
pub mod flags;
pub mod grpc;
pub mod health;
pub mod kubernetes;
pub mod leader;
pub mod metrics_auth;
pub mod pool;
pub mod reload;
pub mod render;
pub mod run;
mod spans;
pub mod verbs;
pub mod waiting;

pub use run::run;
