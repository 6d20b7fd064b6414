//! A sequence: token ids, how many of them are in the KV cache, and where.

use super::{BlockHash, BlockTable, TokenId};

/// One sequence of a request. It has no phase: `num_computed_tokens` chases the number of its tokens, and each time it
/// catches up, the sequence gets its next token.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Which of its request's sequences.
    pub index: u32,
    /// Prompt and completion.
    pub token_ids: Vec<TokenId>,
    /// Tokens whose keys and values are in the KV cache.
    pub num_computed_tokens: u32,
    /// Tokens that the step in flight computes, the later one of two, drafts included.
    pub num_scheduled_tokens: u32,
    /// Whether the step in flight (the later one of two) yields the next token, or an earlier one has, and [`super::Scheduler::update`] is yet to
    /// bring it: so for a beam whose siblings have not come as far.
    pub samples: bool,
    /// While the last of the tokens is [`super::UNKNOWN_TOKEN`]: the sample row of the step in flight that it is.
    pub pending: Option<u32>,
    /// Tokens that the step in flight computes after the known ones: those that it may go on with.
    pub drafts: Vec<TokenId>,
    /// Tokens that it will most likely go on with, as far as its last token's [`super::Scheduler::expect`] has told.
    pub expected: Vec<TokenId>,
    /// Drafts of the step that is ending that were right, as far as its tokens are known.
    pub num_right_drafts: u32,
    /// Drafts that it gets next time, at most.
    pub drafts_limit: u32,
    /// Its blocks.
    pub table: BlockTable,
    /// Its blocks in the host pool, while it is swapped out.
    pub host_table: BlockTable,
    /// Hashes of its full blocks, as far as they were needed.
    pub hashes: Vec<BlockHash>,
    /// Blocks at the start of `table` that the prefix cache knows, or was told of.
    pub num_cached_blocks: u32,
    /// Finished or aborted; what it holds is released when the step in flight is over.
    pub ended: bool,
}

impl Sequence {
    /// A sequence of `token_ids`, none of them computed.
    pub fn new(index: u32, token_ids: Vec<TokenId>) -> Self {
        Sequence {
            index,
            token_ids,
            num_computed_tokens: 0,
            num_scheduled_tokens: 0,
            samples: false,
            pending: None,
            drafts: Vec::new(),
            expected: Vec::new(),
            num_right_drafts: 0,
            drafts_limit: u32::MAX,
            table: BlockTable::default(),
            host_table: BlockTable::default(),
            hashes: Vec::new(),
            num_cached_blocks: 0,
            ended: false,
        }
    }

    /// The sequence `index` with the same tokens and the same progress, over `table`, which shares this one's blocks.
    /// Blocks in the host pool are for the caller to share.
    pub fn fork(&self, index: u32, table: BlockTable) -> Self {
        assert_eq!(self.table, table, "I6: a fork starts with its parent's block table");
        Sequence { index, table, ..self.clone() }
    }

    /// Makes room for `max_tokens` tokens, prompt and completion, so that nothing is allocated on the way there.
    pub fn reserve(&mut self, max_tokens: u32, block_size: u32) {
        let blocks = max_tokens.div_ceil(block_size) as usize;
        reserve_total(&mut self.token_ids, max_tokens as usize);
        reserve_total(&mut self.hashes, blocks);
        self.table.reserve(blocks);
    }

    /// Prompt and completion tokens, with the one that is pending.
    pub fn num_tokens(&self) -> u32 {
        self.token_ids.len() as u32
    }

    /// Those of them that are known.
    pub fn num_known_tokens(&self) -> u32 {
        self.num_tokens() - u32::from(self.pending.is_some())
    }

    /// Tokens that its blocks are reserved for: computed, or about to be by the step in flight.
    pub fn num_reserved_tokens(&self) -> u32 {
        self.num_computed_tokens + self.num_scheduled_tokens
    }

    /// Whether the step in flight, the later one of two, computes any of its tokens.
    pub fn is_scheduled(&self) -> bool {
        self.num_scheduled_tokens > 0
    }

    /// Slots of its blocks that hold no token.
    pub fn num_unused_slots(&self, block_size: u32) -> u64 {
        let slots = u64::from(self.table.len()) * u64::from(block_size);
        slots.saturating_sub(u64::from(self.num_reserved_tokens()))
    }

    /// Computes hashes up to `num_blocks` full blocks.
    pub fn extend_hashes(&mut self, num_blocks: u32, root: &BlockHash, block_size: u32) {
        let size = block_size as usize;
        for block in self.hashes.len()..num_blocks as usize {
            let parent = self.hashes.last().unwrap_or(root);
            let hash = parent.child(&self.token_ids[block * size..][..size]);
            self.hashes.push(hash);
        }
    }
}

/// Makes room for `capacity` elements in all.
fn reserve_total<T>(values: &mut Vec<T>, capacity: usize) {
    values.reserve_exact(capacity.saturating_sub(values.len()));
}
