//! The matrix products.

use super::super::folded::{Epilogue, Folded};
use super::super::repack::DeviceFormat;
use super::{Kernel, TENSOR_CAPABILITY, cuda, params};

params! {
    /// Parameters of the matrix products; `matvec` alone reads `grid_width`.
    MatMulParams {
        blocks: u32,
        cols: u32,
        out_stride: u32,
        out_offset: u32,
        rows: u32,
        flags: u32,
        grid_width: u32,
        norm_eps: f32,
    }
}

/// A matrix product for at most `tile` rows (`matvec`), or any number (`matmul_tensor`, `matmul`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum MatMulKernel {
    /// `matvec` with this many rows. Grid: (output columns / group columns, 1), or folded into y.
    Vector {
        /// Rows of x.
        tile: u32,
    },
    /// `matmul_tensor` with this many rows in a tile. Grid: as `Tiled`.
    Tensor {
        /// Rows of x.
        tile: u32,
    },
    /// `matmul`. Grid: (output columns / group columns, rows / group rows).
    Tiled,
}

/// Invocations of a workgroup of `matvec`: four subgroups, with columns of their own.
const VECTOR_THREADS: u32 = 128;
const VECTOR_SUBGROUPS: u32 = VECTOR_THREADS / 32;
/// Output columns of a workgroup of `matmul_tensor`.
const TENSOR_COLS: u32 = 128;

/// Rows of the weight of a subgroup of `matvec`: the more rows of x share the loaded weights, the more of them have to share
/// the loaded x.
fn vector_cols(tile: u32, epilogue: Epilogue) -> u32 {
    if tile <= 2 { epilogue.least_rows().max(2) } else { 4 }
}

/// Halves that make up an f32 of x in `matmul_tensor`: as many as keep f32's precision, so that this kernel's results are
/// as good as those of the others.
fn parts(format: DeviceFormat) -> u32 {
    match format {
        DeviceFormat::Bf16 => 3,
        DeviceFormat::F32 | DeviceFormat::F16 | DeviceFormat::Q8 | DeviceFormat::Q4 => 2,
    }
}

impl MatMulKernel {
    /// The kernels, each with the largest number of rows that it is chosen for. Where rows must not depend on each other
    /// only those that sum in one order: `matmul_tensor` does, in a tile of any size.
    pub(in super::super) fn choices(
        format: DeviceFormat,
        compute_capability: u32,
        batch_invariant: bool,
    ) -> Vec<(u32, Self)> {
        let vectors = if batch_invariant { &[][..] } else { &[1, 2, 4, 8] };
        let has_tensor = compute_capability >= TENSOR_CAPABILITY && format != DeviceFormat::F32;
        let many: &[(u32, Self)] = if has_tensor {
            &[(32, Self::Tensor { tile: 32 }), (64, Self::Tensor { tile: 64 }), (u32::MAX, Self::Tensor { tile: 128 })]
        } else {
            &[(u32::MAX, Self::Tiled)]
        };
        vectors.iter().map(|&tile| (tile, Self::Vector { tile })).chain(many.iter().copied()).collect()
    }

    /// Whether it can do more than its sums. What many rows gain by that is little beside the product.
    pub(in super::super) fn folds(self) -> bool {
        matches!(self, Self::Vector { .. })
    }

    /// Columns of one workgroup.
    pub(in super::super) fn group_cols(self, epilogue: Epilogue) -> u32 {
        match self {
            Self::Vector { tile } => VECTOR_SUBGROUPS * vector_cols(tile, epilogue) / epilogue.parts(),
            Self::Tensor { .. } => TENSOR_COLS,
            Self::Tiled => 64,
        }
    }

    /// Rows of x of one workgroup.
    pub(in super::super) fn group_rows(self) -> u32 {
        match self {
            Self::Vector { tile } | Self::Tensor { tile } => tile,
            Self::Tiled => 64,
        }
    }

    /// `folded` is nothing where it does not [fold](Self::folds).
    pub(in super::super) fn kernel(self, format: DeviceFormat, folded: Folded) -> Kernel {
        let build = |name, file, threads| {
            Kernel::new::<MatMulParams>(name, file, threads, 3).weight(format).include(cuda!("include/matmul.cuh"))
        };
        match self {
            Self::Vector { tile } => {
                let cols = vector_cols(tile, folded.epilogue);
                let registers = match tile {
                    1 | 2 => 96,
                    4 => 120,
                    _ => 168,
                };
                build("matvec", cuda!("matvec.cu"), VECTOR_THREADS)
                    .constant("TILE", tile)
                    .constant("COLS", cols)
                    .constant("UNROLL", if tile <= 2 { 8 / cols } else { 1 })
                    .limits(registers, 0)
                    .fold(folded)
            }
            Self::Tensor { tile } => {
                // Staged rows of 40 halves, and the scales of the columns.
                let workgroup_bytes = 80 * (parts(format) * tile + TENSOR_COLS) + 8 * TENSOR_COLS;
                build("matmul_tensor", cuda!("matmul_tensor.cu"), 256)
                    .constant("TILE_ROWS", tile)
                    .constant("GROUPS_DOWN", if tile == 32 { 1 } else { 2 })
                    .constant("PARTS", parts(format))
                    .limits(if tile == 128 { 255 } else { 128 }, workgroup_bytes)
                    .requires(TENSOR_CAPABILITY)
            }
            Self::Tiled => build("matmul", cuda!("matmul.cu"), 256).limits(96, 2 * 32 * 68 * 4),
        }
    }
}

impl Kernel {
    /// What reads a product's input, and what becomes of its sums.
    fn fold(mut self, folded: Folded) -> Self {
        self.buffers += u32::from(folded.norm);
        let input = if folded.norm { cuda!("include/input_normed.cuh") } else { cuda!("include/input_plain.cuh") };
        let kernel = self.include(input);
        match folded.epilogue {
            Epilogue::Plain => kernel.include(cuda!("include/product_plain.cuh")),
            Epilogue::Gate => kernel.include(cuda!("include/product_gated.cuh")),
            Epilogue::RopeAndCache { shape, kv, pairing } => {
                let mut kernel = kernel.kv(&shape, kv).pairing(pairing);
                kernel.buffers += 3;
                kernel.include(cuda!("include/product_rope_and_cache.cuh"))
            }
        }
    }
}
