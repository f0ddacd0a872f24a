//! A token bucket for status writes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Writes per second in the long run, over all resources.
const RATE: f64 = 50.0;
/// Writes that may come at once.
const BURST: f64 = 100.0;

/// Tokens that are left; negative while writes are waiting.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<(f64, Instant)>);

impl Throttle {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new((BURST, now)))
    }

    /// Takes a token; how long to wait before it may be used.
    pub(crate) fn take(&self, now: Instant) -> Duration {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, updated) = *bucket;
        let grown = tokens + now.saturating_duration_since(updated).as_secs_f64() * RATE;
        let left = grown.min(BURST) - 1.0;
        *bucket = (left, now.max(updated));
        Duration::from_secs_f64((-left).max(0.0) / RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_more_waits_its_turn() {
        let start = Instant::now();
        let bucket = Throttle::new(start);
        assert!((0..100).all(|_| bucket.take(start).is_zero()));
        assert_eq!(bucket.take(start), Duration::from_millis(20));
        assert_eq!(bucket.take(start), Duration::from_millis(40));
        assert!(bucket.take(start + Duration::from_secs(1)).is_zero());
    }
}
