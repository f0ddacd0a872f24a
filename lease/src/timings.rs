//! How long a lease is good for and how often it is looked at.

use std::time::Duration;

/// Durations of an election. `retry` < `renew` < `lease`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Others may take the lease this long after its last renewal; whole seconds, as the Lease stores it.
    pub lease: Duration,
    /// A leader that could not renew for so long gives up.
    pub renew: Duration,
    /// Pause between two attempts; up to a fifth is added so that replicas do not march in step.
    pub retry: Duration,
}

impl Default for Timings {
    /// controller-runtime's: 15 s, 10 s, 2 s.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}
