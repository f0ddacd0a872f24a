//! The runtime with real, tiny processes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test support: a failed step is a failed test"
)]

mod attach;
mod cluster;
mod support;
