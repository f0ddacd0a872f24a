//! Approximate prefix index: which endpoint was sent which block.

use std::sync::{Mutex, MutexGuard, PoisonError};

use llmd_epp_api::SlotId;
use rustc_hash::FxHashMap;

const NONE: u32 = u32::MAX;
/// Blocks written per hold of the lock: a long prompt must not stall every other lookup.
const BLOCKS_PER_HOLD: usize = 64;

/// One endpoint's copy of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    slot: u32,
    node: u32,
}

/// Endpoints that hold a block; most blocks have one.
#[derive(Debug)]
enum Holders {
    One(Holder),
    Many(Vec<Holder>),
}

impl Holders {
    fn as_slice(&self) -> &[Holder] {
        match self {
            Self::One(holder) => std::slice::from_ref(holder),
            Self::Many(holders) => holders,
        }
    }

    fn node_of(&self, slot: u32) -> Option<u32> {
        let found = self.as_slice().iter().find(|holder| holder.slot == slot);
        found.map(|holder| holder.node)
    }

    fn add(&mut self, holder: Holder) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, holder]),
            Self::Many(holders) => holders.push(holder),
        }
    }

    /// Removes the slot; true when nobody holds the block any more.
    fn remove(&mut self, slot: u32) -> bool {
        match self {
            Self::One(holder) => holder.slot == slot,
            Self::Many(holders) => {
                holders.retain(|holder| holder.slot != slot);
                holders.is_empty()
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    hash: u64,
    newer: u32,
    older: u32,
}

/// Blocks of one endpoint in order of use.
#[derive(Debug)]
struct Recency {
    generation: u32,
    nodes: Vec<Node>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    len: usize,
}

impl Recency {
    fn new(generation: u32) -> Self {
        Self {
            generation,
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            len: 0,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Node { newer, older, .. } = self.nodes[at as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let previous = std::mem::replace(&mut self.newest, at);
        self.nodes[at as usize].newer = NONE;
        self.nodes[at as usize].older = previous;
        match previous {
            NONE => self.oldest = at,
            previous => self.nodes[previous as usize].newer = at,
        }
    }

    fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    fn push(&mut self, hash: u64) -> u32 {
        let node = Node {
            hash,
            newer: NONE,
            older: NONE,
        };
        let at = if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            at
        } else {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        };
        self.link_newest(at);
        self.len += 1;
        at
    }

    fn pop_oldest(&mut self) -> Option<u64> {
        let at = self.oldest;
        if at == NONE {
            return None;
        }
        self.unlink(at);
        self.free.push(at);
        self.len -= 1;
        Some(self.nodes[at as usize].hash)
    }
}

#[derive(Debug, Default)]
struct State {
    blocks: FxHashMap<u64, Holders>,
    /// By slot index.
    recency: Vec<Option<Recency>>,
    entries: usize,
}

impl State {
    fn forget_oldest(&mut self, slot: u32) -> bool {
        let Some(recency) = self.recency[slot as usize].as_mut() else {
            return false;
        };
        let Some(hash) = recency.pop_oldest() else {
            return false;
        };
        self.entries -= 1;
        if self
            .blocks
            .get_mut(&hash)
            .is_some_and(|holders| holders.remove(slot))
        {
            self.blocks.remove(&hash);
        }
        true
    }

    fn insert(&mut self, slot: SlotId, hash: u64, capacity: usize) {
        let Some(recency) = self.recency[slot.index as usize].as_mut() else {
            return;
        };
        match self.blocks.entry(hash) {
            std::collections::hash_map::Entry::Occupied(mut known) => {
                if let Some(node) = known.get().node_of(slot.index) {
                    recency.touch(node);
                    return;
                }
                let node = recency.push(hash);
                known.get_mut().add(Holder {
                    slot: slot.index,
                    node,
                });
            }
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let node = recency.push(hash);
                vacant.insert(Holders::One(Holder {
                    slot: slot.index,
                    node,
                }));
            }
        }
        self.entries += 1;
        while self.recency[slot.index as usize]
            .as_ref()
            .is_some_and(|list| list.len > capacity)
        {
            self.forget_oldest(slot.index);
        }
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
        for hash in hashes {
            let Some(holders) = state.blocks.get(hash) else {
                return;
            };
            for holder in holders.as_slice() {
                let count = &mut matches.counts[holder.slot as usize];
                if count.0 == 0 {
                    let recency = state.recency[holder.slot as usize].as_ref();
                    count.1 = recency.map_or(0, |list| list.generation);
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
        for few in hashes.chunks(BLOCKS_PER_HOLD) {
            let mut state = self.lock();
            let current = state.recency[slot.index as usize].as_ref();
            if current.is_none_or(|list| list.generation != slot.generation) {
                return;
            }
            for hash in few {
                state.insert(slot, *hash, capacity);
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
                Some(list) if list.generation >= slot.generation => return,
                Some(list) => list.generation,
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
                let owner = state.recency[index].as_ref().map(|list| list.generation);
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
                        generation: list.as_ref()?.generation,
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    fn slot(index: u32, generation: u32) -> SlotId {
        SlotId { index, generation }
    }

    fn blocks(index: &PrefixIndex, of: SlotId, hashes: &[u64]) -> u32 {
        let mut matches = Matches::default();
        index.lookup(hashes, &mut matches);
        matches.blocks(of)
    }

    #[test]
    fn a_chain_matches_up_to_the_first_unknown_block() {
        let index = PrefixIndex::default();
        index.insert(slot(0, 0), &[1, 2, 3], 100);
        index.insert(slot(1, 0), &[1], 100);
        let mut matches = Matches::default();
        index.lookup(&[1, 2, 9, 3], &mut matches);
        assert_eq!((matches.blocks(slot(0, 0)), matches.blocks(slot(1, 0))), (2, 1));
        matches.clear();
        assert_eq!((matches.blocks(slot(0, 0)), matches.is_empty()), (0, true));
    }

    #[test]
    fn a_reused_slot_index_does_not_inherit() {
        let index = PrefixIndex::default();
        index.insert(slot(0, 0), &[1, 2], 100);
        assert_eq!(blocks(&index, slot(0, 1), &[1, 2]), 0);
        index.insert(slot(0, 1), &[7], 100);
        assert_eq!(blocks(&index, slot(0, 1), &[1, 2]), 0);
        assert_eq!(blocks(&index, slot(0, 1), &[7]), 1);
        assert_eq!(index.len(), 1);
        index.insert(slot(0, 0), &[1, 2], 100);
        assert_eq!(
            blocks(&index, slot(0, 1), &[7]),
            1,
            "an earlier owner takes nothing away"
        );
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let index = PrefixIndex::default();
        index.insert(slot(0, 0), &[1, 2, 3], 3);
        index.insert(slot(0, 0), &[1, 4], 3);
        assert_eq!(blocks(&index, slot(0, 0), &[2]), 0);
        for kept in [1, 3, 4] {
            assert_eq!(blocks(&index, slot(0, 0), &[kept]), 1, "block {kept}");
        }
    }

    #[test]
    fn gone_endpoints_leave_nothing_behind() {
        let index = PrefixIndex::default();
        let many: Vec<u64> = (0..1000).collect();
        index.insert(slot(0, 0), &many, 5000);
        index.insert(slot(1, 0), &many[..10], 5000);
        index.retain(&[slot(1, 0)]);
        assert_eq!(index.len(), 10);
        assert_eq!(blocks(&index, slot(1, 0), &many), 10);
        index.retain(&[]);
        assert!(index.is_empty());
        assert!(index.lock().blocks.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, Vec<u64>),
        Retain(Vec<u32>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u32..4, proptest::collection::vec(0_u64..40, 0..12)).prop_map(|(slot, hashes)| Step::Insert(slot, hashes)),
            1 => proptest::collection::vec(0_u32..4, 0..4).prop_map(Step::Retain),
        ]
    }

    proptest! {
        /// Equals one list per endpoint that is searched in full.
        #[test]
        fn equals_the_obvious_model(steps in proptest::collection::vec(step(), 1..40), capacity in 1_usize..20) {
            let index = PrefixIndex::default();
            let mut model: BTreeMap<u32, VecDeque<u64>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(of, hashes) => {
                        index.insert(slot(of, 0), &hashes, capacity);
                        let list = model.entry(of).or_default();
                        for hash in hashes {
                            list.retain(|known| *known != hash);
                            list.push_back(hash);
                            while list.len() > capacity {
                                list.pop_front();
                            }
                        }
                    }
                    Step::Retain(mut live) => {
                        live.sort_unstable();
                        live.dedup();
                        model.retain(|of, _| live.contains(of));
                        let live: Vec<SlotId> = live.into_iter().map(|of| slot(of, 0)).collect();
                        index.retain(&live);
                    }
                }
                let expected: usize = model.values().map(VecDeque::len).sum();
                prop_assert_eq!(index.len(), expected);
                for of in 0..4 {
                    for hash in 0..40 {
                        let held = model.get(&of).is_some_and(|list| list.contains(&hash));
                        prop_assert_eq!(blocks(&index, slot(of, 0), &[hash]), u32::from(held));
                    }
                }
            }
        }
    }
}
