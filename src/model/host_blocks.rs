//! KV blocks on the host: what swapped-out requests left there.

use crate::backend::{Backend, BackendError};
use crate::engine::Batch;

/// Blocks that move in one call of the backend: a bound on what it stages.
const BLOCKS_AT_ONCE: usize = 64;

/// The contents of [`crate::engine::SchedulerConfig::num_host_blocks`] blocks. A block takes memory when it is first
/// used, and keeps it for the next one.
#[derive(Debug, Default)]
pub(super) struct HostBlocks {
    blocks: Vec<Vec<u8>>,
    /// Block ids, and bytes, of the call being made.
    ids: Vec<u32>,
    staged: Vec<u8>,
}

impl HostBlocks {
    /// `num_blocks` blocks that have not been used.
    pub(super) fn new(num_blocks: u32) -> Self {
        Self { blocks: vec![Vec::new(); num_blocks as usize], ..Self::default() }
    }

    /// Makes the swaps of a step, those to the host first. Returns how many blocks were copied.
    pub(super) fn swap(&mut self, backend: &mut dyn Backend, batch: &Batch) -> Result<u32, BackendError> {
        for swaps in batch.swap_outs.chunks(BLOCKS_AT_ONCE) {
            self.ids.clear();
            self.ids.extend(swaps.iter().map(|swap| swap.device.0));
            let read = backend.read_blocks(&self.ids)?;
            for (swap, contents) in swaps.iter().zip(read.chunks_exact(read.len() / swaps.len())) {
                let block = &mut self.blocks[swap.host.0 as usize];
                block.clear();
                block.extend_from_slice(contents);
            }
        }
        for swaps in batch.swap_ins.chunks(BLOCKS_AT_ONCE) {
            self.ids.clear();
            self.staged.clear();
            for swap in swaps {
                self.ids.push(swap.device.0);
                self.staged.extend_from_slice(&self.blocks[swap.host.0 as usize]);
            }
            backend.write_blocks(&self.ids, &self.staged)?;
        }
        Ok((batch.swap_outs.len() + batch.swap_ins.len()) as u32)
    }
}
