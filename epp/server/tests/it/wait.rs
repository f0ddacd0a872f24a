//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

/// Polls until `condition` gives a value; panics with `what` after the deadline.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Polls until `condition` holds.
pub(crate) async fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(())).await;
}
