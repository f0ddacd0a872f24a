//! Waiting for a condition with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Deadline of every wait. A start takes a tenth of it on an idle machine, half of it on a very busy one.
pub const DEADLINE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `probe` until it returns a value. Fails after [`DEADLINE`] with a message that names `what`.
pub async fn poll_until<T, F>(what: &str, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        if let Ok(Some(value)) = tokio::time::timeout_at(end.into(), probe()).await {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what} did not come true within {DEADLINE:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
