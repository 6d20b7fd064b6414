//! The launches after the program: argmax, the likeliest tokens, draws, and log probabilities.

use super::super::super::{ActId, Rows};
use super::super::buffers::{DRAW_BLOCK, LOGITS_CHUNK};
use super::super::driver::Buffer;
use super::super::grid::Grid;
use super::super::kernel;
use super::Planner;

impl Planner<'_> {
    pub(super) fn argmax(&mut self, logits: ActId) {
        let vocab = self.cols(logits);
        let chunks = vocab.div_ceil(LOGITS_CHUNK);
        let params = kernel::ArgmaxChunksParams { vocab, chunks };
        let [chunk_max, ids] = [&self.buffers.chunk_max, &self.buffers.ids].map(Buffer::address);
        let grid = Grid::Columns { x: chunks, rows: Rows::Logits, each: 1 };
        let buffers = [self.activation(logits), chunk_max];
        self.single(&kernel::argmax_chunks(), Rows::Logits, grid, &params, &buffers);
        let kernel = kernel::argmax_rows();
        let grid = Grid::RowGroups { rows: Rows::Logits, each: kernel.threads, y: 1 };
        self.single(&kernel, Rows::Logits, grid, &kernel::ArgmaxRowsParams { chunks }, &[chunk_max, ids])
    }

    pub(super) fn top_k(&mut self, logits: ActId) {
        let vocab = self.cols(logits);
        let chunks = vocab.div_ceil(LOGITS_CHUNK);
        let params = kernel::TopKChunksParams { vocab, chunks };
        let b = &self.buffers.top_k;
        let [sums, top, scores] = [&b.chunk_sums, &b.chunk_top, &b.scores].map(Buffer::address);
        let grid = Grid::TopKColumns { x: chunks };
        let buffers = [self.activation(logits), sums, top];
        self.single(&kernel::top_k_chunks(), Rows::Logits, grid, &params, &buffers);
        let params = kernel::TopKRowsParams { chunks };
        self.single(&kernel::top_k_rows(), Rows::Logits, Grid::TopKRows, &params, &[sums, top, scores])
    }

    pub(super) fn draws(&mut self, logits: ActId) {
        let vocab = self.cols(logits);
        let blocks = vocab.div_ceil(DRAW_BLOCK);
        let b = &self.buffers.draws;
        let [keys, stats, drawn] = [&b.keys, &b.stats, &b.drawn].map(Buffer::address);
        let kernel = kernel::draw_blocks();
        let grid = Grid::DrawColumns { x: vocab.div_ceil(kernel.threads) };
        let params = kernel::DrawBlocksParams { vocab, blocks };
        self.single(&kernel, Rows::Logits, grid, &params, &[self.activation(logits), keys, stats]);
        let params = kernel::DrawRowsParams { blocks };
        self.single(&kernel::draw_rows(), Rows::Logits, Grid::Draws, &params, &[keys, stats, drawn])
    }

    /// What has been sampled by now can be scored, too.
    pub(super) fn scores(&mut self, logits: ActId) {
        let params = kernel::ScoreRowsParams { vocab: self.cols(logits) };
        let b = &self.buffers;
        let [ids, drawn, scores] = [&b.ids, &b.draws.drawn, &b.scores].map(Buffer::address);
        let buffers = [self.activation(logits), ids, drawn, scores];
        self.single(&kernel::score_rows(), Rows::Logits, Grid::Scored, &params, &buffers)
    }
}
