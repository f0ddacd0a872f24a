//! The forwarder on real sockets.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed step is a failed test, and nothing is exported"
)]

mod access_log;
mod deadlines;
mod extended_connect;
mod failure;
mod forward;
mod http2;
mod hygiene;
mod limits;
mod support;
mod targets;
mod tls;
mod upgrade;
