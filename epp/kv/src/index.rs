//! Approximate prefix index: which endpoint was sent which block.
//!
//! ```text
//!  Blocks: hash → block {holders, follower} ──node──▶ Recency of each holder's slot {newer, older, block}
//! ```

mod blocks;
mod recency;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use llmd_epp_api::SlotId;

use blocks::{BlockId, Blocks, Holder};
use recency::Recency;

/// Blocks written per hold of the lock: a long prompt must not stall every other lookup.
const BLOCKS_PER_HOLD: usize = 64;

#[derive(Debug, Default)]
struct State {
    blocks: Blocks,
    /// By slot index.
    recency: Vec<Option<Recency>>,
    entries: usize,
}

impl State {
    fn forget_oldest(&mut self, slot: u32) -> bool {
        let Some(recency) = self.recency[slot as usize].as_mut() else {
            return false;
        };
        let Some(block) = recency.pop_oldest() else {
            return false;
        };
        self.entries -= 1;
        self.blocks.remove_holder(block, slot);
        true
    }

    /// Makes `hash` the newest of `slot`. `previous` is the block before it in its prompt.
    fn insert(
        &mut self,
        slot: u32,
        hash: u64,
        previous: Option<BlockId>,
        capacity: usize,
    ) -> Option<BlockId> {
        let recency = self.recency[slot as usize].as_mut()?;
        let known = self.blocks.find(hash, previous);
        let node = known.and_then(|block| self.blocks.node_of(block, slot));
        let block = match (known, node) {
            (Some(block), Some(node)) => {
                recency.touch(node);
                block
            }
            (Some(block), None) => {
                let node = recency.push(block);
                self.blocks.add_holder(block, Holder { slot, node });
                self.entries += 1;
                block
            }
            (None, _) => {
                let block = self.blocks.add(hash, slot, |block| recency.push(block));
                self.entries += 1;
                block
            }
        };
        if let Some(previous) = previous {
            self.blocks.follow(previous, block);
        }
        while self.recency[slot as usize]
            .as_ref()
            .is_some_and(|list| list.len() > capacity)
        {
            self.forget_oldest(slot);
        }
        Some(block)
    }
}

/// Matched blocks per slot; a reusable buffer.
#[derive(Debug, Default)]
pub struct Matches {
    /// By slot index: blocks and the generation of the slot they belong to.
    counts: Vec<(u32, u32)>,
    touched: Vec<u32>,
}

impl Matches {
    /// Forgets all counts, keeps the memory.
    pub fn clear(&mut self) {
        for slot in self.touched.drain(..) {
            self.counts[slot as usize] = (0, 0);
        }
    }

    /// Whether no slot matched anything.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Blocks matched on `slot`; an earlier owner of the same index does not count.
    pub fn blocks(&self, slot: SlotId) -> u32 {
        match self.counts.get(slot.index as usize) {
            Some(&(blocks, generation)) if generation == slot.generation => blocks,
            _ => 0,
        }
    }
}

/// The index. One lock, held for one lookup or for a few blocks of a write.
#[derive(Debug, Default)]
pub struct PrefixIndex {
    state: Mutex<State>,
}

impl PrefixIndex {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the matches of one prompt: each endpoint that holds a block gets one, until a block
    /// that nobody holds. As upstream, holes inside one endpoint's chain are not noticed.
    pub fn lookup(&self, hashes: &[u64], matches: &mut Matches) {
        let state = self.lock();
        if matches.counts.len() < state.recency.len() {
            matches.counts.resize(state.recency.len(), (0, 0));
        }
        let mut previous = None;
        for hash in hashes {
            let Some(block) = state.blocks.find(*hash, previous) else {
                return;
            };
            previous = Some(block);
            for holder in state.blocks.holders(block) {
                let count = &mut matches.counts[holder.slot as usize];
                if count.0 == 0 {
                    let recency = state.recency[holder.slot as usize].as_ref();
                    count.1 = recency.map_or(0, Recency::generation);
                    matches.touched.push(holder.slot);
                }
                count.0 += 1;
            }
        }
    }

    /// Notes that `slot` computes these blocks; at most `capacity` blocks are kept for it, the
    /// least recently used go first.
    pub fn insert(&self, slot: SlotId, hashes: &[u64], capacity: usize) {
        self.adopt(slot);
        let mut previous = None;
        for few in hashes.chunks(BLOCKS_PER_HOLD) {
            let mut state = self.lock();
            let current = state.recency[slot.index as usize].as_ref();
            if current.is_none_or(|list| list.generation() != slot.generation) {
                return;
            }
            for hash in few {
                previous = state.insert(slot.index, *hash, previous, capacity);
            }
        }
    }

    /// Makes `slot` the owner of its index, dropping what an earlier owner left.
    fn adopt(&self, slot: SlotId) {
        let index = slot.index as usize;
        let earlier = {
            let mut state = self.lock();
            if state.recency.len() <= index {
                state.recency.resize_with(index + 1, || None);
            }
            match &state.recency[index] {
                // A later owner stays: what is told of an earlier one came too late.
                Some(list) if list.generation() >= slot.generation => return,
                Some(list) => list.generation(),
                None => {
                    state.recency[index] = Some(Recency::new(slot.generation));
                    return;
                }
            }
        };
        self.drop_slot(SlotId {
            index: slot.index,
            generation: earlier,
        });
        let mut state = self.lock();
        if state.recency[index].is_none() {
            state.recency[index] = Some(Recency::new(slot.generation));
        }
    }

    /// Forgets one owner of a slot index, a few blocks per hold of the lock; stops when a later
    /// owner has taken the index over meanwhile.
    fn drop_slot(&self, slot: SlotId) {
        let index = slot.index as usize;
        loop {
            let mut state = self.lock();
            for _ in 0..BLOCKS_PER_HOLD {
                let owner = state.recency[index].as_ref().map(Recency::generation);
                if owner != Some(slot.generation) {
                    return;
                }
                if !state.forget_oldest(slot.index) {
                    state.recency[index] = None;
                    return;
                }
            }
        }
    }

    /// Drops everything that belongs to slots outside `live` (sorted).
    pub fn retain(&self, live: &[SlotId]) {
        let gone: Vec<SlotId> = {
            let state = self.lock();
            let owned = state.recency.iter().enumerate();
            owned
                .filter_map(|(index, list)| {
                    let slot = SlotId {
                        index: index as u32,
                        generation: list.as_ref()?.generation(),
                    };
                    live.binary_search(&slot).is_err().then_some(slot)
                })
                .collect()
        };
        for slot in gone {
            self.drop_slot(slot);
        }
    }

    /// Blocks held, counted once per endpoint.
    pub fn len(&self) -> usize {
        self.lock().entries
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
