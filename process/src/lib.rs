//! Process plumbing that every role needs, written once.
//!
//! Takes in: flags in Go style, signals, certificate files, the environment of the tracing SDK.
//! Holds: one cancellation token, one log subscriber, one TLS configuration per listener.
//! Gives out: parsed flags, the admin server (`/metrics`, `/healthz`, debug routes), shutdown.
//!
//! ```text
//!  argv ──▶ pflag ──▶ role ──▶ admin ◀── metrics registry
//!  SIGTERM ──▶ signals ──▶ token ──▶ every server and timer
//!  tls.crt/tls.key ──▶ tls (reloaded) ──▶ listeners
//! ```

pub mod admin;
pub mod duration;
pub mod logging;
pub mod pflag;
pub mod signals;
pub mod tls;
pub mod tls_client;
mod tls_listener;
pub mod traces;
