//! The matrix products.

use super::super::super::Op;
use super::super::driver::DeviceTraits;
use super::super::folded::{Epilogue, Folded};
use super::super::repack::DeviceFormat;
use super::{Kernel, REDUCE_THREADS, TENSOR_CAPABILITY, cuda, has_tensor_cores, params};

params! {
    /// Parameters of the matrix products; `matvec` alone reads `grid_width`.
    MatMulParams {
        blocks: u32,
        cols: u32,
        out_stride: u32,
        first_row: u32,
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
    /// `matmul_tensor`, whose x [`round_rows`] has made halves. Grid: (rows / group rows, output columns / group columns):
    /// workgroups of the same columns run side by side, so that a weight is read from memory once, also where no cache holds
    /// all of it.
    Tensor(TensorTile),
    /// `matmul`. Grid: (output columns / group columns, rows / group rows).
    Tiled,
}

/// What a workgroup of `matmul_tensor` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct TensorTile {
    /// Rows of x: 32, 64 or 128.
    rows: u32,
    /// Rows of the weight: 32 or 128 beside 32 or 64 rows of x, 128 or 256 beside 128.
    cols: u32,
    /// Tiles in workgroup memory at once.
    stages: u32,
    /// Workgroups that a multiprocessor is to hold.
    at_once: u32,
}

impl TensorTile {
    /// With as many stages as leave room for two workgroups, but at least two of them. The widest tiles take all registers of
    /// a multiprocessor.
    fn new(rows: u32, cols: u32, traits: &DeviceTraits) -> Self {
        let most = if cols == 256 { 1 } else { 2 };
        let shapes = [(TENSOR_STAGES, most), (2, most), (TENSOR_STAGES, 1)];
        let tile = |(stages, at_once)| Self { rows, cols, stages, at_once };
        // A workgroup takes a KiB more than it asks for; a multiprocessor has that much beside what a workgroup may ask for.
        let fits = |tile: &Self| tile.at_once * (tile.shared_bytes() + 1024) <= traits.max_shared_bytes + 1024;
        shapes.map(tile).into_iter().find(fits).unwrap_or(tile((2, 1)))
    }

    /// The wider of two tiles if it leaves no multiprocessor without a workgroup: what wide tiles save is reading x again.
    fn widest(rows: u32, [narrow, wide]: [u32; 2], weight_rows: u32, traits: &DeviceTraits) -> Self {
        let cols = if weight_rows.div_ceil(wide) >= traits.multiprocessors { wide } else { narrow };
        Self::new(rows, cols, traits)
    }

    /// Subgroups that share a tile: by its rows, by its columns, and by the blocks of 32 columns of x of a stage.
    fn subgroups(self) -> (u32, u32, u32) {
        let down = (self.rows / 64).max(1);
        let across = if self.cols == 32 { 2 } else { 4 };
        (down, across, TENSOR_THREADS / 32 / (down * across))
    }

    /// Bytes of the stages: halves of x and of the weight, each row eight longer.
    fn shared_bytes(self) -> u32 {
        let (.., deep) = self.subgroups();
        self.stages * 2 * (32 * deep + 8) * (self.rows + self.cols)
    }
}

/// Invocations of a workgroup of `matvec`: four subgroups, with columns of their own.
const VECTOR_THREADS: u32 = 128;
const VECTOR_SUBGROUPS: u32 = VECTOR_THREADS / 32;
/// Invocations of a workgroup of `matmul_tensor`.
const TENSOR_THREADS: u32 = 256;
/// Most tiles that it has in workgroup memory at once.
const TENSOR_STAGES: u32 = 3;

/// Rows of the weight of a subgroup of `matvec`: the more rows of x share the loaded weights, the more of them have to share
/// the loaded x.
fn vector_cols(tile: u32, epilogue: Epilogue) -> u32 {
    if tile <= 2 { epilogue.least_rows().max(2) } else { 4 }
}

/// Whether products of many rows run on tensor cores, which take halves.
pub(in super::super) fn has_tensor_products(format: DeviceFormat, compute_capability: u32) -> bool {
    has_tensor_cores(compute_capability) && format != DeviceFormat::F32
}

impl MatMulKernel {
    /// The kernels for a weight of so many rows, each with the largest number of rows of x that it is chosen for. Where rows
    /// must not depend on each other only those that sum in one order: `matmul_tensor` does in tiles of the same width.
    pub(in super::super) fn choices(
        format: DeviceFormat,
        weight_rows: u32,
        traits: &DeviceTraits,
        batch_invariant: bool,
    ) -> Vec<(u32, Self)> {
        let vectors = if batch_invariant { &[][..] } else { &[1, 2, 4, 8] };
        let mut choices: Vec<(u32, Self)> = vectors.iter().map(|&tile| (tile, Self::Vector { tile })).collect();
        if !has_tensor_products(format, traits.compute_capability) {
            choices.push((u32::MAX, Self::Tiled));
            return choices;
        }
        let few = |rows| Self::Tensor(TensorTile::widest(rows, [32, 128], weight_rows, traits));
        let many = |cols| Self::Tensor(TensorTile::new(128, cols, traits));
        choices.push((32, few(32)));
        if batch_invariant {
            choices.push((u32::MAX, few(64)));
            return choices;
        }
        choices.push((64, few(64)));
        // From so many rows on, there are enough workgroups of the widest tiles.
        let tiles = traits.multiprocessors.div_ceil(weight_rows.div_ceil(256));
        if tiles > 1 {
            choices.push((128 * (tiles - 1), many(128)));
        }
        choices.push((u32::MAX, many(256)));
        choices
    }

    /// Whether it normalises what it reads.
    pub(in super::super) fn folds_norm(self) -> bool {
        matches!(self, Self::Vector { .. })
    }

    /// Whether it can do what the op after it does. To turn and write q, k and v costs many rows little beside their product.
    pub(in super::super) fn folds(self, op: &Op) -> bool {
        match self {
            Self::Vector { .. } => true,
            Self::Tensor(_) => matches!(op, Op::SiluMul { .. }),
            Self::Tiled => false,
        }
    }

    /// Whether it takes x as [`round_rows`] leaves it.
    pub(in super::super) fn takes_halves(self) -> bool {
        matches!(self, Self::Tensor(_))
    }

    /// Columns of one workgroup.
    pub(in super::super) fn group_cols(self, epilogue: Epilogue) -> u32 {
        match self {
            Self::Vector { tile } => VECTOR_SUBGROUPS * vector_cols(tile, epilogue) / epilogue.parts(),
            Self::Tensor(tile) => tile.cols / epilogue.parts(),
            Self::Tiled => 64,
        }
    }

    /// Rows of x of one workgroup.
    pub(in super::super) fn group_rows(self) -> u32 {
        match self {
            Self::Vector { tile } => tile,
            Self::Tensor(tile) => tile.rows,
            Self::Tiled => 64,
        }
    }

    /// `folded` is nothing where it does not fold it.
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
            Self::Tensor(tile) => {
                let (down, across, deep) = tile.subgroups();
                build("matmul_tensor", cuda!("matmul_tensor.cu"), TENSOR_THREADS)
                    .constant("TILE_ROWS", tile.rows)
                    .constant("TILE_COLS", tile.cols)
                    .constant("DOWN", down)
                    .constant("ACROSS", across)
                    .constant("DEEP", deep)
                    .constant("STAGES", tile.stages)
                    .shared(tile.shared_bytes())
                    .constant("GROUPS_AT_ONCE", tile.at_once)
                    .limits(if tile.at_once == 2 { 128 } else { 240 }, 0)
                    .spills(96)
                    .requires(TENSOR_CAPABILITY)
                    .fold(folded)
            }
            Self::Tiled => build("matmul", cuda!("matmul.cu"), 256).limits(96, 2 * 32 * 68 * 4),
        }
    }
}

params! {
    /// Parameters of `round_rows`.
    RoundParams { blocks: u32, norm_eps: f32 }
}

/// Makes halves of x, after its norm. Grid: (rows, 1).
pub(in super::super) fn round_rows(normed: bool) -> Kernel {
    Kernel::new::<RoundParams>("round_rows", cuda!("round_rows.cu"), REDUCE_THREADS, 2).reduce().input(normed)
}

impl Kernel {
    /// What reads an input, through its norm or as it is.
    fn input(mut self, normed: bool) -> Self {
        self.buffers += u32::from(normed);
        self.include(if normed { cuda!("include/input_normed.cuh") } else { cuda!("include/input_plain.cuh") })
    }

    /// What reads a product's input, and what becomes of its sums.
    fn fold(self, folded: Folded) -> Self {
        let kernel = self.input(folded.norm);
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
