//! The free queue: blocks in the order in which they will be reused.

use super::BlockId;

/// An intrusive doubly linked list over block ids: O(1) push at both ends, pop at the front and removal from the
/// middle (a prefix hit takes a block back out of the queue wherever it stands).
///
/// The links live in two flat arrays, one entry per block, and one more entry for the sentinel that closes the ring.
#[derive(Debug, Clone)]
pub struct FreeQueue {
    next: Vec<u32>,
    prev: Vec<u32>,
    len: u32,
}

/// Marks a block that is not in the queue.
const UNLINKED: u32 = u32::MAX;

impl FreeQueue {
    /// A queue of the blocks `0..num_blocks`, lowest id first.
    pub fn full(num_blocks: u32) -> Self {
        let size = num_blocks as usize + 1;
        let mut queue = FreeQueue { next: vec![UNLINKED; size], prev: vec![UNLINKED; size], len: 0 };
        queue.next[num_blocks as usize] = num_blocks;
        queue.prev[num_blocks as usize] = num_blocks;
        for block in 0..num_blocks {
            queue.push_back(BlockId(block));
        }
        queue
    }

    /// Number of blocks in the queue.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no block is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `block` is in the queue.
    pub fn contains(&self, block: BlockId) -> bool {
        self.next[block.0 as usize] != UNLINKED
    }

    /// Appends `block`: it will be reused last.
    pub fn push_back(&mut self, block: BlockId) {
        let sentinel = self.sentinel();
        self.link(self.prev[sentinel as usize], block.0, sentinel);
    }

    /// Prepends `block`: it will be reused next.
    pub fn push_front(&mut self, block: BlockId) {
        let sentinel = self.sentinel();
        self.link(sentinel, block.0, self.next[sentinel as usize]);
    }

    /// Takes the block at the front, the one least recently used.
    pub fn pop_front(&mut self) -> Option<BlockId> {
        let first = self.next[self.sentinel() as usize];
        if first == self.sentinel() {
            return None;
        }
        self.remove(BlockId(first));
        Some(BlockId(first))
    }

    /// Takes `block` out of the queue, wherever it stands.
    pub fn remove(&mut self, block: BlockId) {
        assert!(self.contains(block), "block {} is not in the free queue", block.0);
        let (prev, next) = (self.prev[block.0 as usize], self.next[block.0 as usize]);
        self.next[prev as usize] = next;
        self.prev[next as usize] = prev;
        self.next[block.0 as usize] = UNLINKED;
        self.prev[block.0 as usize] = UNLINKED;
        self.len -= 1;
    }

    /// The blocks of the queue, next to be reused first.
    pub fn iter(&self) -> impl Iterator<Item = BlockId> + '_ {
        let sentinel = self.sentinel();
        let mut at = self.next[sentinel as usize];
        std::iter::from_fn(move || {
            let block = (at != sentinel).then_some(BlockId(at))?;
            at = self.next[at as usize];
            Some(block)
        })
    }

    fn sentinel(&self) -> u32 {
        self.next.len() as u32 - 1
    }

    fn link(&mut self, prev: u32, block: u32, next: u32) {
        assert!(!self.contains(BlockId(block)), "block {block} is already in the free queue");
        self.next[prev as usize] = block;
        self.prev[next as usize] = block;
        self.prev[block as usize] = prev;
        self.next[block as usize] = next;
        self.len += 1;
    }
}
