//! Everything the end-to-end tests and benchmarks need to drive real processes.
//!
//! Takes in: the `llmd` binary that `cargo xtask test` built, tools from the user's cache.
//! Holds: guards; a process, server or directory ends with the value that stands for it.
//! Gives out: addresses to talk to, captured logs, recorded requests.
//!
//! ```text
//!  test ──▶ Process (llmd …, envoy) ◀── logs, exit status
//!    ├────▶ Echo / scripted upstream  ◀── exact bytes received
//!    └────▶ http::send / openai clients ──▶ the address under test
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test support: a failed step is a failed test, and captured logs go to stderr"
)]

pub mod bench;
pub mod echo;
pub mod envoy;
pub mod epp;
pub mod http;
pub mod poll;
pub mod process;
pub mod tools;

pub use poll::{poll_until, poll_until_async};
pub use process::Process;
