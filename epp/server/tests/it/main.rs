//! Tests of the running Endpoint Picker over loopback.

mod datalayer;
mod discovery;
mod engine;
mod metrics_server;
mod proxy;
mod wait;
