//! How many exchanges are open, for a shutdown that waits until nobody is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A look at the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Exchanges that are not dropped yet.
    pub open: usize,
    /// Exchanges ever opened.
    pub opened: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    open: AtomicUsize,
    opened: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> Activity {
        Activity {
            open: self.open.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
        }
    }

    /// Counts one exchange until the answer is dropped.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }
}

/// One open exchange.
#[derive(Debug)]
pub(super) struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_open_until_it_is_dropped() {
        let counts = Arc::new(Counts::default());
        let first = counts.open();
        let second = counts.open();
        assert_eq!(counts.read(), Activity { open: 2, opened: 2 });
        drop(first);
        drop(second);
        assert_eq!(counts.read(), Activity { open: 0, opened: 2 });
    }
}
