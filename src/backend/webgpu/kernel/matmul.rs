//! The matrix products: which kernel for how many rows, how each is cut, and what is folded into it.

use super::super::repack::DeviceFormat;
use super::super::{Tuning, Variant};
use super::{Kernel, read, write};

macro_rules! wgsl {
    ($path:literal) => {
        include_str!(concat!("../../../../shaders/wgsl/", $path))
    };
}

/// Parameters of the matrix products; `matvec` alone reads `grid_width`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct MatMulParams {
    pub(in super::super) blocks: u32,
    pub(in super::super) cols: u32,
    pub(in super::super) out_stride: u32,
    pub(in super::super) out_offset: u32,
    pub(in super::super) rows: u32,
    pub(in super::super) flags: u32,
    pub(in super::super) grid_width: u32,
    pub(in super::super) norm_eps: f32,
}

/// Bits of [`MatMulParams::flags`]: add to out; add the bias.
pub(in super::super) const ACCUMULATE: u32 = 1;
pub(in super::super) const BIAS: u32 = 2;

/// What a product computes beside its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Folded {
    /// x is normalised as it is read.
    pub(in super::super) norm: bool,
    /// The weight's rows are as many gates and then ups, out is `silu(gate) * up`.
    pub(in super::super) gate: bool,
}

impl Folded {
    /// Rows of the weight that make one column of out.
    fn parts(self) -> u32 {
        if self.gate { 2 } else { 1 }
    }
}

/// Cooperative matrices of an adapter: f16 factors, f32 sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Matrices {
    /// Rows and columns of each: 8 or 16.
    pub(in super::super) size: u32,
    /// Invocations of the largest subgroup.
    pub(in super::super) max_subgroup_size: u32,
}

/// A matrix product for at most `tile` rows (`matvec`), or any number (the others).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum MatMulKernel {
    /// `matmul_cpu` with this many rows in a tile.
    Cpu { tile: u32 },
    /// `matvec` with this many rows, and rows of the weight of a workgroup.
    Vector { tile: u32, cols: u32 },
    /// `matmul`.
    Tiled,
    /// `matmul_coop`.
    Coop(Matrices),
}

/// Invocations of a workgroup of `matmul_cpu`.
const CPU_WG: u32 = 16;

/// Rows of the weight of a lane of `matmul_cpu`: as many as pay before the registers spill.
fn cpu_cols(tile: u32, format: DeviceFormat) -> u32 {
    match format {
        DeviceFormat::Q8 | DeviceFormat::Q4 => 4,
        _ if tile < 8 => 2,
        _ => 4,
    }
}

impl MatMulKernel {
    /// The kernels of a variant, each with the largest number of rows that it is chosen for; only one of them where rows
    /// must not depend on each other.
    pub(in super::super) fn choices(
        variant: Variant,
        matrices: Option<Matrices>,
        batch_invariant: bool,
        tuning: &Tuning,
    ) -> Vec<(u32, Self)> {
        match variant {
            // One sum in one order, whatever the tile: these are batch-invariant as they are.
            Variant::Cpu => vec![
                (1, Self::Cpu { tile: 1 }),
                (2, Self::Cpu { tile: 2 }),
                (4, Self::Cpu { tile: 4 }),
                (u32::MAX, Self::Cpu { tile: 8 }),
            ],
            Variant::Subgroup | Variant::Plain if batch_invariant => vec![(u32::MAX, Self::Tiled)],
            Variant::Subgroup | Variant::Plain => {
                let vector = |tile| (tile, Self::Vector { tile, cols: tuning.matvec_cols });
                let vectors = [1, 2, 4, 8].into_iter().filter(|&tile| tile <= tuning.matvec_rows).map(vector);
                vectors.chain([(u32::MAX, matrices.map_or(Self::Tiled, Self::Coop))]).collect()
            }
        }
    }

    /// Whether the normalisation of x can be folded into it. Not where x is rounded to f16: only what is normalised already
    /// is sure to be of a size that f16 holds well.
    pub(in super::super) fn folds_norm(self) -> bool {
        !matches!(self, Self::Coop(_))
    }

    /// Columns of out of one workgroup.
    pub(in super::super) fn group_cols(self, format: DeviceFormat, folded: Folded) -> u32 {
        let weight_rows = match self {
            Self::Cpu { tile } => CPU_WG * cpu_cols(tile, format),
            Self::Vector { cols, .. } => cols.max(folded.parts()),
            Self::Tiled | Self::Coop(_) => 64,
        };
        weight_rows / folded.parts()
    }

    /// Rows of x of one workgroup.
    pub(in super::super) fn group_rows(self) -> u32 {
        match self {
            Self::Cpu { tile } | Self::Vector { tile, .. } => tile,
            Self::Tiled | Self::Coop(_) => 64,
        }
    }

    pub(in super::super) fn kernel(
        self,
        format: DeviceFormat,
        variant: Variant,
        subgroup_size: u32,
        folded: Folded,
    ) -> Kernel {
        let mut bindings = vec![read(3), read(5), write(6)];
        if folded.norm {
            bindings.insert(1, read(4));
        }
        let new = |name, file| Kernel::new(name, file, &bindings, size_of::<MatMulParams>());
        let kernel = match self {
            Self::Cpu { tile } => new("matmul_cpu", wgsl!("matmul_cpu.wgsl"))
                .constant("SUBGROUP_SIZE", subgroup_size)
                .constant("X_REGISTERS", 8 / subgroup_size)
                .constant("TILE", tile)
                .constant("WG", CPU_WG)
                .include(match cpu_cols(tile, format) {
                    2 => wgsl!("include/cols_2.wgsl"),
                    _ => wgsl!("include/cols_4.wgsl"),
                }),
            Self::Vector { tile, cols } => new("matvec", wgsl!("matvec.wgsl"))
                .constant("TILE", tile)
                .constant("COLS", cols.max(folded.parts()))
                .reduce(variant, subgroup_size),
            Self::Tiled => new("matmul", wgsl!("matmul.wgsl")),
            Self::Coop(matrices) => new("matmul_coop", wgsl!("matmul_coop.wgsl"))
                .enable("f16")
                .enable("wgpu_cooperative_matrix")
                .constant("MAX_SUBGROUP_SIZE", matrices.max_subgroup_size)
                .include(match matrices.size {
                    8 => wgsl!("include/matrix_8.wgsl"),
                    _ => wgsl!("include/matrix_16.wgsl"),
                }),
        };
        let input = if folded.norm { wgsl!("include/input_normed.wgsl") } else { wgsl!("include/input_plain.wgsl") };
        kernel
            .include(input)
            .include(wgsl!("include/product.wgsl"))
            .include(if folded.gate {
                wgsl!("include/product_gated.wgsl")
            } else {
                wgsl!("include/product_plain.wgsl")
            })
            .weight(format, variant)
    }
}
