//! Restart delays of a crashed container, shaped like the kubelet's.

use std::time::{Duration, Instant};

/// Longest delay between two restarts. The kubelet waits up to five minutes; somebody who watches one machine
/// wants the engine back sooner.
pub const CAP: Duration = Duration::from_secs(10);

/// A container that lived this long starts over with an immediate restart.
pub const RESET_AFTER: Duration = Duration::from_mins(1);

/// Restart back-off of one container: at once, then 1 s, 2 s, 4 s … [`CAP`].
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after a container that was started at `started` ended at `ended`.
    pub fn after_exit(&mut self, started: Instant, ended: Instant) -> Duration {
        if ended.saturating_duration_since(started) >= RESET_AFTER {
            self.failures = 0;
        }
        let delay = match self.failures {
            0 => Duration::ZERO,
            failures => Duration::from_secs(1 << (failures - 1).min(8)).min(CAP),
        };
        self.failures = self.failures.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_double_up_to_the_cap() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let seconds: Vec<u64> = (0..7)
            .map(|_| {
                backoff
                    .after_exit(start, start + Duration::from_secs(3))
                    .as_secs()
            })
            .collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn a_container_that_lived_a_minute_starts_over() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after_exit(start, start);
        }
        assert_eq!(backoff.after_exit(start, start + RESET_AFTER), Duration::ZERO);
        assert_eq!(backoff.after_exit(start, start).as_secs(), 1);
    }
}
