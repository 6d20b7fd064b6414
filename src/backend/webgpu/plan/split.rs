//! Products that are cut along the columns of x: a step of some rows has few tiles, and a GPU that it does not fill waits for
//! memory in every block of columns. Their parts are added by the norm that comes next, in its dispatch.

use super::super::super::{ActId, BackendError};
use super::super::fusion::{Fused, Norm, Product};
use super::super::grid::Grid;
use super::super::kernel::{self, MatMulKernel, TILE_ROWS, VECTOR_ROWS};
use super::super::step_words::header;
use super::{Call, Planner};
use std::ops::RangeInclusive;

/// Rows of the steps whose products are cut: fewer are `matvec`'s, and more have tiles enough.
const ROWS: RangeInclusive<u32> = VECTOR_ROWS + 1..=TILE_ROWS;

/// Workgroups that a product is cut into, at most: two for each multiprocessor of a large GPU.
const WORKGROUPS: u32 = 256;

/// Blocks of 32 columns of a part, at least.
const PART_BLOCKS: u32 = 16;

/// Bytes of the parts of any product, f32 `[splits][rows][cols]`: a tile for each workgroup.
pub(in super::super) const PARTS_BYTES: u64 = 4 * (WORKGROUPS * TILE_ROWS * TILE_ROWS) as u64;

/// Into how many parts a product is cut, and the one whose output it normalises; 1 is not at all.
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
    /// Into how many parts a product is cut before `next`.
    pub(super) fn splits(&self, product: &Product, next: Option<&Fused>) -> u32 {
        let Some(Fused::Product(Product { norm: Some(norm), .. })) = next else { return 1 };
        let is_residual = product.accumulate && product.bias.is_none() && product.norm.is_none();
        let is_whole = self.weight(product.weight).parts.len() == 1;
        if self.parts.is_none() || norm.x != product.out || !is_residual || !is_whole {
            return 1;
        }
        let tiles = self.cols(product.out).div_ceil(TILE_ROWS);
        (self.cols(product.x) / 32 / PART_BLOCKS).min(WORKGROUPS / tiles).max(1)
    }

    /// Adds the parts of the product before to `norm.x`, and normalises it.
    pub(super) fn rms_norm_of_parts(&self, norm: Norm, splits: u32, out: ActId) -> Result<Call, BackendError> {
        let rows = self.rows(out);
        let params = kernel::RmsNormOfPartsParams {
            quads: self.cols(out) / 4,
            eps: norm.eps,
            rows: header::count_of(rows),
            splits,
        };
        let kernel = kernel::rms_norm_of_parts(self.gpu.variant, self.gpu.subgroup_size());
        let buffers = [self.parts_buffer(), self.vector(norm.weight), self.activation(norm.x), self.activation(out)];
        let grid = Grid::RowGroups { rows, each: 1, y: 1 };
        self.call(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }

    /// Where the parts of a product stand.
    pub(super) fn parts_buffer(&self) -> &wgpu::Buffer {
        self.parts.as_ref().expect("products are cut where there is room for their parts")
    }
}
