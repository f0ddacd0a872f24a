//! Per resource: how long to wait after a failure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// Pauses vary by this share, so that resources that failed together do not come back together.
const JITTER: f64 = 0.2;

/// Failures in a row by resource.
#[derive(Debug, Default)]
pub(crate) struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// The resource failed once more: the pause before the next try.
    pub(crate) fn failed(&self, key: &str) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.to_owned()).or_default();
        *count += 1;
        pause(*count, fastrand::f64())
    }

    /// The resource was reconciled, or is gone.
    pub(crate) fn forget(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// `FIRST · 2^(failures - 1)`, at most `LONGEST`, times 1 ± `JITTER` by `draw` in 0..1.
fn pause(failures: u32, draw: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    doubled.min(LONGEST).mul_f64(1.0 - JITTER + 2.0 * JITTER * draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_vary_by_a_fifth() {
        assert_eq!(pause(1, 0.5), Duration::from_secs(1));
        assert_eq!(pause(4, 0.5), Duration::from_secs(8));
        assert_eq!(pause(40, 0.5), Duration::from_secs(300));
        assert_eq!(pause(1, 0.0), Duration::from_millis(800));
        let backoff = Backoff::default();
        backoff.failed("a");
        assert!(backoff.failed("a") > Duration::from_millis(1500));
        backoff.forget("a");
        assert!(backoff.failed("a") < Duration::from_millis(1500));
    }
}
