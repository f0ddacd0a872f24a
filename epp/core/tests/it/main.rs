//! Properties of configurations and pages, and the fuzz corpus replayed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step of a test is a failed test"
)]

#[path = "../../fuzz/checks.rs"]
#[allow(unreachable_pub, reason = "the same file is the library of the fuzz crate")]
mod checks;
mod corpus;
mod properties;
