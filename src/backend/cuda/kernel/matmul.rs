//! The matrix products.

use super::super::super::repack::DeviceFormat;
use super::{Kernel, cuda, params};

params! {
    /// Parameters of the matrix products; `matvec` alone reads `grid_width`.
    MatMulParams {
        blocks: u32,
        cols: u32,
        out_stride: u32,
        out_offset: u32,
        rows: u32,
        accumulate: u32,
        has_bias: u32,
        grid_width: u32,
    }
}

/// A matrix product for at most `tile` rows (`matvec`), or any number (`matmul`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum MatMulKernel {
    /// `matvec` with this many rows. Grid: (output columns / group columns, 1), or folded into y.
    Vector {
        /// Rows of x.
        tile: u32,
    },
    /// `matmul`. Grid: (output columns / group columns, rows / group rows).
    Tiled,
}

/// Invocations of a workgroup of `matvec`: four subgroups, with columns of their own.
const VECTOR_THREADS: u32 = 128;
const VECTOR_SUBGROUPS: u32 = VECTOR_THREADS / 32;

/// Output columns of a subgroup of `matvec`: the more rows share the loaded weights, the more columns have to share the
/// loaded rows.
fn vector_cols(tile: u32) -> u32 {
    if tile <= 2 { 2 } else { 4 }
}

impl MatMulKernel {
    /// The kernels, each with the largest number of rows that it is chosen for; only one of them where rows must not depend
    /// on each other.
    pub(in super::super) fn choices(batch_invariant: bool) -> Vec<(u32, Self)> {
        if batch_invariant {
            return vec![(u32::MAX, Self::Tiled)];
        }
        let vectors = [1, 2, 4, 8].map(|tile| (tile, Self::Vector { tile }));
        vectors.into_iter().chain([(u32::MAX, Self::Tiled)]).collect()
    }

    /// Output columns of one workgroup.
    pub(in super::super) fn group_cols(self) -> u32 {
        match self {
            Self::Vector { tile } => VECTOR_SUBGROUPS * vector_cols(tile),
            Self::Tiled => 64,
        }
    }

    /// Rows of x of one workgroup.
    pub(in super::super) fn group_rows(self) -> u32 {
        match self {
            Self::Vector { tile } => tile,
            Self::Tiled => 64,
        }
    }

    pub(in super::super) fn kernel(self, format: DeviceFormat) -> Kernel {
        match self {
            Self::Vector { tile } => Kernel::new::<MatMulParams>("matvec", cuda!("matvec.cu"), VECTOR_THREADS, 3)
                .constant("TILE", tile)
                .constant("COLS", vector_cols(tile))
                .constant("UNROLL", if tile <= 2 { 4 } else { 1 })
                .limits(if tile == 8 { 128 } else { 96 }, 0),
            Self::Tiled => {
                Kernel::new::<MatMulParams>("matmul", cuda!("matmul.cu"), 256, 3).limits(96, 2 * 32 * 68 * 4)
            }
        }
        .weight(format)
        .include(cuda!("include/matmul.cuh"))
    }
}
