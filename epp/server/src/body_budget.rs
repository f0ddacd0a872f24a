//! Bounds the memory of request bodies that are held, over all requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all streams together may hold.
#[derive(Debug)]
pub struct BodyBudget {
    limit: usize,
    used: AtomicUsize,
}

impl BodyBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}

/// One stream's part of the budget; dropping it gives the bytes back.
pub(crate) struct BodyLease {
    budget: Arc<BodyBudget>,
    bytes: usize,
}

impl BodyLease {
    pub(crate) fn new(budget: Arc<BodyBudget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Takes `more` bytes; false, and nothing taken, when the budget does not have them.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let used = self.budget.used.fetch_add(more, Ordering::Relaxed);
        if used.saturating_add(more) > self.budget.limit {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.budget
            .used
            .fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for BodyLease {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_up_to_the_limit_and_given_back_once() {
        let budget = Arc::new(BodyBudget::new(10));
        let mut one = BodyLease::new(Arc::clone(&budget));
        let mut other = BodyLease::new(Arc::clone(&budget));
        assert!(one.grow(6) && other.grow(4) && !other.grow(1));
        one.release();
        one.release();
        assert_eq!(budget.used(), 4);
        drop((one, other));
        assert_eq!(budget.used(), 0);
    }
}
