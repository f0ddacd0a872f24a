//! The simulator over loopback: what an OpenAI client sees, and what the metrics page says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test helpers fail the test that calls them"
)]

mod calibration;
mod client;
mod disaggregation;
mod encodings;
mod failures;
mod openai;
mod ranks;
