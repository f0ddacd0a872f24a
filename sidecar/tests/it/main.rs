//! The sidecar between real HTTP connections, with engines that tell what they got.

mod chunked;
mod concurrent;
mod disaggregated;
mod encoders;
mod engine;
mod failures;
mod next_turn;
mod recorded;
mod sglang;
mod shared_storage;
mod straight;
mod traces;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use llmd_sidecar::flags::SidecarOptions;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running sidecar before `engines`, one listener each.
pub(crate) struct Sidecar {
    pub(crate) addresses: Vec<SocketAddr>,
    registry: Registry,
    _running: DropGuard,
}

impl Sidecar {
    pub(crate) async fn start(flags: &str, engines: &[SocketAddr]) -> Self {
        Self::start_with(|_| None, flags, engines).await
    }

    /// With variables of the environment.
    pub(crate) async fn start_with(
        env: impl Fn(&str) -> Option<String>,
        flags: &str,
        engines: &[SocketAddr],
    ) -> Self {
        let flags = format!("--secure-serving=false {flags}");
        let flags = flags.split_whitespace().map(OsString::from);
        let options = SidecarOptions::parse(flags, env).expect("valid flags");
        let (mut ranks, mut addresses) = (Vec::new(), Vec::new());
        for engine in engines {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
            addresses.push(listener.local_addr().expect("bound"));
            ranks.push((listener, *engine));
        }
        let (registry, shutdown) = (Registry::new(), CancellationToken::new());
        let running = (registry.clone(), shutdown.clone());
        tokio::spawn(async move { llmd_sidecar::serve_ranks(&options, ranks, &running.0, running.1).await });
        Self {
            addresses,
            registry,
            _running: shutdown.drop_guard(),
        }
    }

    /// Whether the metrics page has this line.
    pub(crate) fn counts(&self, line: &str) -> bool {
        let mut page = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut page)
            .expect("encodes");
        String::from_utf8_lossy(&page).lines().any(|have| have == line)
    }
}

/// Asks until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let asked = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, asked).await;
    assert!(outcome.is_ok(), "{what}: not in time");
}
