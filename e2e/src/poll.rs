//! Waiting for a condition with a deadline.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Deadline of most waits: ten times what a slow machine needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);

/// Repeats `probe` until it returns a value.
///
/// # Panics
/// When `deadline` passes first; the message names `what`.
pub fn poll_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            Instant::now() < end,
            "{what} did not come true within {deadline:?}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// [`poll_until`] for asynchronous probes.
///
/// # Panics
/// As [`poll_until`].
pub async fn poll_until_async<T, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < end,
            "{what} did not come true within {deadline:?}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ports below those that the kernel gives out and those of Kubernetes services.
const PORTS: std::ops::Range<u16> = 15_000..29_000;

/// A TCP port that is free on every address, and that this process names once. For programs that cannot bind port 0
/// and tell, or whose neighbours must know it before.
///
/// # Panics
/// When every port is taken.
pub fn free_port() -> u16 {
    static NAMED: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Processes begin at places of their own.
    let first = std::process::id().wrapping_mul(211);
    let mut ports = (0..count).map(|_| {
        let place = first.wrapping_add(NAMED.fetch_add(1, Ordering::Relaxed)) % count;
        PORTS.start + u16::try_from(place).expect("below 65,536")
    });
    ports.find(|port| listen(*port).is_ok()).expect("a free port")
}

/// Listens on every address, of IPv4 alone where there is nothing else.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}
