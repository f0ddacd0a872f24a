//! KV blocks: reference counts, a least-recently-used free list and the prefix cache over it.
//!
//! A released block keeps its hash and stays reusable until the free list hands it out again, so
//! "free" and "cached" are not opposites. The first block is never handed out (vLLM reserves it as
//! a placeholder), which is why usage is counted against `total - 1`.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

/// Index of a block in the pool.
pub type BlockId = u32;

/// End mark of the free list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Block {
    references: u32,
    hash: Option<u64>,
    previous: u32,
    next: u32,
}

/// All KV blocks of an engine.
#[derive(Clone, Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    oldest: u32,
    newest: u32,
    free: usize,
    cached: FxHashMap<u64, BlockId>,
}

impl BlockPool {
    /// A pool of `total` blocks, of which `total - 1` are usable.
    pub fn new(total: u32) -> Self {
        let mut pool = Self {
            blocks: vec![
                Block {
                    references: 0,
                    hash: None,
                    previous: NONE,
                    next: NONE
                };
                total as usize
            ],
            oldest: NONE,
            newest: NONE,
            free: 0,
            cached: FxHashMap::default(),
        };
        for id in 1..total {
            pool.push_newest(id);
        }
        pool
    }

    /// Blocks that can be handed out over the life of the pool.
    pub fn usable(&self) -> usize {
        self.blocks.len().saturating_sub(1)
    }

    /// Blocks that no request refers to (cached content included).
    pub fn free(&self) -> usize {
        self.free
    }

    /// Blocks that at least one request refers to.
    pub fn used(&self) -> usize {
        self.usable() - self.free
    }

    /// Share of usable blocks in use, 0 to 1 (`vllm:kv_cache_usage_perc`).
    pub fn usage(&self) -> f64 {
        if self.usable() == 0 {
            0.0
        } else {
            self.used() as f64 / self.usable() as f64
        }
    }

    /// The block that holds the content `hash`, if it has not been evicted.
    pub fn lookup(&self, hash: u64) -> Option<BlockId> {
        self.cached.get(&hash).copied()
    }

    /// Whether no request refers to `id`.
    pub fn is_free(&self, id: BlockId) -> bool {
        self.blocks[id as usize].references == 0
    }

    /// Adds a reference to a cached block.
    pub fn acquire(&mut self, id: BlockId) {
        if self.blocks[id as usize].references == 0 {
            self.unlink(id);
        }
        self.blocks[id as usize].references += 1;
    }

    /// Takes the least recently used free block and forgets what it held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = self.oldest;
        if id == NONE {
            return None;
        }
        self.unlink(id);
        let block = &mut self.blocks[id as usize];
        block.references = 1;
        if let Some(hash) = block.hash.take() {
            self.cached.remove(&hash);
        }
        Some(id)
    }

    /// Records that block `id` holds the content `hash`; the first block with a content serves it.
    pub fn publish(&mut self, id: BlockId, hash: u64) {
        if let Entry::Vacant(vacant) = self.cached.entry(hash) {
            vacant.insert(id);
            self.blocks[id as usize].hash = Some(hash);
        }
    }

    /// Drops one reference; the last one returns the block to the young end of the free list.
    pub fn release(&mut self, id: BlockId) {
        let references = &mut self.blocks[id as usize].references;
        debug_assert!(*references > 0, "block {id} released twice");
        *references -= 1;
        if *references == 0 {
            self.push_newest(id);
        }
    }

    fn push_newest(&mut self, id: BlockId) {
        let previous = self.newest;
        let block = &mut self.blocks[id as usize];
        block.previous = previous;
        block.next = NONE;
        if previous == NONE {
            self.oldest = id;
        } else {
            self.blocks[previous as usize].next = id;
        }
        self.newest = id;
        self.free += 1;
    }

    fn unlink(&mut self, id: BlockId) {
        let Block { previous, next, .. } = self.blocks[id as usize];
        if previous == NONE {
            self.oldest = next;
        } else {
            self.blocks[previous as usize].next = next;
        }
        if next == NONE {
            self.newest = previous;
        } else {
            self.blocks[next as usize].previous = previous;
        }
        self.free -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_block_keeps_its_content_until_it_is_handed_out_again() {
        let mut pool = BlockPool::new(3);
        let a = pool.allocate().unwrap();
        pool.publish(a, 11);
        pool.release(a);
        assert_eq!(pool.lookup(11), Some(a));
        assert_eq!(pool.used(), 0);
        let b = pool.allocate().unwrap();
        assert_ne!(b, a, "the block that was free longer goes first");
        assert_eq!(pool.lookup(11), Some(a));
        assert_eq!(pool.allocate(), Some(a));
        assert_eq!(pool.lookup(11), None, "handing a block out evicts its content");
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn an_acquired_cached_block_is_not_handed_out() {
        let mut pool = BlockPool::new(2);
        let a = pool.allocate().unwrap();
        pool.publish(a, 5);
        pool.release(a);
        pool.acquire(a);
        pool.acquire(a);
        assert_eq!((pool.free(), pool.used()), (0, 1));
        assert_eq!(pool.allocate(), None);
        pool.release(a);
        assert!(!pool.is_free(a));
        pool.release(a);
        assert!(pool.is_free(a));
    }
}
