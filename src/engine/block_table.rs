//! The block table: a sequence's logical blocks, in order, as block ids.

use super::BlockId;

/// Maps logical block `i` (tokens `i * block_size ..`) to the block that holds it.
///
/// Invariant I6: it changes only by [`BlockTable::push`], by [`BlockTable::replace_last`] (copy-on-write), or by being
/// emptied as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
}

impl BlockTable {
    /// Number of blocks.
    pub fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Whether the sequence holds no block.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The block ids, first logical block first.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// The slot of the token at `position`.
    pub fn slot(&self, position: u32, block_size: u32) -> u32 {
        self.blocks[(position / block_size) as usize].0 * block_size + position % block_size
    }

    /// Makes room for `blocks` in all.
    pub fn reserve(&mut self, blocks: usize) {
        self.blocks.reserve_exact(blocks.saturating_sub(self.blocks.len()));
    }

    /// Appends a block.
    pub fn push(&mut self, block: BlockId) {
        self.blocks.push(block);
    }

    /// Replaces the last block by its copy, and returns the original.
    pub fn replace_last(&mut self, copy: BlockId) -> BlockId {
        let last = self.blocks.last_mut().expect("copy-on-write of an empty block table");
        std::mem::replace(last, copy)
    }

    /// Forgets all blocks; the caller has released them.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }
}
