//! Prefix caching: full blocks found again by the hash of everything up to their end.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{BlockHash, BlockId, FullBlock, TokenId};

/// No further block under this hash.
const NONE: u32 = u32::MAX;

/// Which blocks hold which full block of tokens. It owns no reference: a free block stays findable until the pool
/// hands it out again.
///
/// Two blocks may have one hash (two requests computed the same tokens side by side); they form a chain, and the one
/// cached first is the one that is hit.
#[derive(Debug, Clone)]
pub struct PrefixCache {
    block_size: u32,
    first: HashMap<BlockHash, u32, BuildHasherDefault<DigestHasher>>,
    next: Vec<u32>,
    hashes: Vec<Option<BlockHash>>,
    parents: Vec<BlockHash>,
    token_ids: Vec<TokenId>,
    num_cached: u32,
}

impl PrefixCache {
    /// An empty cache over `num_blocks` blocks of `block_size` tokens.
    pub fn new(num_blocks: u32, block_size: u32) -> Self {
        let blocks = num_blocks as usize;
        PrefixCache {
            block_size,
            first: HashMap::with_capacity_and_hasher(blocks, BuildHasherDefault::default()),
            next: vec![NONE; blocks],
            hashes: vec![None; blocks],
            parents: vec![BlockHash([0; 32]); blocks],
            token_ids: vec![0; blocks * block_size as usize],
            num_cached: 0,
        }
    }

    /// Blocks that can be found.
    pub fn num_cached(&self) -> u32 {
        self.num_cached
    }

    /// The hash under which `block` can be found, if it can.
    pub fn hash_of(&self, block: BlockId) -> Option<BlockHash> {
        self.hashes[block.0 as usize]
    }

    /// The block that holds `token_ids` after `parent`. Tokens and parent are compared, not only hashed.
    pub fn find(&self, hash: &BlockHash, parent: &BlockHash, token_ids: &[TokenId]) -> Option<BlockId> {
        let mut at = *self.first.get(hash)?;
        while at != NONE {
            if self.tokens_of(at) == token_ids && self.parents[at as usize] == *parent {
                return Some(BlockId(at));
            }
            at = self.next[at as usize];
        }
        None
    }

    /// Makes the full block `block` findable. Returns whether it is the first under its hash.
    pub fn insert(&mut self, block: BlockId, full: &FullBlock<'_>) -> bool {
        let &FullBlock { hash, parent, token_ids, .. } = full;
        assert_eq!(token_ids.len(), self.block_size as usize, "only full blocks are cached");
        let at = block.0 as usize;
        assert!(self.hashes[at].is_none(), "block {} already has a hash", block.0);
        self.hashes[at] = Some(hash);
        self.parents[at] = parent;
        self.next[at] = NONE;
        let start = at * self.block_size as usize;
        self.token_ids[start..start + token_ids.len()].copy_from_slice(token_ids);
        self.num_cached += 1;
        let head = *self.first.entry(hash).or_insert(block.0);
        if head != block.0 {
            let mut last = head;
            while self.next[last as usize] != NONE {
                last = self.next[last as usize];
            }
            self.next[last as usize] = block.0;
        }
        head == block.0
    }

    /// Forgets `block`, if it was known: its contents are about to change. Returns its hash if it was the last under it.
    pub fn remove(&mut self, block: BlockId) -> Option<BlockHash> {
        let hash = self.hashes[block.0 as usize].take()?;
        self.num_cached -= 1;
        let after = std::mem::replace(&mut self.next[block.0 as usize], NONE);
        let head = self.first[&hash];
        if head != block.0 {
            let mut at = head;
            while self.next[at as usize] != block.0 {
                at = self.next[at as usize];
            }
            self.next[at as usize] = after;
        } else if after != NONE {
            self.first.insert(hash, after);
        } else {
            self.first.remove(&hash);
            return Some(hash);
        }
        None
    }

    /// Forgets all blocks.
    pub fn clear(&mut self) {
        self.first.clear();
        self.next.fill(NONE);
        self.hashes.fill(None);
        self.num_cached = 0;
    }

    fn tokens_of(&self, block: u32) -> &[TokenId] {
        let size = self.block_size as usize;
        &self.token_ids[block as usize * size..][..size]
    }
}

/// Takes eight bytes of a digest as its hash: SHA-256 has mixed them already.
#[derive(Debug, Clone, Default)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // A byte array hashes its length first; the digest itself is the only write of 32 bytes.
        if let Some(head) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*head);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}
