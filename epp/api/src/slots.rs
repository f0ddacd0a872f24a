//! Live load per endpoint: atomics that outlive snapshots, and the guard that gives load back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::endpoint::EndpointName;

/// Stable identity of a slot: the index is reused after an endpoint is gone, the generation never.
/// Side tables of plugins (prefix index, LRU order) are keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    /// Dense index, suitable for a `Vec`.
    pub index: u32,
    /// Distinguishes successive owners of one index.
    pub generation: u32,
}

#[derive(Debug)]
struct Counters {
    id: SlotId,
    requests: AtomicI64,
    tokens: AtomicI64,
    dispatched: AtomicU64,
}

/// Handle to one endpoint's live load.
#[derive(Clone, Debug)]
pub struct Slot(Arc<Counters>);

impl Slot {
    /// A slot outside any table, for tests.
    pub fn detached(index: u32) -> Self {
        Self::with_id(SlotId { index, generation: 0 })
    }

    fn with_id(id: SlotId) -> Self {
        Self(Arc::new(Counters {
            id,
            requests: AtomicI64::new(0),
            tokens: AtomicI64::new(0),
            dispatched: AtomicU64::new(0),
        }))
    }

    /// Identity of the slot.
    pub fn id(&self) -> SlotId {
        self.0.id
    }

    /// Requests reserved and not yet released.
    pub fn requests(&self) -> u64 {
        u64::try_from(self.0.requests.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Tokens reserved and not yet released.
    pub fn tokens(&self) -> u64 {
        u64::try_from(self.0.tokens.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Requests ever reserved here; a scraper compares two readings to tell which
    /// reservations a scraped page cannot know yet.
    pub fn dispatched(&self) -> u64 {
        self.0.dispatched.load(Ordering::Relaxed)
    }

    /// Adds one request of `tokens` tokens. The guard gives both back exactly once.
    #[must_use = "dropping the reservation releases the load at once"]
    pub fn reserve(&self, tokens: u64) -> Reservation {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.0.dispatched.fetch_add(1, Ordering::Relaxed);
        Reservation {
            slot: self.clone(),
            tokens,
            request: true,
        }
    }
}

/// One request's load on one endpoint. Dropping it releases whatever is still held.
#[derive(Debug)]
pub struct Reservation {
    slot: Slot,
    tokens: i64,
    request: bool,
}

impl Reservation {
    /// The slot that carries the load.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Gives the prompt tokens back early (at the first response chunk); the request stays counted.
    pub fn release_tokens(&mut self) {
        let held = std::mem::take(&mut self.tokens);
        if held != 0 {
            self.slot.0.tokens.fetch_sub(held, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release_tokens();
        if std::mem::take(&mut self.request) {
            self.slot.0.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<EndpointName, Slot>,
    free: Vec<SlotId>,
    next: u32,
}

/// Assigns slots by endpoint name. An endpoint that flaps keeps its slot until it is retired.
#[derive(Debug, Default)]
pub struct SlotTable(Mutex<Table>);

impl SlotTable {
    /// The slot of `name`, made on first use.
    pub fn slot(&self, name: &EndpointName) -> Slot {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = table.by_name.get(name) {
            return slot.clone();
        }
        let id = if let Some(SlotId { index, generation }) = table.free.pop() {
            SlotId {
                index,
                generation: generation.wrapping_add(1),
            }
        } else {
            let index = table.next;
            table.next += 1;
            SlotId { index, generation: 0 }
        };
        let slot = Slot::with_id(id);
        table.by_name.insert(name.clone(), slot.clone());
        slot
    }

    /// Frees the slot of an endpoint that left the pool. Reservations still held keep their own
    /// counters alive and never touch the next owner of the index.
    pub fn retire(&self, name: &EndpointName) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = table.by_name.remove(name) {
            table.free.push(slot.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_released_exactly_once() {
        let slot = Slot::detached(0);
        let mut held = slot.reserve(40);
        assert_eq!((slot.requests(), slot.tokens()), (1, 40));
        held.release_tokens();
        held.release_tokens();
        assert_eq!((slot.requests(), slot.tokens()), (1, 0));
        drop(held);
        assert_eq!((slot.requests(), slot.tokens(), slot.dispatched()), (0, 0, 1));
    }

    #[test]
    fn a_reused_index_starts_from_zero_and_ignores_old_guards() {
        let table = SlotTable::default();
        let name = EndpointName::new("default", "a");
        let old = table.slot(&name).reserve(7);
        table.retire(&name);
        let new = table.slot(&EndpointName::new("default", "b"));
        assert_eq!(new.id().index, old.slot().id().index);
        assert_ne!(new.id(), old.slot().id());
        drop(old);
        assert_eq!((new.requests(), new.tokens()), (0, 0));
    }
}
