//! Addresses of peers that are named by DNS and may move: looked up again after a while, the old one serves meanwhile.
//!
//! Source of variables and metrics: llm-d-router `pkg/sidecar/proxy/{resolver,dns_metrics}.go`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prometheus::{IntCounter, Registry};
use tokio::net::lookup_host;
use tokio::time::timeout;

/// How addresses are looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How long an address is taken without another look, `MORIIO_DNS_RESOLVE_TTL_SECONDS`.
    pub(crate) fresh: Duration,
    /// Longest look-up, `MORIIO_DNS_RESOLVE_TIMEOUT_SECONDS`.
    pub(crate) deadline: Duration,
}

#[derive(Debug)]
struct Known {
    address: IpAddr,
    since: Instant,
    is_refreshing: bool,
}

#[derive(Debug)]
struct Counters {
    lookups: IntCounter,
    changes: IntCounter,
    failures: IntCounter,
}

/// Names and their addresses.
#[derive(Clone, Debug)]
pub(crate) struct Resolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    timing: Timing,
    known: Mutex<HashMap<String, Known>>,
    counters: Counters,
}

impl Resolver {
    /// Knows nothing yet.
    ///
    /// # Errors
    /// Another metric has one of its names.
    pub(crate) fn new(timing: Timing, registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("moriio_dns_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self(Arc::new(Inner {
            timing,
            known: Mutex::default(),
            counters: Counters {
                lookups: counter(
                    "reresolve_total",
                    "Look-ups of MoRI-IO peers that found an address",
                )?,
                changes: counter(
                    "ip_changed_total",
                    "MoRI-IO peers that were found at another address",
                )?,
                failures: counter("lookup_failures_total", "Look-ups of MoRI-IO peers that failed")?,
            },
        })))
    }

    /// The addresses of `names` in their order; a name without one stays as it is, for the engine to say so.
    pub(crate) async fn resolve(&self, names: &[String]) -> Vec<String> {
        join_all(names.iter().map(|name| self.one(name))).await
    }

    async fn one(&self, name: &str) -> String {
        if name.parse::<IpAddr>().is_ok() {
            return name.to_owned();
        }
        if let Some(address) = self.remembered(name) {
            return address.to_string();
        }
        match self.0.look_up(name).await {
            Some(address) => address.to_string(),
            None => name.to_owned(),
        }
    }

    fn remembered(&self, name: &str) -> Option<IpAddr> {
        let mut all = self.0.known();
        let known = all.get_mut(name)?;
        if known.since.elapsed() >= self.0.timing.fresh && !known.is_refreshing {
            known.is_refreshing = true;
            let (inner, name) = (Arc::clone(&self.0), name.to_owned());
            tokio::spawn(async move {
                inner.look_up(&name).await;
                if let Some(known) = inner.known().get_mut(&name) {
                    known.is_refreshing = false;
                }
            });
        }
        Some(known.address)
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// IPv4 first, as upstream.
    async fn look_up(&self, name: &str) -> Option<IpAddr> {
        let found = timeout(self.timing.deadline, lookup_host((name, 0))).await;
        let found: Vec<IpAddr> = match found {
            Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        let address = found.iter().find(|address| address.is_ipv4()).or(found.first());
        let Some(address) = address.copied() else {
            self.counters.failures.inc();
            tracing::debug!(%name, "a MoRI-IO peer has no address");
            return None;
        };
        self.counters.lookups.inc();
        let known = Known {
            address,
            since: Instant::now(),
            is_refreshing: false,
        };
        let before = self.known().insert(name.to_owned(), known);
        if before.is_some_and(|before| before.address != address) {
            self.counters.changes.inc();
            tracing::info!(%name, %address, "a MoRI-IO peer moved");
        }
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_become_addresses_and_what_has_none_stays() {
        let registry = Registry::new();
        let timing = Timing {
            fresh: Duration::from_secs(30),
            deadline: Duration::from_secs(5),
        };
        let resolver = Resolver::new(timing, &registry).expect("new names");
        let names = ["10.0.0.1", "localhost", "no.such.host.invalid"].map(str::to_owned);
        for _ in 0..2 {
            assert_eq!(
                resolver.resolve(&names).await,
                ["10.0.0.1", "127.0.0.1", "no.such.host.invalid"]
            );
        }
        let counters = &resolver.0.counters;
        // The second time it is remembered; what was not found is looked for again.
        assert_eq!((counters.lookups.get(), counters.failures.get()), (1, 2));
    }
}
