//! The matrix products: which kernel for how many rows, how each is cut, and what is folded into it.

use super::super::folded::{Epilogue, Folded};
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
    pub(in super::super) first_row: u32,
    pub(in super::super) rows: u32,
    pub(in super::super) flags: u32,
    pub(in super::super) grid_width: u32,
    pub(in super::super) norm_eps: f32,
}

/// Storage buffers of a product with [`Epilogue::RopeAndCache`], a norm and a quantised weight: more than some adapters have.
pub(in super::super) const ROPE_AND_CACHE_BUFFERS: u32 = 10;

/// Cooperative matrices of an adapter: f16 factors, f32 sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Matrices {
    /// Rows and columns of each: 8 or 16.
    pub(in super::super) size: u32,
    /// Invocations of the largest subgroup.
    pub(in super::super) max_subgroup_size: u32,
}

/// A matrix product for at most `tile` rows (`matvec`), or any number (the others, a tile after the other).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum MatMulKernel {
    /// `matmul_cpu` with this many rows in a tile.
    Cpu { tile: u32 },
    /// `matvec` with this many rows, and rows of the weight of a workgroup.
    Vector { tile: u32, cols: u32 },
    /// `matmul` with this many rows in a tile, 16, 32 or 64, and splits of x's columns.
    Tiled { tile: u32, splits: u32 },
    /// `matmul_coop` with this many rows in a tile, 32 or 64, rows of the weight, 64 or 128, and splits of x's columns.
    Coop { matrices: Matrices, tile: u32, cols: u32, splits: u32 },
    /// `matvec_int8`, as `matvec`.
    VectorInt8 { tile: u32, cols: u32 },
}

/// What a kernel takes for x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Input {
    /// x as it is; a norm can be folded in.
    Any,
    /// x after the norm: only what is normalised is sure to be of a size that f16 holds well.
    Normed,
    /// x as `quantize_rows` leaves it, after the norm.
    Int8,
}

/// Invocations of a workgroup of `matmul_cpu`.
const CPU_WG: u32 = 16;

/// Rows of the weight of a lane of `matmul_cpu`: as many as pay before the registers spill.
fn cpu_cols(tile: u32, format: DeviceFormat, epilogue: Epilogue) -> u32 {
    match format {
        DeviceFormat::F32 | DeviceFormat::F16 | DeviceFormat::Bf16 if tile < 4 => epilogue.least_rows().max(2),
        _ => 4,
    }
}

const NO_INT8: &str = "only quantised weights are multiplied by int8";

/// Most rows of `matvec` and `matvec_int8`.
pub(in super::super) const VECTOR_ROWS: u32 = 8;

/// Most rows of a tile of `matmul` and `matmul_coop`, and rows of the weight of any for steps of so many rows.
pub(in super::super) const TILE_ROWS: u32 = 64;

/// Parameters of `quantize_rows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct QuantizeParams {
    pub(in super::super) blocks: u32,
    pub(in super::super) norm_eps: f32,
}

/// Rounds rows of x to int8, in the order that a product with weights of `format` reads them.
pub(in super::super) fn quantize_rows(
    format: DeviceFormat,
    with_norm: bool,
    variant: Variant,
    subgroup_size: u32,
) -> Kernel {
    let bindings =
        if with_norm { vec![read(3), read(4), write(5), write(6)] } else { vec![read(3), write(5), write(6)] };
    Kernel::new("quantize_rows", wgsl!("quantize_rows.wgsl"), &bindings, size_of::<QuantizeParams>())
        .include(if with_norm { wgsl!("include/input_normed.wgsl") } else { wgsl!("include/input_plain.wgsl") })
        .include(wgsl!("include/int8_word.wgsl"))
        .include(match format {
            DeviceFormat::Q4 => wgsl!("include/int8_words_q4.wgsl"),
            DeviceFormat::Q8 => wgsl!("include/int8_words_q8.wgsl"),
            DeviceFormat::F32 | DeviceFormat::F16 | DeviceFormat::Bf16 => unreachable!("{NO_INT8}"),
        })
        .reduce(variant, subgroup_size)
}

impl Kernel {
    /// Cooperative matrices of this size.
    pub(super) fn matrices(self, matrices: Matrices) -> Self {
        self.enable("f16")
            .enable("wgpu_cooperative_matrix")
            .constant("MAX_SUBGROUP_SIZE", matrices.max_subgroup_size)
            .include(match matrices.size {
                8 => wgsl!("include/matrix_8.wgsl"),
                _ => wgsl!("include/matrix_16.wgsl"),
            })
            .include(wgsl!("include/halves.wgsl"))
    }

    /// A tile of so many rows of x and of the weight, and splits of x's columns.
    fn tile(self, rows: u32, cols: u32, splits: u32) -> Self {
        self.constant("TILE", rows)
            .constant("TILE_W", cols)
            .constant("SPLITS", splits)
            .include(wgsl!("include/tile_loads.wgsl"))
    }

    /// Sums of a workgroup of `matvec` or `matvec_int8`.
    fn vector_sums(self, variant: Variant, subgroup_size: u32) -> Self {
        self.reduce(variant, subgroup_size)
            .include(match variant {
                Variant::Cpu => unreachable!("software adapters multiply by matmul_cpu"),
                Variant::Matrix | Variant::Subgroup => wgsl!("include/sums_subgroup.wgsl"),
                Variant::Plain => wgsl!("include/sums_plain.wgsl"),
            })
            .include(wgsl!("include/vector_sums.wgsl"))
    }
}

impl MatMulKernel {
    /// The kernels of a variant, each with the largest number of rows that it is chosen for; only one of them where rows
    /// must not depend on each other. `int8` is for weights of a quantised format whose x is to be rounded to int8; it
    /// comes neither with [`Variant::Cpu`] nor with `batch_invariant`. What was tuned is the number of rows for floats.
    pub(in super::super) fn choices(
        variant: Variant,
        matrices: Option<Matrices>,
        batch_invariant: bool,
        int8: bool,
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
            Variant::Matrix | Variant::Subgroup | Variant::Plain if batch_invariant => {
                vec![(u32::MAX, Self::Tiled { tile: TILE_ROWS, splits: 1 })]
            }
            Variant::Matrix | Variant::Subgroup | Variant::Plain => {
                let cols = tuning.matvec_cols;
                let most_rows = if int8 { VECTOR_ROWS } else { tuning.matvec_rows };
                let vector = |tile| match int8 {
                    true => (tile, Self::VectorInt8 { tile, cols }),
                    false => (tile, Self::Vector { tile, cols }),
                };
                let vectors = [1, 2, 4, VECTOR_ROWS].into_iter().filter(|&tile| tile <= most_rows).map(vector);
                // A tile costs the same however few of its rows there are; 16 are too few for two rows of matrices of 16.
                let tiled = |tile| Self::Tiled { tile, splits: 1 };
                let coop = |matrices, tile, cols| Self::Coop { matrices, tile, cols, splits: 1 };
                let tiles = match matrices {
                    // Wide tiles load less for each product, but a step of few rows has few of them.
                    Some(matrices) => vec![
                        (32, coop(matrices, 32, TILE_ROWS)),
                        (TILE_ROWS, coop(matrices, TILE_ROWS, TILE_ROWS)),
                        (u32::MAX, coop(matrices, TILE_ROWS, 2 * TILE_ROWS)),
                    ],
                    None => vec![(16, tiled(16)), (32, tiled(32)), (u32::MAX, tiled(TILE_ROWS))],
                };
                vectors.chain(tiles).collect()
            }
        }
    }

    /// The same kernel over splits of x's columns: workgroups for each, which leave their sums as rows of their own.
    pub(in super::super) fn split(self, splits: u32) -> Self {
        match self {
            Self::Tiled { tile, .. } => Self::Tiled { tile, splits },
            Self::Coop { matrices, tile, cols, .. } => Self::Coop { matrices, tile, cols, splits },
            Self::Cpu { .. } | Self::Vector { .. } | Self::VectorInt8 { .. } => {
                unreachable!("only tiled products are split along the columns of x")
            }
        }
    }

    /// Splits of x's columns; 1 is none.
    pub(in super::super) fn splits(self) -> u32 {
        match self {
            Self::Tiled { splits, .. } | Self::Coop { splits, .. } => splits,
            Self::Cpu { .. } | Self::Vector { .. } | Self::VectorInt8 { .. } => 1,
        }
    }

    /// What it takes for x.
    pub(in super::super) fn input(self) -> Input {
        match self {
            Self::Cpu { .. } | Self::Vector { .. } | Self::Tiled { .. } => Input::Any,
            Self::Coop { .. } => Input::Normed,
            Self::VectorInt8 { .. } => Input::Int8,
        }
    }

    /// Whether it can end this way.
    pub(in super::super) fn folds(self, epilogue: Epilogue) -> bool {
        match epilogue {
            Epilogue::Plain | Epilogue::Gate => true,
            // On software adapters it takes twice as long for many rows as `rope_and_cache`, which writes four elements at once.
            // In batch-invariant mode both meet: they round alike.
            Epilogue::RopeAndCache { .. } => match self {
                Self::Cpu { tile } => tile < 8,
                Self::Vector { .. } | Self::Tiled { .. } | Self::Coop { .. } => true,
                Self::VectorInt8 { .. } => false,
            },
        }
    }

    /// Columns of one workgroup.
    pub(in super::super) fn group_cols(self, format: DeviceFormat, epilogue: Epilogue) -> u32 {
        let weight_rows = match self {
            Self::Cpu { tile } => CPU_WG * cpu_cols(tile, format, epilogue),
            Self::Vector { cols, .. } | Self::VectorInt8 { cols, .. } => cols.max(epilogue.least_rows()),
            Self::Tiled { .. } => TILE_ROWS,
            Self::Coop { cols, .. } => cols,
        };
        weight_rows / epilogue.parts()
    }

    /// Rows of x of one workgroup.
    pub(in super::super) fn group_rows(self) -> u32 {
        match self {
            Self::Cpu { tile }
            | Self::Vector { tile, .. }
            | Self::VectorInt8 { tile, .. }
            | Self::Tiled { tile, .. }
            | Self::Coop { tile, .. } => tile,
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
        if folded.norm || self.input() == Input::Int8 {
            bindings.insert(1, read(4));
        }
        if let Epilogue::RopeAndCache { .. } = folded.epilogue {
            bindings.extend([read(7), write(8), write(9)]);
        }
        let new = |name, file| Kernel::new(name, file, &bindings, size_of::<MatMulParams>());
        let kernel = match self {
            Self::Cpu { tile } => new("matmul_cpu", wgsl!("matmul_cpu.wgsl"))
                .constant("SUBGROUP_SIZE", subgroup_size)
                .constant("X_REGISTERS", 8 / subgroup_size)
                .constant("TILE", tile)
                .constant("WG", CPU_WG)
                .include(match cpu_cols(tile, format, folded.epilogue) {
                    2 => wgsl!("include/cols_2.wgsl"),
                    _ => wgsl!("include/cols_4.wgsl"),
                })
                .include(match (format, tile) {
                    (DeviceFormat::Q4, 1 | 2) => wgsl!("include/block_q4.wgsl"),
                    _ => wgsl!("include/block_octets.wgsl"),
                }),
            Self::Vector { tile, cols } => new("matvec", wgsl!("matvec.wgsl"))
                .constant("TILE", tile)
                .constant("COLS", cols.max(folded.epilogue.least_rows()))
                .vector_sums(variant, subgroup_size),
            Self::Tiled { tile, splits } => new("matmul", wgsl!("matmul.wgsl")).tile(tile, TILE_ROWS, splits),
            Self::Coop { matrices, tile, cols, splits } => new("matmul_coop", wgsl!("matmul_coop.wgsl"))
                .matrices(matrices)
                .include(match format {
                    DeviceFormat::F32 | DeviceFormat::Bf16 => wgsl!("include/halves_float.wgsl"),
                    DeviceFormat::F16 => wgsl!("include/halves_f16.wgsl"),
                    DeviceFormat::Q8 => wgsl!("include/halves_q8.wgsl"),
                    DeviceFormat::Q4 => wgsl!("include/halves_q4.wgsl"),
                })
                .tile(tile, cols, splits),
            Self::VectorInt8 { tile, cols } => new("matvec_int8", wgsl!("matvec_int8.wgsl"))
                .constant("TILE", tile)
                .constant("COLS", cols.max(folded.epilogue.least_rows()))
                .include(match format {
                    DeviceFormat::Q4 => wgsl!("include/int8_q4.wgsl"),
                    DeviceFormat::Q8 => wgsl!("include/int8_q8.wgsl"),
                    DeviceFormat::F32 | DeviceFormat::F16 | DeviceFormat::Bf16 => unreachable!("{NO_INT8}"),
                })
                .vector_sums(variant, subgroup_size),
        };
        let input = match (self.input(), folded.norm) {
            (Input::Int8, _) => wgsl!("include/input_int8.wgsl"),
            (_, true) => wgsl!("include/input_normed.wgsl"),
            (_, false) => wgsl!("include/input_plain.wgsl"),
        };
        let kernel = kernel.include(input).include(wgsl!("include/product.wgsl"));
        let kernel = match folded.epilogue {
            Epilogue::Plain => kernel.include(wgsl!("include/product_plain.wgsl")),
            Epilogue::Gate => kernel.include(wgsl!("include/product_gated.wgsl")),
            Epilogue::RopeAndCache { shape, kv, pairing } => {
                kernel.kv(&shape, kv).pairing(pairing).include(wgsl!("include/product_rope_and_cache.wgsl"))
            }
        };
        kernel.weight(format, variant)
    }
}
