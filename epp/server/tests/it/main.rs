//! Tests of the running Endpoint Picker over loopback.

#[path = "../../fuzz/checks.rs"]
#[allow(unreachable_pub, reason = "the same file is the library of the fuzz crate")]
mod checks;
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
mod streams;
mod tokens;
mod traces;
mod wait;
