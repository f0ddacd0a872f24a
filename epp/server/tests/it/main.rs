//! Tests of the running Endpoint Picker over loopback.

mod cluster;
mod datalayer;
mod discovery;
mod empty_pool;
mod engine;
mod extproc;
mod health;
mod metrics;
mod metrics_server;
mod metrics_tls;
mod picker;
mod proxy;
mod reload;
mod role;
mod tokens;
mod traces;
mod wait;
