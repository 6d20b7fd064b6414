//! The dispatches after the program: argmax, the likeliest tokens, draws, and log probabilities.

use super::super::super::{ActId, Rows};
use super::super::buffers::{DRAW_BLOCK, LOGITS_CHUNK};
use super::super::grid::Grid;
use super::super::kernel;
use super::Planner;

impl Planner<'_> {
    pub(super) fn argmax(&mut self, logits: ActId) {
        let vocab = self.cols(logits);
        let chunks = vocab.div_ceil(LOGITS_CHUNK);
        let params = kernel::ArgmaxChunksParams { vocab, chunks };
        let kernel = kernel::argmax_chunks(self.gpu.variant, self.gpu.subgroup_size());
        let grid = Grid::Columns { x: chunks, rows: Rows::Logits, each: 1 };
        let buffers = [self.activation(logits), &self.buffers.chunk_max];
        self.single(&kernel, Rows::Logits, grid, bytemuck::bytes_of(&params), &buffers);
        let params = kernel::ArgmaxRowsParams { chunks };
        let grid = Grid::RowGroups { rows: Rows::Logits, each: 32, y: 1 };
        let buffers = [&self.buffers.chunk_max, &self.buffers.ids];
        self.single(&kernel::argmax_rows(), Rows::Logits, grid, bytemuck::bytes_of(&params), &buffers)
    }

    pub(super) fn top_k(&mut self, logits: ActId) {
        let vocab = self.cols(logits);
        let chunks = vocab.div_ceil(LOGITS_CHUNK);
        let params = kernel::TopKChunksParams { vocab, chunks };
        let kernel = kernel::top_k_chunks(self.gpu.variant, self.gpu.subgroup_size());
        let b = &self.buffers.top_k;
        let buffers = [self.activation(logits), &b.chunk_sums, &b.chunk_top];
        let grid = Grid::TopKColumns { x: chunks };
        self.single(&kernel, Rows::Logits, grid, bytemuck::bytes_of(&params), &buffers);
        let params = kernel::TopKRowsParams { chunks };
        let kernel = kernel::top_k_rows(self.gpu.variant, self.gpu.subgroup_size());
        let buffers = [&b.chunk_sums, &b.chunk_top, &b.scores];
        self.single(&kernel, Rows::Logits, Grid::TopKRows, bytemuck::bytes_of(&params), &buffers)
    }

    pub(super) fn draws(&mut self, logits: ActId) {
        let vocab = self.cols(logits);
        let blocks = vocab.div_ceil(DRAW_BLOCK);
        let params = kernel::DrawBlocksParams { vocab, blocks };
        let b = &self.buffers.draws;
        let buffers = [self.activation(logits), &b.keys, &b.stats];
        let grid = Grid::DrawColumns { x: blocks.div_ceil(32) };
        self.single(&kernel::draw_blocks(), Rows::Logits, grid, bytemuck::bytes_of(&params), &buffers);
        let params = kernel::DrawRowsParams { blocks };
        let kernel = kernel::draw_rows(self.gpu.variant, self.gpu.subgroup_size());
        let buffers = [&b.keys, &b.stats, &b.drawn];
        self.single(&kernel, Rows::Logits, Grid::Draws, bytemuck::bytes_of(&params), &buffers)
    }

    /// What has been sampled by now can be scored, too.
    pub(super) fn scores(&mut self, logits: ActId) {
        let params = kernel::ScoreRowsParams { vocab: self.cols(logits) };
        let kernel = kernel::score_rows(self.gpu.variant, self.gpu.subgroup_size());
        let b = self.buffers;
        let buffers = [self.activation(logits), &b.ids, &b.draws.drawn, &b.scores];
        self.single(&kernel, Rows::Logits, Grid::Scored, bytemuck::bytes_of(&params), &buffers)
    }
}
