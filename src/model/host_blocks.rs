//! KV blocks on the host: what swapped-out requests left there.

use crate::backend::{Backend, BackendError};
use crate::engine::{Batch, BlockSwap};

/// Blocks that move in one call of the backend: a bound on what it stages.
const BLOCKS_AT_ONCE: usize = 64;

/// Host memory of [`crate::engine::SchedulerConfig::num_host_blocks`] blocks. Reserved at once, but a system that hands
/// memory out by the page gives it when a block is first used.
#[derive(Debug, Default)]
pub(super) struct HostBlocks {
    bytes: Vec<u8>,
    block_bytes: usize,
    /// Block ids of the call being made.
    ids: Vec<u32>,
}

impl HostBlocks {
    /// `num_blocks` blocks of `block_bytes` each.
    pub(super) fn new(num_blocks: u32, block_bytes: u64) -> Self {
        let block_bytes = block_bytes as usize;
        Self { bytes: vec![0; num_blocks as usize * block_bytes], block_bytes, ids: Vec::new() }
    }

    /// Makes the swaps of a step, those to the host first. Returns how many blocks were copied.
    pub(super) fn swap(&mut self, backend: &mut dyn Backend, batch: &Batch) -> Result<u32, BackendError> {
        for swaps in batch.swap_outs.chunks(BLOCKS_AT_ONCE) {
            self.ids.clear();
            self.ids.extend(swaps.iter().map(|swap| swap.device.0));
            let read = backend.read_blocks(&self.ids)?;
            for (swap, block) in swaps.iter().zip(read.chunks_exact(self.block_bytes)) {
                let at = self.at(swap);
                self.bytes[at].copy_from_slice(block);
            }
        }
        let mut staged = Vec::new();
        for swaps in batch.swap_ins.chunks(BLOCKS_AT_ONCE) {
            self.ids.clear();
            self.ids.extend(swaps.iter().map(|swap| swap.device.0));
            staged.clear();
            for swap in swaps {
                staged.extend_from_slice(&self.bytes[self.at(swap)]);
            }
            backend.write_blocks(&self.ids, &staged)?;
        }
        Ok((batch.swap_outs.len() + batch.swap_ins.len()) as u32)
    }

    fn at(&self, swap: &BlockSwap) -> std::ops::Range<usize> {
        let start = swap.host.0 as usize * self.block_bytes;
        start..start + self.block_bytes
    }
}
