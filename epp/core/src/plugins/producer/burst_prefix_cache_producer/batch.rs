//! Requests that wait for each other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use llmd_epp_api::{SlotId, Snapshot};

use super::assign::{Entry, Rules, assign};

/// Requests of one window. Nobody runs it: whoever asks first after its end assigns all.
#[derive(Debug)]
pub(super) struct Batch {
    /// Instance that the batch is of.
    owner: Arc<str>,
    /// The end of the window.
    pub(super) due: Instant,
    rules: Rules,
    /// The pool when the window began, in the order of its names.
    replicas: Vec<SlotId>,
    busy: Vec<u32>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Vec<Entry>),
    Assigned(Vec<Option<usize>>),
}

/// A request's place in its batch.
#[derive(Debug)]
pub(super) struct Ticket {
    batch: Arc<Batch>,
    place: usize,
    /// Blocks of the request.
    pub(super) blocks: u32,
    /// Tokens of all its prompts.
    pub(super) tokens: u64,
}

impl Batch {
    pub(super) fn new(owner: &Arc<str>, due: Instant, rules: Rules, snapshot: &Snapshot) -> Self {
        let in_flight = snapshot
            .endpoints
            .iter()
            .map(|endpoint| endpoint.slot().requests());
        let scraped = snapshot.running.iter();
        let busy = scraped.zip(in_flight).map(|(running, ours)| {
            let ours = u32::try_from(ours).unwrap_or(u32::MAX);
            ours.max(*running)
        });
        Self {
            owner: Arc::clone(owner),
            due,
            rules,
            replicas: snapshot.slot_ids.clone(),
            busy: busy.collect(),
            state: Mutex::new(State::Open(Vec::new())),
        }
    }

    /// Takes a request in; `None` when there are `most` already, or they are assigned.
    pub(super) fn join(self: &Arc<Self>, entry: Entry, tokens: u64, most: usize) -> Option<Ticket> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Open(entries) = &mut *state else {
            return None;
        };
        if entries.len() >= most {
            return None;
        }
        let ticket = Ticket {
            batch: Arc::clone(self),
            place: entries.len(),
            blocks: u32::try_from(entry.hashes.len()).unwrap_or(u32::MAX),
            tokens,
        };
        entries.push(entry);
        Some(ticket)
    }

    fn assigned(&self, place: usize) -> Option<SlotId> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(entries) = &*state {
            *state = State::Assigned(assign(entries, &self.busy, self.rules));
        }
        let State::Assigned(replicas) = &*state else {
            return None;
        };
        self.replicas
            .get(replicas.get(place).copied().flatten()?)
            .copied()
    }
}

impl Ticket {
    /// Whether an instance gave it.
    pub(super) fn is_of(&self, owner: &str) -> bool {
        *self.batch.owner == *owner
    }

    /// The endpoint that the batch gives to this request; `None` before the window's end and for a request that shares
    /// its prompt with nobody.
    pub(super) fn assigned(&self, now: Instant) -> Option<SlotId> {
        (now >= self.batch.due)
            .then(|| self.batch.assigned(self.place))
            .flatten()
    }
}
