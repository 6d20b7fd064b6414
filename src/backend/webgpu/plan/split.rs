//! Products that are split along the columns of x (split-K): a step of some rows has few tiles, and a GPU that it does not fill
//! waits for memory in every block of columns. The norm that comes next adds their partial sums, in its dispatch.

use super::super::super::ActId;
use super::super::fusion::{Fused, Norm, Product};
use super::super::grid::Grid;
use super::super::kernel::{self, MatMulKernel, TILE_ROWS, VECTOR_ROWS};
use super::super::step_words::header;
use super::super::tuning::MOST_SPLIT_WORKGROUPS;
use super::{Draft, Planner};
use std::ops::RangeInclusive;

/// Rows of the steps whose products are split: fewer are `matvec`'s, and more have tiles enough.
const ROWS: RangeInclusive<u32> = VECTOR_ROWS + 1..=TILE_ROWS;

/// Blocks of 32 columns of a split, at least.
const SPLIT_BLOCKS: u32 = 16;

/// Bytes of the partial sums of any product, f32 `[splits][rows][cols]`: a tile for each workgroup.
pub(in super::super) const PARTIAL_SUMS_BYTES: u64 = 4 * (MOST_SPLIT_WORKGROUPS * TILE_ROWS * TILE_ROWS) as u64;

/// Splits of a product, and of the one before it whose output it normalises; 1 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Splits {
    pub(super) before: u32,
    pub(super) own: u32,
}

impl Splits {
    const NONE: Self = Self { before: 1, own: 1 };

    /// The kernels with the splits that hold for each, beside the largest number of rows that it is chosen for.
    pub(super) fn of(self, kernels: Vec<(u32, MatMulKernel)>) -> Vec<(u32, MatMulKernel, Self)> {
        if self == Self::NONE {
            return kernels.into_iter().map(|(max_rows, kernel)| (max_rows, kernel, self)).collect();
        }
        let edges = [*ROWS.start() - 1, *ROWS.end()];
        let mut all = Vec::new();
        let mut done = 0;
        for (max_rows, kernel) in kernels {
            let within = edges.into_iter().filter(|edge| (done + 1..max_rows).contains(edge));
            for max_rows in within.chain([max_rows]) {
                let splits = if ROWS.contains(&max_rows) { self } else { Self::NONE };
                all.push((max_rows, if splits.own > 1 { kernel.split(splits.own) } else { kernel }, splits));
            }
            done = max_rows;
        }
        all
    }
}

impl Planner<'_> {
    /// Splits of a product before `next`.
    pub(super) fn splits(&self, product: &Product, next: Option<&Fused>) -> u32 {
        let Some(Fused::Product(Product { norm: Some(norm), .. })) = next else { return 1 };
        let is_residual = product.accumulate && product.bias.is_none() && product.norm.is_none();
        let is_whole = self.weight(product.weight).parts.len() == 1;
        if self.partial_sums.is_none() || norm.x != product.out || !is_residual || !is_whole {
            return 1;
        }
        let tiles = self.cols(product.out).div_ceil(TILE_ROWS);
        (self.cols(product.x) / 32 / SPLIT_BLOCKS).min(self.tuning.split_workgroups / tiles).max(1)
    }

    /// Adds the partial sums of the product before to `norm.x`, and normalises it.
    pub(super) fn rms_norm_of_partial_sums(&self, norm: Norm, splits: u32, out: ActId) -> Draft {
        let rows = self.rows(out);
        let params = kernel::RmsNormOfPartialSumsParams {
            quads: self.cols(out) / 4,
            eps: norm.eps,
            rows: header::count_of(rows),
            splits,
        };
        let kernel = kernel::rms_norm_of_partial_sums(self.gpu.variant, self.gpu.subgroup_size());
        let buffers = [self.partial_sums(), self.vector(norm.weight), self.activation(norm.x), self.activation(out)];
        let grid = Grid::RowGroups { rows, each: 1, y: 1 };
        self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }

    /// Where the partial sums of a split product stand.
    pub(super) fn partial_sums(&self) -> &wgpu::Buffer {
        self.partial_sums.as_ref().expect("products are split where there is room for their partial sums")
    }
}
