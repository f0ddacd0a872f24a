//! `grpc.health.v1.Health` with the service names Envoy, Kubernetes and upstream's charts ask for.
//!
//! Without leader election `liveness`, `readiness`, `ext_proc`'s name, the empty name and every unknown
//! name have one state: SERVING while the pool is synced, the parsers support its protocol and the
//! process is not draining. `Watch` is not implemented, as upstream.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::extproc;

/// Path of `Check`.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";
/// Path of `List`.
pub const LIST: &str = "/grpc.health.v1.Health/List";

/// The state behind every answer; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<State>);

#[derive(Debug, Default)]
struct State {
    synced: AtomicBool,
    protocol_supported: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// Not serving yet. `protocol_supported`: every parser can serve the pool's protocol.
    pub fn new(protocol_supported: bool) -> Self {
        let health = Self::default();
        health
            .0
            .protocol_supported
            .store(protocol_supported, Ordering::Relaxed);
        health
    }

    /// Discovery delivered its first list of endpoints.
    pub fn synced(&self) {
        self.0.synced.store(true, Ordering::Relaxed);
    }

    /// Shutdown has begun.
    pub fn draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        self.0.synced.load(Ordering::Relaxed)
            && self.0.protocol_supported.load(Ordering::Relaxed)
            && !self.0.draining.load(Ordering::Relaxed)
    }

    /// The answer to `Check`. Without leader election every name has the same state, unknown ones
    /// included, as upstream answers.
    pub fn check(&self) -> ServingStatus {
        if self.is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// The answer to `List`.
    pub fn list(&self) -> HealthListResponse {
        let status = HealthCheckResponse {
            status: self.check().into(),
        };
        let names = ["", "liveness", "readiness", extproc::SERVICE];
        HealthListResponse {
            statuses: names.map(|name| (name.to_owned(), status)).into(),
        }
    }
}

/// `HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    /// Service name; empty for the server as a whole.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// `HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    /// The state.
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// `HealthListRequest`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HealthListRequest {}

/// `HealthListResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthListResponse {
    /// State by service name.
    #[prost(map = "string, message", tag = "1")]
    pub statuses: HashMap<String, HealthCheckResponse>,
}

/// `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// Not known.
    Unknown = 0,
    /// Takes requests.
    Serving = 1,
    /// Takes none.
    NotServing = 2,
    /// No such service; upstream answers it with leader election only.
    ServiceUnknown = 3,
}
