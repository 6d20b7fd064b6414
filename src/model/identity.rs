//! A stable name for a checkpoint's contents.

use sha2::{Digest, Sha256};

/// Bytes hashed at each end of each tensor.
const SAMPLE_BYTES: usize = 256;

/// SHA-256 over everything that tells two checkpoints apart, short of reading all weights: headers, file sizes, and
/// the two ends of every tensor. Equal files give equal identities on every machine.
pub(crate) struct IdentityHasher(Sha256);

impl IdentityHasher {
    pub(crate) fn new(kind: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.add("bindery model identity 1", kind.as_bytes());
        hasher
    }

    /// Adds one tagged, length-prefixed item.
    pub(crate) fn add(&mut self, tag: &str, bytes: &[u8]) {
        for part in [tag.as_bytes(), bytes] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// Adds the two ends of a tensor's data.
    pub(crate) fn add_tensor(&mut self, name: &str, data: &[u8]) {
        self.add(name, &data[..data.len().min(SAMPLE_BYTES)]);
        self.add("end", &data[data.len().saturating_sub(SAMPLE_BYTES)..]);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
