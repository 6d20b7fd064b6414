//! Runs batches on a backend.

use super::config::ModelConfig;
use super::host_blocks::HostBlocks;
use crate::backend::{Backend, BackendError, FedToken, LogitAdjustment, ScoredRow, StepInput, StepOutput, TokenDraw};
use crate::engine::Batch;

/// What is to come back of some logits rows, see [`StepInput`].
#[derive(Debug, Clone, Copy, Default)]
pub struct WantedRows<'a> {
    /// Rows that come back whole.
    pub whole: &'a [u32],
    /// Rows whose likeliest tokens come back.
    pub top_k_rows: &'a [u32],
    /// How many of them.
    pub top_k: u32,
    /// Tokens to draw.
    pub draws: &'a [TokenDraw],
    /// What the draws change first.
    pub adjustments: &'a [LogitAdjustment],
    /// Tokens whose log probabilities come back.
    pub scored: &'a [ScoredRow],
    /// What the device puts in the places of [`Batch::fed_tokens`].
    pub fed_tokens: &'a [FedToken],
}

impl<'a> WantedRows<'a> {
    /// Whole rows only.
    pub fn whole(rows: &'a [u32]) -> Self {
        Self { whole: rows, ..Self::default() }
    }
}

/// A model on a device: takes the scheduler's batches.
pub struct ModelRunner {
    backend: Box<dyn Backend>,
    config: ModelConfig,
    identity: [u8; 32],
    block_copies: Vec<(u32, u32)>,
    host_blocks: HostBlocks,
}

impl ModelRunner {
    /// Over a backend that holds the weights and is [prepared](Backend::prepare); `identity` is the checkpoint's.
    pub fn new(backend: Box<dyn Backend>, config: ModelConfig, identity: [u8; 32]) -> Self {
        Self { backend, config, identity, block_copies: Vec::new(), host_blocks: HostBlocks::default() }
    }

    /// Makes room for `num_blocks` blocks on the host, for [`ModelRunner::swap`]. Memory is taken as it is used.
    pub fn reserve_host_blocks(&mut self, num_blocks: u32) {
        self.host_blocks = HostBlocks::new(num_blocks);
    }

    /// Makes the swaps of a step; they come before its [`ModelRunner::submit`]. Returns how many blocks were copied.
    ///
    /// # Errors
    /// [`BackendError`] when the device fails.
    pub fn swap(&mut self, batch: &Batch) -> Result<u32, BackendError> {
        self.host_blocks.swap(&mut *self.backend, batch)
    }

    /// Sizes and constants of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The checkpoint's identity, for the keys of the prefix cache.
    pub fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// The device.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The device, for reading and writing its buffers in tests.
    pub fn backend_mut(&mut self) -> &mut dyn Backend {
        &mut *self.backend
    }

    /// Begins one step: the argmax of every logits row, and of some rows (ascending indices into the batch's
    /// `logits_indices`) more, as `wanted` says.
    ///
    /// # Errors
    /// [`BackendError`] when the device fails.
    ///
    /// # Panics
    /// If the batch is inconsistent: a bug of the scheduler.
    pub fn submit(&mut self, batch: &Batch, wanted: WantedRows<'_>) -> Result<(), BackendError> {
        assert_eq!(wanted.fed_tokens.len(), batch.fed_tokens.len(), "tokens that the step before samples");
        self.block_copies.clear();
        self.block_copies.extend(batch.block_copies.iter().map(|copy| (copy.src.0, copy.dst.0)));
        let input = StepInput {
            token_ids: &batch.token_ids,
            fed_tokens: wanted.fed_tokens,
            positions: &batch.positions,
            slot_mapping: &batch.slot_mapping,
            query_start_loc: &batch.query_start_loc,
            seq_lens: &batch.seq_lens,
            block_tables: &batch.block_tables,
            block_table_start: &batch.block_table_start,
            logits_indices: &batch.logits_indices,
            block_copies: &self.block_copies,
            read_logits_rows: wanted.whole,
            top_k_rows: wanted.top_k_rows,
            top_k: wanted.top_k,
            draws: wanted.draws,
            adjustments: wanted.adjustments,
            scored: wanted.scored,
        };
        self.backend.submit(&input)
    }

    /// Waits for the earliest step that has begun and not been collected; `output` is overwritten.
    ///
    /// # Errors
    /// [`BackendError`] when the device fails.
    pub fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError> {
        self.backend.collect(output)
    }
}
