//! Stub.

pub mod datalayer;
pub mod debug;
pub mod discovery;
pub mod pool;
