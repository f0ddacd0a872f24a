//! All known blocks by hash, each with the endpoints that hold it.
//!
//! Blocks of one prompt are mostly looked up one after the other, so each remembers which one followed it: a prompt
//! that was seen before is walked through memory in order, without a probe of the table per block.

use hashbrown::HashTable;

use super::recency::NodeId;

/// Where a block is; reused for others once nobody holds it.
pub(super) type BlockId = u32;

const NONE: u32 = u32::MAX;
/// In the place of a slot: nobody holds the block, its place is free.
const FREE: u32 = u32::MAX;
/// In the place of a slot: several hold the block, `node` is the place of their list.
const MANY: u32 = u32::MAX - 1;

/// One endpoint's copy of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) slot: u32,
    pub(super) node: NodeId,
}

/// 24 bytes, of which there are as many as there are blocks.
#[derive(Debug)]
struct Block {
    hash: u64,
    /// The only holder, as most blocks have one; or [`MANY`], or [`FREE`].
    holder: Holder,
    /// The block that was last written after this one; it may be another one by now.
    follower: BlockId,
}

/// The blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    table: HashTable<BlockId>,
    slab: Vec<Block>,
    free: Vec<BlockId>,
    /// Holders of the blocks that several hold.
    lists: Vec<Vec<Holder>>,
    free_lists: Vec<u32>,
}

impl Blocks {
    /// The block with this hash. `previous` is the one before it in its prompt, if there is one.
    pub(super) fn find(&self, hash: u64, previous: Option<BlockId>) -> Option<BlockId> {
        if let Some(previous) = previous {
            let follower = self.slab[previous as usize].follower;
            if let Some(block) = self.slab.get(follower as usize)
                && block.hash == hash
                && block.holder.slot != FREE
            {
                return Some(follower);
            }
        }
        let is_it = |block: &BlockId| self.slab[*block as usize].hash == hash;
        self.table.find(hash, is_it).copied()
    }

    /// Who holds a block.
    pub(super) fn holders(&self, block: BlockId) -> &[Holder] {
        let holder = &self.slab[block as usize].holder;
        match holder.slot {
            FREE => &[],
            MANY => &self.lists[holder.node as usize],
            _ => std::slice::from_ref(holder),
        }
    }

    /// Where a block is in the list of a slot that holds it.
    pub(super) fn node_of(&self, block: BlockId, slot: u32) -> Option<NodeId> {
        let found = self.holders(block).iter().find(|holder| holder.slot == slot);
        found.map(|holder| holder.node)
    }

    /// Adds an unknown block with its first holder; `node` gives its place in that one's list.
    pub(super) fn add(&mut self, hash: u64, slot: u32, node: impl FnOnce(BlockId) -> NodeId) -> BlockId {
        let at = self.free.pop().unwrap_or(self.slab.len() as BlockId);
        let block = Block {
            hash,
            holder: Holder { slot, node: node(at) },
            follower: NONE,
        };
        match self.slab.get_mut(at as usize) {
            Some(place) => *place = block,
            None => self.slab.push(block),
        }
        let slab = &self.slab;
        self.table
            .insert_unique(hash, at, |block| slab[*block as usize].hash);
        at
    }

    /// Adds a holder that does not hold the block yet.
    pub(super) fn add_holder(&mut self, block: BlockId, holder: Holder) {
        let first = &mut self.slab[block as usize].holder;
        if first.slot == MANY {
            self.lists[first.node as usize].push(holder);
            return;
        }
        let list = vec![*first, holder];
        let at = if let Some(at) = self.free_lists.pop() {
            self.lists[at as usize] = list;
            at
        } else {
            self.lists.push(list);
            self.lists.len() as u32 - 1
        };
        *first = Holder { slot: MANY, node: at };
    }

    /// Removes a holder, and the block with its last one.
    pub(super) fn remove_holder(&mut self, block: BlockId, slot: u32) {
        let holder = &mut self.slab[block as usize].holder;
        if holder.slot == MANY {
            let list = &mut self.lists[holder.node as usize];
            list.retain(|holder| holder.slot != slot);
            if let [last] = list[..] {
                self.free_lists.push(holder.node);
                *list = Vec::new();
                *holder = last;
            }
        } else if holder.slot == slot {
            holder.slot = FREE;
            let hash = self.slab[block as usize].hash;
            if let Ok(entry) = self.table.find_entry(hash, |known| *known == block) {
                entry.remove();
            }
            self.free.push(block);
        }
    }

    /// Notes that `next` comes after `block` in a prompt.
    pub(super) fn follow(&mut self, block: BlockId, next: BlockId) {
        self.slab[block as usize].follower = next;
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
