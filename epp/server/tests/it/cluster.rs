//! The picker on a real API server (tier A): pods are plain objects, engines listen on loopback.

mod configs;
mod leader;
mod members;
mod metrics_auth;
mod outages;
mod rig;
mod traffic;
