//! Injected monotonic time.

use std::sync::Arc;
use std::time::Instant;

/// A source of monotonic time. Pure crates never read the clock themselves; shells hand one in.
pub trait Clock: Send + Sync + 'static {
    /// The current monotonic instant.
    fn now(&self) -> Instant;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }
}
