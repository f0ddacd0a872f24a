//! Stub.

pub mod plugins;
