//! Memory of held request bodies, bounded by bytes: a bound of requests alone would allow them all to be large.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that are held now, of all requests of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    /// A request that holds nothing yet.
    pub(crate) fn lease(&self) -> Lease {
        Lease {
            held: Arc::clone(&self.0),
            bytes: 0,
        }
    }
}

/// What one request holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Lease {
    /// Takes `bytes` more, or nothing when all together would be more than `limit`.
    pub(crate) fn grow(&mut self, bytes: usize, limit: usize) -> bool {
        let grown = self.held.fetch_update(Relaxed, Relaxed, |held| {
            held.checked_add(bytes).filter(|held| *held <= limit)
        });
        if grown.is_ok() {
            self.bytes += bytes;
        }
        grown.is_ok()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_over_all_requests_and_given_back() {
        let held = HeldBytes::default();
        let (mut one, mut two) = (held.lease(), held.lease());
        assert!(one.grow(6, 10));
        assert!(!two.grow(5, 10), "eleven of ten");
        assert!(two.grow(4, 10));
        drop(one);
        assert!(two.grow(6, 10) && !two.grow(1, 10));
        drop(two);
        assert_eq!(held.0.load(Relaxed), 0);
    }
}
