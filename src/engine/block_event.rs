//! What happens to cached blocks, for those who keep an index of them (routers that send a prompt to where its prefix
//! is).

use super::{BlockHash, TokenId};

/// A change of what the prefix cache can find. Hashes, not block ids: two blocks may have one, and it is stored with the
/// first of them and removed with the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockEvent {
    /// Consecutive full blocks of one sequence can be found from now on.
    Stored {
        /// Their hashes, in order.
        hashes: Vec<BlockHash>,
        /// The hash of the block before them; `None` if they start the sequence.
        parent: Option<BlockHash>,
        /// Their tokens, one block after the other.
        token_ids: Vec<TokenId>,
    },
    /// A block is found no more.
    Removed {
        /// Its hash.
        hash: BlockHash,
    },
    /// Nothing is found any more.
    Cleared,
}

/// A full block, as the prefix cache is told of it.
#[derive(Debug, Clone, Copy)]
pub struct FullBlock<'a> {
    /// Its hash.
    pub hash: BlockHash,
    /// The hash of the block before it, or the root for the first of a sequence.
    pub parent: BlockHash,
    /// Whether it is the first of its sequence.
    pub is_first: bool,
    /// Its tokens.
    pub token_ids: &'a [TokenId],
}

/// The events since they were last taken, if anybody wants them.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockEvents {
    recorded: Option<Vec<BlockEvent>>,
}

impl BlockEvents {
    /// Records from now on.
    pub fn record(&mut self) {
        self.recorded.get_or_insert_default();
    }

    /// Moves what was recorded to the end of `events`.
    pub fn take(&mut self, events: &mut Vec<BlockEvent>) {
        if let Some(recorded) = &mut self.recorded {
            events.append(recorded);
        }
    }

    /// Blocks that follow each other are one event.
    pub fn stored(&mut self, block: &FullBlock<'_>) {
        let Some(recorded) = &mut self.recorded else { return };
        if let Some(BlockEvent::Stored { hashes, token_ids, .. }) = recorded.last_mut()
            && hashes.last() == Some(&block.parent)
        {
            hashes.push(block.hash);
            token_ids.extend_from_slice(block.token_ids);
            return;
        }
        recorded.push(BlockEvent::Stored {
            hashes: vec![block.hash],
            parent: (!block.is_first).then_some(block.parent),
            token_ids: block.token_ids.to_vec(),
        });
    }

    pub fn removed(&mut self, hash: BlockHash) {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(BlockEvent::Removed { hash });
        }
    }

    pub fn cleared(&mut self) {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(BlockEvent::Cleared);
        }
    }
}
