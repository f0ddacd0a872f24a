//! Stub.

pub mod builtin_proxy;
pub mod datalayer;
pub mod debug;
pub mod discovery;
pub mod extproc;
pub mod grpc;
pub mod health;
pub mod pool;
