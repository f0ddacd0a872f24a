//! Waiting for a condition with a deadline.

use std::future::Future;
use std::net::TcpListener;
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

/// A TCP port of the loopback interface that was free a moment ago. For programs that cannot
/// bind port 0 and tell; everything of ours can.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("its address").port()
}
