//! Tests of the running Endpoint Picker over loopback.

mod datalayer;
mod discovery;
mod metrics_server;
mod wait;
