//! The input of a product as int8: where it stands, and the dispatch that rounds it.

use super::super::super::{BackendError, Op, Program, StepLimits, WeightId};
use super::super::adapter::Variant;
use super::super::fusion::Product;
use super::super::grid::Grid;
use super::super::kernel;
use super::super::repack::DeviceFormat;
use super::{Draft, Planner};

/// The input of one product at a time, for as many rows as kernels take as int8.
pub(in super::super) struct Int8Rows {
    /// `[rows][blocks][32]`, i8.
    pub(super) quants: wgpu::Buffer,
    /// `[rows][blocks]` steps and what all of a block come to, f32.
    pub(super) steps: wgpu::Buffer,
}

impl Int8Rows {
    /// Whether there are kernels that round activations to int8.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] says why not.
    pub(in super::super) fn check(variant: Variant, limits: &StepLimits) -> Result<(), BackendError> {
        let reason = match variant {
            // Measured on llvmpipe: no faster for one row, slower for many.
            Variant::Cpu => {
                "the kernels for software adapters do not round activations to int8: leave out --quantize-activations, or \
                 take --variant subgroup or plain"
            }
            _ if limits.batch_invariant => {
                "only products of few rows round activations to int8, and what a token comes to must not depend on how many \
                 there are: leave out --quantize-activations or --batch-invariant"
            }
            Variant::Matrix | Variant::Subgroup | Variant::Plain => return Ok(()),
        };
        Err(BackendError::Unsupported(reason.to_owned()))
    }

    /// For every product of `program`; `buffer` makes one, given what it is for and its bytes.
    pub(in super::super) fn new(
        program: &Program,
        mut buffer: impl FnMut(&str, u64) -> Result<wgpu::Buffer, BackendError>,
    ) -> Result<Self, BackendError> {
        let [quants, steps] = Self::bytes(program);
        Ok(Self { quants: buffer("int8 activations", quants)?, steps: buffer("int8 activations", steps)? })
    }

    /// Bytes of the quants and of the steps, for every product of `program`.
    pub(in super::super) fn bytes(program: &Program) -> [u64; 2] {
        let cols = |op: &Op| match *op {
            Op::MatMul { x, .. } => program.activations[x.0 as usize].cols,
            _ => 0,
        };
        let blocks = u64::from(kernel::VECTOR_ROWS) * u64::from(program.ops.iter().map(cols).max().unwrap_or(0) / 32);
        [32 * blocks, 8 * blocks]
    }
}

impl Planner<'_> {
    /// Where the input of products with this weight goes if they may round it, and the format that it is multiplied by: all
    /// parts of the weight are of it.
    pub(super) fn int8_input(&self, weight: WeightId) -> Option<(&Int8Rows, DeviceFormat)> {
        let parts = &self.weight(weight).parts;
        let format = parts[0].format;
        let fits = format.has_scales() && parts.iter().all(|part| part.format == format);
        self.int8.as_ref().filter(|_| fits).map(|rows| (rows, format))
    }

    /// Rounds the product's input, after its norm.
    pub(super) fn quantize_rows(&self, product: &Product, to: &Int8Rows, format: DeviceFormat) -> Draft {
        let norm = product.norm;
        let kernel = kernel::quantize_rows(format, norm.is_some(), self.gpu.variant, self.gpu.subgroup_size());
        let params =
            kernel::QuantizeParams { blocks: self.cols(product.x) / 32, norm_eps: norm.map_or(0.0, |norm| norm.eps) };
        let mut buffers = vec![self.activation(norm.map_or(product.x, |norm| norm.x))];
        buffers.extend(norm.map(|norm| self.vector(norm.weight)));
        buffers.extend([&to.quants, &to.steps]);
        let grid = Grid::RowGroups { rows: self.rows(product.x), each: 1, y: 1 };
        self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }
}
