//! The definitions as an API server sees them, and every CEL rule both ways.

#![allow(clippy::unwrap_used, clippy::panic)] // a panic is how a test fails, in its helpers too

mod rules;
mod structure;
