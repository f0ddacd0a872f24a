//! Blocks that outlive their request, for another engine to read: each under a lease.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::blocks::{BlockId, BlockPool};
use super::sequence::RequestId;

#[derive(Debug)]
struct Lease {
    blocks: Vec<BlockId>,
    until: Duration,
}

/// All held blocks of an engine.
#[derive(Debug, Default)]
pub(super) struct Held(FxHashMap<RequestId, Lease>);

impl Held {
    pub(super) fn insert(&mut self, id: RequestId, blocks: Vec<BlockId>, until: Duration) {
        self.0.insert(id, Lease { blocks, until });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the next lease ends.
    pub(super) fn next(&self) -> Option<Duration> {
        self.0.values().map(|lease| lease.until).min()
    }

    /// Never shortens a lease; false if there is none any more.
    pub(super) fn extend(&mut self, id: RequestId, until: Duration) -> bool {
        let lease = self.0.get_mut(&id);
        lease.is_some_and(|lease| {
            lease.until = lease.until.max(until);
            true
        })
    }

    /// Frees the blocks of one request; false if they are not held any more.
    pub(super) fn release(&mut self, id: RequestId, pool: &mut BlockPool) -> bool {
        let Some(lease) = self.0.remove(&id) else {
            return false;
        };
        // The beginning of a prompt is what others may share: it goes last.
        for block in lease.blocks.into_iter().rev() {
            pool.release(block);
        }
        true
    }

    /// Frees what nobody asked for until `now`.
    pub(super) fn expire(&mut self, now: Duration, pool: &mut BlockPool) -> Vec<RequestId> {
        let over = self.0.iter().filter(|(_, lease)| lease.until <= now);
        let mut over: Vec<RequestId> = over.map(|(id, _)| *id).collect();
        over.sort_unstable();
        for id in &over {
            self.release(*id, pool);
        }
        over
    }
}
