//! Waiting for a condition with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Deadline of each wait. A start takes a tenth of it on an idle machine, half of it on a very busy one.
pub const DEADLINE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `probe` until it returns a value. Fails after [`DEADLINE`] with a message that names `what`.
pub async fn poll_until<T, F>(what: &str, probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    poll_within(what, DEADLINE, probe).await
}

/// [`poll_until`] with another deadline, for what consists of several waits.
pub async fn poll_within<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Ok(Some(value)) = tokio::time::timeout_at(end.into(), probe()).await {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what} did not come true within {limit:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
