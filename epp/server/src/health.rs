//! `grpc.health.v1.Health` with the service names Envoy, Kubernetes and upstream's charts ask for.
//!
//! Without leader election `liveness`, `readiness`, `ext_proc`'s name, the empty name and every unknown
//! name have one state: SERVING while the pool is known, the parsers support its protocol and the
//! process is not draining. With it only the leader is ready, `liveness` is always SERVING and unknown
//! names are unknown (llm-d-router). `Watch` is not implemented, as upstream.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

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
    /// Told when `synced` was set.
    known: Notify,
    protocol_supported: AtomicBool,
    draining: AtomicBool,
    /// Only the leader is ready.
    elects: AtomicBool,
    leads: AtomicBool,
}

/// Names that ask whether requests are welcome.
const READINESS: [&str; 3] = ["", "readiness", extproc::SERVICE];
const LIVENESS: &str = "liveness";
/// Our own name: whether a request would be answered, drain or not. Kubernetes sends the traffic of a Service to
/// pods on their way out while no other is ready, but only to those whose readiness probe still succeeds.
const SERVING: &str = "serving";

impl Health {
    /// Not serving yet. `protocol_supported`: every parser can serve the pool's protocol.
    pub fn new(protocol_supported: bool) -> Self {
        let health = Self::default();
        health.set_protocol_supported(protocol_supported);
        health
    }

    /// Whether every parser can serve the pool's protocol.
    pub fn set_protocol_supported(&self, supported: bool) {
        self.0.protocol_supported.store(supported, Ordering::Relaxed);
    }

    /// Discovery delivered its first list of endpoints.
    pub fn synced(&self) {
        self.set_synced(true);
    }

    /// Whether the pool is known: it exists and its endpoints were listed.
    pub fn set_synced(&self, synced: bool) {
        self.0.synced.store(synced, Ordering::Release);
        if synced {
            self.0.known.notify_waiters();
        }
    }

    /// Whether the pool is known.
    pub fn is_synced(&self) -> bool {
        self.0.synced.load(Ordering::Acquire)
    }

    /// Waits until the pool is known.
    pub async fn until_synced(&self) {
        loop {
            let known = self.0.known.notified();
            if self.is_synced() {
                return;
            }
            known.await;
        }
    }

    /// From now on only a leader is ready; nobody leads yet.
    pub fn elect(&self) {
        self.0.elects.store(true, Ordering::Relaxed);
    }

    /// Whether this process leads.
    pub fn set_leading(&self, leads: bool) {
        self.0.leads.store(leads, Ordering::Relaxed);
    }

    /// Shutdown has begun.
    pub fn draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        self.is_serving() && !self.0.draining.load(Ordering::Relaxed)
    }

    /// Whether a request that comes nevertheless is answered: [`Self::is_ready`], drain or not.
    pub fn is_serving(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let State {
            synced,
            known: _,
            protocol_supported,
            draining: _,
            elects,
            leads,
        } = &*self.0;
        is(synced) && is(protocol_supported) && (!is(elects) || is(leads))
    }

    /// The answer to `Check`. Without leader election every name has the same state, unknown ones
    /// included, as upstream answers.
    pub fn check(&self, service: &str) -> ServingStatus {
        let elects = self.0.elects.load(Ordering::Relaxed);
        match service {
            LIVENESS if elects => ServingStatus::Serving,
            SERVING if self.is_serving() => ServingStatus::Serving,
            SERVING => ServingStatus::NotServing,
            name if elects && !READINESS.contains(&name) => ServingStatus::ServiceUnknown,
            _ if self.is_ready() => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        }
    }

    /// The answer to `List`.
    pub fn list(&self) -> HealthListResponse {
        let status = |name: &str| HealthCheckResponse {
            status: self.check(name).into(),
        };
        let names = ["", LIVENESS, "readiness", extproc::SERVICE];
        HealthListResponse {
            statuses: names.map(|name| (name.to_owned(), status(name))).into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn known(health: &Health) {
        health.set_synced(true);
        health.set_protocol_supported(true);
    }

    #[test]
    fn without_election_every_name_has_one_state() {
        let health = Health::default();
        for (step, expected) in [
            (None, ServingStatus::NotServing),
            (Some(known as fn(&Health)), ServingStatus::Serving),
            (Some(Health::draining), ServingStatus::NotServing),
        ] {
            if let Some(step) = step {
                step(&health);
            }
            for name in [
                "",
                "liveness",
                "readiness",
                extproc::SERVICE,
                "inference-extension",
            ] {
                assert_eq!(health.check(name), expected, "{name}");
            }
        }
    }

    #[test]
    fn a_drain_ends_readiness_but_not_serving() {
        let health = Health::default();
        assert_eq!(health.check("serving"), ServingStatus::NotServing);
        known(&health);
        health.draining();
        assert_eq!(health.check("readiness"), ServingStatus::NotServing);
        assert_eq!(health.check("serving"), ServingStatus::Serving);
        health.elect();
        assert_eq!(health.check("serving"), ServingStatus::NotServing);
    }

    #[test]
    fn with_election_only_the_leader_is_ready_and_everybody_lives() {
        let health = Health::default();
        health.elect();
        known(&health);
        for (leads, expected) in [(false, ServingStatus::NotServing), (true, ServingStatus::Serving)] {
            health.set_leading(leads);
            for name in READINESS {
                assert_eq!(health.check(name), expected, "{name}");
            }
            assert_eq!(health.check("liveness"), ServingStatus::Serving);
            assert_eq!(health.check("inference-extension"), ServingStatus::ServiceUnknown);
        }
        health.draining();
        assert_eq!(health.check("readiness"), ServingStatus::NotServing);
        assert_eq!(health.check("liveness"), ServingStatus::Serving);
    }
}
