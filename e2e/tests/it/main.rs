//! Journeys over real processes.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed step is a failed test, and nothing is exported"
)]

mod cluster;
mod disagg;
mod docs;
mod envoy;
mod harness;
mod journey;
mod kv_events;
mod node;
mod sim;
mod up;
