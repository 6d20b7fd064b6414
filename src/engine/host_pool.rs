//! The host pool: where the blocks of swapped-out requests wait, and what it costs to put them there.

use super::{BlockId, BlockPool, BlockTable};

/// What the two ways of preemption cost, in any one unit of time. Whoever runs the device measures them and says so by
/// [`super::Scheduler::set_preemption_costs`]; by default swapping is free and always chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreemptionCosts {
    /// To compute one token of a prompt again.
    pub compute_token: u64,
    /// To copy one block of all layers between device and host, one way.
    pub copy_block: u64,
}

impl Default for PreemptionCosts {
    fn default() -> Self {
        PreemptionCosts { compute_token: 1, copy_block: 0 }
    }
}

/// One block that moves between the device and the host, with its keys and values of all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSwap {
    /// Block of the pool on the device.
    pub device: BlockId,
    /// Block of the pool on the host.
    pub host: BlockId,
}

/// Reference counts of the blocks on the host. Block ids count from 0, apart from those of the device.
#[derive(Debug, Clone)]
pub(super) struct HostPool {
    pool: BlockPool,
    /// For each block, the visit in which it was last seen.
    seen: Vec<u32>,
    visit: u32,
}

impl HostPool {
    pub fn new(num_blocks: u32) -> Self {
        HostPool { pool: BlockPool::new(num_blocks), seen: vec![0; num_blocks as usize], visit: 0 }
    }

    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    pub fn num_used(&self) -> u32 {
        self.pool.num_blocks() - self.pool.num_free()
    }

    pub fn allocate(&mut self) -> BlockId {
        self.pool.allocate().expect("the caller has counted the free blocks")
    }

    pub fn share(&mut self, block: BlockId) {
        self.pool.share(block);
    }

    /// A table that shares every block of `parent`.
    pub fn fork(&mut self, parent: &BlockTable) -> BlockTable {
        parent.blocks().iter().for_each(|&block| self.pool.share(block));
        parent.clone()
    }

    /// Releases all blocks of `table`.
    pub fn free(&mut self, table: &mut BlockTable) {
        for &block in table.blocks() {
            if self.pool.release(block) {
                self.pool.enqueue(block, false);
            }
        }
        table.clear();
    }

    /// Counts blocks that stand in several of `tables` once.
    pub fn num_distinct<'a>(&mut self, tables: impl Iterator<Item = &'a [BlockId]>) -> u32 {
        self.visit = self.visit.wrapping_add(1);
        let mut distinct = 0;
        for &block in tables.flatten() {
            let seen = std::mem::replace(&mut self.seen[block.0 as usize], self.visit);
            distinct += u32::from(seen != self.visit);
        }
        distinct
    }
}
