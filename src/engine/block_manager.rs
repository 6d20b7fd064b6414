//! The block manager: block tables grow, share, copy and release through it.

use super::block_event::BlockEvents;
use super::planted::planted;
use super::{BlockCopy, BlockEvent, BlockHash, BlockId, BlockPool, BlockTable, FullBlock, PrefixCache, TokenId};

/// The block pool and the prefix cache over it, as operations on block tables.
#[derive(Debug, Clone)]
pub struct BlockManager {
    block_size: u32,
    pool: BlockPool,
    prefix: Option<PrefixCache>,
    events: BlockEvents,
    blocks_allocated: u64,
    blocks_copied: u64,
}

/// What [`BlockManager::reserve`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Blocks taken from the pool, the copy included.
    pub allocated: u32,
    /// The copy-on-write of the last block, if it was shared: to be done on the device before any write of the step.
    pub copy: Option<BlockCopy>,
}

impl BlockManager {
    /// A manager of `num_blocks` free blocks of `block_size` tokens.
    pub fn new(num_blocks: u32, block_size: u32, enable_prefix_caching: bool) -> Self {
        assert!(block_size > 0, "a block holds at least one token");
        BlockManager {
            block_size,
            pool: BlockPool::new(num_blocks),
            prefix: enable_prefix_caching.then(|| PrefixCache::new(num_blocks, block_size)),
            events: BlockEvents::default(),
            blocks_allocated: 0,
            blocks_copied: 0,
        }
    }

    /// Tokens in one block.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The pool beneath.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// The prefix cache, if enabled.
    pub fn prefix(&self) -> Option<&PrefixCache> {
        self.prefix.as_ref()
    }

    /// Blocks handed out since the start.
    pub fn blocks_allocated(&self) -> u64 {
        self.blocks_allocated
    }

    /// Blocks copied on write since the start.
    pub fn blocks_copied(&self) -> u64 {
        self.blocks_copied
    }

    /// The longest run of cached blocks that starts a sequence of `token_ids`, into `hits`. Nothing is reserved yet.
    ///
    /// At least one token is left to compute, as its logits are what the sequence waits for.
    pub fn find_prefix(&self, hashes: &[BlockHash], root: &BlockHash, token_ids: &[TokenId], hits: &mut Vec<BlockId>) {
        hits.clear();
        let Some(prefix) = &self.prefix else { return };
        let computable = (token_ids.len().saturating_sub(1)) / self.block_size as usize;
        let blocks = token_ids.chunks_exact(self.block_size as usize).take(computable);
        let mut parent = root;
        for (hash, tokens) in hashes.iter().zip(blocks) {
            let Some(block) = prefix.find(hash, parent, tokens) else { break };
            hits.push(block);
            parent = hash;
        }
    }

    /// Free blocks that are left once `hits` are taken back out of the free queue.
    pub fn num_free_besides(&self, hits: &[BlockId]) -> u32 {
        self.pool.num_free() - hits.iter().filter(|&&block| self.pool.ref_count(block) == 0).count() as u32
    }

    /// Makes `table` ready for writes at the positions `context_len..num_tokens`: shares `hits` (only for an empty
    /// table), copies the last block if it is partly filled and shared, and appends new blocks.
    ///
    /// `None` when the pool has too few free blocks; then nothing has changed.
    pub fn reserve(
        &mut self,
        table: &mut BlockTable,
        hits: &[BlockId],
        context_len: u32,
        num_tokens: u32,
    ) -> Option<Reserved> {
        assert!(hits.is_empty() || table.is_empty(), "prefix hits only start a sequence");
        let copies = self.writes_into_shared_block(table, context_len);
        let held = table.len() + hits.len() as u32;
        let missing = num_tokens.div_ceil(self.block_size).saturating_sub(held);
        let needed = missing + u32::from(copies);
        if needed > self.num_free_besides(hits) {
            return None;
        }
        for &block in hits {
            self.pool.share(block);
            table.push(block);
        }
        let copy = copies.then(|| {
            let dst = self.allocate();
            let src = table.replace_last(dst);
            let unreferenced = self.pool.release(src);
            assert!(!unreferenced, "only shared blocks are copied on write");
            self.blocks_copied += 1;
            BlockCopy { src, dst }
        });
        for _ in 0..missing {
            table.push(self.allocate());
        }
        Some(Reserved { allocated: needed, copy })
    }

    /// A table that shares every block of `parent`.
    pub fn fork(&mut self, parent: &BlockTable) -> BlockTable {
        for (i, &block) in parent.blocks().iter().enumerate() {
            if planted!(ForkForgetsReference) && i + 1 == parent.blocks().len() {
                continue;
            }
            self.pool.share(block);
        }
        parent.clone()
    }

    /// One more table holds `block`.
    pub(super) fn share(&mut self, block: BlockId) {
        self.pool.share(block);
    }

    /// Releases all blocks of `table`. Blocks that fall free keep their contents: those that can be found again go to
    /// the back of the free queue, tail first, so a sequence's end is evicted before its start; the others go to the
    /// front.
    pub fn free(&mut self, table: &mut BlockTable) {
        for &block in table.blocks() {
            if !self.is_cached(block) && self.pool.release(block) {
                self.pool.enqueue(block, false);
            }
        }
        for &block in table.blocks().iter().rev() {
            if self.is_cached(block) && self.pool.release(block) {
                self.pool.enqueue(block, true);
            }
        }
        table.clear();
    }

    /// Records [`BlockEvent`]s from now on; they must be taken after every step.
    pub fn record_events(&mut self) {
        self.events.record();
    }

    /// Moves the events since the last call to the end of `events`.
    pub fn take_events(&mut self, events: &mut Vec<BlockEvent>) {
        self.events.take(events);
    }

    /// Makes a full block findable; without prefix caching, nothing happens.
    pub fn cache(&mut self, block: BlockId, full: &FullBlock<'_>) {
        if let Some(prefix) = &mut self.prefix
            && prefix.insert(block, full)
        {
            self.events.stored(full);
        }
    }

    /// Takes back [`BlockManager::cache`], for a block that will not be written after all.
    pub fn uncache(&mut self, block: BlockId) {
        if let Some(hash) = self.prefix.as_mut().and_then(|prefix| prefix.remove(block)) {
            self.events.removed(hash);
        }
    }

    /// Whether `block` can be found by its hash.
    pub fn is_cached(&self, block: BlockId) -> bool {
        self.prefix.as_ref().is_some_and(|prefix| prefix.hash_of(block).is_some())
    }

    /// Forgets all cached prefixes. Refused (`false`) while any block is in use.
    pub fn reset_prefix_cache(&mut self) -> bool {
        let unused = self.pool.num_free() == self.pool.num_blocks();
        if let (true, Some(prefix)) = (unused, &mut self.prefix) {
            prefix.clear();
            self.events.cleared();
        }
        unused
    }

    fn writes_into_shared_block(&self, table: &BlockTable, context_len: u32) -> bool {
        if context_len.is_multiple_of(self.block_size) || planted!(CopyOnWriteSkipped) {
            return false;
        }
        let Some(&last) = table.blocks().last() else { return false };
        assert_eq!(context_len / self.block_size + 1, table.len(), "I6: a write before the last block");
        self.pool.ref_count(last) > 1
    }

    /// Takes a block; the caller has counted the free ones.
    pub(super) fn allocate(&mut self) -> BlockId {
        let block = self.pool.allocate().expect("the caller has counted the free blocks");
        self.blocks_allocated += 1;
        if !planted!(EvictedBlockKeepsHash) {
            self.uncache(block);
        }
        block
    }
}
