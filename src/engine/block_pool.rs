//! The block pool: which blocks are free, and how often each of the others is referenced.

use super::{BlockId, FreeQueue};

/// Reference counts of all blocks, and the free queue of those nobody references.
///
/// Invariant I1: every block is either free (count 0, in the queue) or referenced (count > 0, not in the queue).
#[derive(Debug, Clone)]
pub struct BlockPool {
    ref_counts: Vec<u32>,
    free: FreeQueue,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks, handed out lowest id first.
    pub fn new(num_blocks: u32) -> Self {
        assert!(num_blocks > 0, "a block pool needs at least one block");
        BlockPool { ref_counts: vec![0; num_blocks as usize], free: FreeQueue::full(num_blocks) }
    }

    /// All blocks of the pool, free or not.
    pub fn num_blocks(&self) -> u32 {
        self.ref_counts.len() as u32
    }

    /// Blocks that nobody references.
    pub fn num_free(&self) -> u32 {
        self.free.len()
    }

    /// Number of block tables that hold `block`.
    pub fn ref_count(&self, block: BlockId) -> u32 {
        self.ref_counts[block.0 as usize]
    }

    /// Reference counts, by block id.
    pub fn ref_counts(&self) -> &[u32] {
        &self.ref_counts
    }

    /// Free blocks, next to be handed out first.
    pub fn free_blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.free.iter()
    }

    /// Takes the least recently used free block, or `None` when all are referenced.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop_front()?;
        assert_eq!(self.ref_counts[block.0 as usize], 0, "I1: free block {} is referenced", block.0);
        self.ref_counts[block.0 as usize] = 1;
        Some(block)
    }

    /// One more table holds `block`; a free block leaves the queue with its contents intact.
    pub fn share(&mut self, block: BlockId) {
        if self.ref_count(block) == 0 {
            self.free.remove(block);
        }
        self.ref_counts[block.0 as usize] += 1;
    }

    /// One table fewer holds `block`. Returns whether it is now unreferenced; the caller must then enqueue it, see
    /// [`BlockPool::enqueue`].
    #[must_use]
    pub fn release(&mut self, block: BlockId) -> bool {
        let count = &mut self.ref_counts[block.0 as usize];
        assert!(*count > 0, "I2: block {} released once too often", block.0);
        *count -= 1;
        *count == 0
    }

    /// Puts an unreferenced block into the free queue: at the back when its contents may be wanted again, else at the
    /// front.
    pub fn enqueue(&mut self, block: BlockId, worth_keeping: bool) {
        assert_eq!(self.ref_count(block), 0, "I1: block {} freed while referenced", block.0);
        if worth_keeping { self.free.push_back(block) } else { self.free.push_front(block) }
    }

    /// Invariant I1, in O(blocks).
    pub fn check_invariants(&self) {
        let mut seen = 0;
        for block in self.free.iter() {
            assert_eq!(self.ref_count(block), 0, "I1: block {} is free and referenced", block.0);
            seen += 1;
        }
        assert_eq!(seen, self.free.len(), "I1: the free queue has lost count");
        let referenced = self.ref_counts.iter().filter(|&&count| count > 0).count() as u32;
        assert_eq!(seen + referenced, self.num_blocks(), "I1: free + referenced != all blocks");
    }
}
