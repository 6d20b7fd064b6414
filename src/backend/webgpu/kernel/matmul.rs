//! The matrix products: which kernel for how many rows, and how each is cut.

use super::super::{Tuning, Variant};
use super::{DeviceFormat, Kernel, read, write};

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
    pub(in super::super) accumulate: u32,
    pub(in super::super) has_bias: u32,
    pub(in super::super) grid_width: u32,
}

/// A matrix product for at most `tile` rows (`matvec`), or any number (`matmul`, `matmul_cpu`), and the output columns of
/// one workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum MatMulKernel {
    /// `matmul_cpu` with this many rows in a tile.
    Cpu { tile: u32 },
    /// `matvec` with this many rows, and output columns of a workgroup.
    Vector { tile: u32, cols: u32 },
    /// `matmul`.
    Tiled,
}

/// Invocations of a workgroup of `matmul_cpu`.
const CPU_WG: u32 = 16;

/// Output columns of a lane of `matmul_cpu`: as many as pay before the registers spill.
fn cpu_cols(tile: u32, format: DeviceFormat) -> u32 {
    match format {
        DeviceFormat::Q8 => 4,
        DeviceFormat::Q4 if tile < 8 => 4,
        _ => 2,
    }
}

impl MatMulKernel {
    /// The kernels of a variant, each with the largest number of rows that it is chosen for; only one of them where rows
    /// must not depend on each other.
    pub(in super::super) fn choices(variant: Variant, batch_invariant: bool, tuning: &Tuning) -> Vec<(u32, Self)> {
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
                vectors.chain([(u32::MAX, Self::Tiled)]).collect()
            }
        }
    }

    /// Output columns of one workgroup.
    pub(in super::super) fn group_cols(self, format: DeviceFormat) -> u32 {
        match self {
            Self::Cpu { tile } => CPU_WG * cpu_cols(tile, format),
            Self::Vector { cols, .. } => cols,
            Self::Tiled => 64,
        }
    }

    /// Rows of x of one workgroup.
    pub(in super::super) fn group_rows(self) -> u32 {
        match self {
            Self::Cpu { tile } | Self::Vector { tile, .. } => tile,
            Self::Tiled => 64,
        }
    }

    pub(in super::super) fn kernel(self, format: DeviceFormat, variant: Variant, subgroup_size: u32) -> Kernel {
        let bindings = [read(3), read(4), write(5)];
        let bytes = size_of::<MatMulParams>();
        match self {
            Self::Cpu { tile } => Kernel::new("matmul_cpu", wgsl!("matmul_cpu.wgsl"), &bindings, bytes)
                .constant("SUBGROUP_SIZE", subgroup_size)
                .constant("X_REGISTERS", 8 / subgroup_size)
                .constant("TILE", tile)
                .constant("WG", CPU_WG)
                .constant("COLS", cpu_cols(tile, format)),
            Self::Vector { tile, cols } => Kernel::new("matvec", wgsl!("matvec.wgsl"), &bindings, bytes)
                .constant("TILE", tile)
                .constant("COLS", cols)
                .reduce(variant, subgroup_size),
            Self::Tiled => Kernel::new("matmul", wgsl!("matmul.wgsl"), &bindings, bytes),
        }
        .weight(format, variant)
    }
}
