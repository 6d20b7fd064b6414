//! Block hashes: what names the contents of a full block, from the first token of its sequence on.

use sha2::{Digest, Sha256};

use super::TokenId;

/// SHA-256 over a block's token ids and its parent's hash; the first block's parent is [`BlockHash::root`].
///
/// A cryptographic hash, because a client who can build a collision can read what another client's prompt left in the
/// KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash(pub [u8; 32]);

/// Everything besides the tokens that the contents of a block depend on, or that must keep two clients apart.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtraKeys<'a> {
    /// Identity of the model (name, revision, weights).
    pub model: &'a [u8],
    /// Identity of the adapter, if any.
    pub adapter: Option<&'a [u8]>,
    /// The client's salt, if any: blocks are shared only among requests with the same salt.
    pub cache_salt: Option<&'a [u8]>,
}

impl BlockHash {
    /// The parent of first blocks. Keys are tagged and carry their length, so an adapter named like another request's
    /// salt does not collide with it.
    pub fn root(keys: ExtraKeys) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"bindery block hash, version 1");
        for (tag, key) in [(b'm', Some(keys.model)), (b'a', keys.adapter), (b's', keys.cache_salt)] {
            let Some(key) = key else { continue };
            hasher.update([tag]);
            hasher.update((key.len() as u64).to_le_bytes());
            hasher.update(key);
        }
        BlockHash(hasher.finalize().into())
    }

    /// The hash of the full block `token_ids` that follows the block `self`.
    pub fn child(&self, token_ids: &[TokenId]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        for token in token_ids {
            hasher.update(token.to_le_bytes());
        }
        BlockHash(hasher.finalize().into())
    }
}
