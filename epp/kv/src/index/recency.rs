//! The blocks of one endpoint in order of use.

use super::blocks::BlockId;

const NONE: u32 = u32::MAX;

/// Where a block is in the list of one endpoint.
pub(super) type NodeId = u32;

#[derive(Clone, Copy, Debug)]
struct Node {
    block: BlockId,
    newer: NodeId,
    older: NodeId,
}

/// A list of blocks, the newest first.
#[derive(Debug)]
pub(super) struct Recency {
    generation: u32,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    newest: NodeId,
    oldest: NodeId,
    len: usize,
}

impl Recency {
    /// An empty list for the owner of a slot index.
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            len: 0,
        }
    }

    /// Whose list it is, among the owners of the slot index.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes a block of the list the newest.
    pub(super) fn touch(&mut self, at: NodeId) {
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    /// Adds a block that is not in the list, as its newest.
    pub(super) fn push(&mut self, block: BlockId) -> NodeId {
        let node = Node {
            block,
            newer: NONE,
            older: NONE,
        };
        let at = if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            at
        } else {
            self.nodes.push(node);
            self.nodes.len() as NodeId - 1
        };
        self.link_newest(at);
        self.len += 1;
        at
    }

    /// Takes the least recently used block out.
    pub(super) fn pop_oldest(&mut self) -> Option<BlockId> {
        let at = self.oldest;
        if at == NONE {
            return None;
        }
        self.unlink(at);
        self.free.push(at);
        self.len -= 1;
        Some(self.nodes[at as usize].block)
    }

    fn unlink(&mut self, at: NodeId) {
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

    fn link_newest(&mut self, at: NodeId) {
        let previous = std::mem::replace(&mut self.newest, at);
        self.nodes[at as usize].newer = NONE;
        self.nodes[at as usize].older = previous;
        match previous {
            NONE => self.oldest = at,
            previous => self.nodes[previous as usize].newer = at,
        }
    }
}
