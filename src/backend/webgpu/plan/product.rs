//! The dispatches of a matrix product.

use super::super::super::{BackendError, Rows, WeightId};
use super::super::kernel::{self, DeviceFormat, Folded, Input, MatMulKernel};
use super::super::step_words::header;
use super::super::weights::GpuPart;
use super::fusion::{Norm, Product};
use super::{Call, Choice, Grid, Node, Planner};

impl Planner<'_> {
    /// A choice for each kernel: what its input takes before it, then one call for each part of the weight.
    pub(super) fn product(&mut self, product: &Product) -> Result<(), BackendError> {
        let (variant, matrices) = (self.gpu.variant, self.gpu.matrices());
        let format = self.int8_format(product.weight);
        let kernels =
            MatMulKernel::choices(variant, matrices, self.limits.batch_invariant, format.is_some(), self.tuning);
        let mut choices = Vec::new();
        for (max_rows, kernel) in kernels {
            let mut calls = Vec::new();
            let mut folded = Folded { norm: false, gate: product.gate };
            match (kernel.input(), product.norm, format) {
                (Input::Any, norm, _) => folded.norm = norm.is_some(),
                (Input::Normed, Some(Norm { x, weight, eps }), _) => {
                    calls.push(self.rms_norm(x, weight, eps, product.x)?);
                }
                (Input::Normed, None, _) => {}
                (Input::Int8, _, Some(format)) => calls.push(self.quantize_rows(product, format)?),
                (Input::Int8, _, None) => unreachable!("only weights of one quantised format are multiplied by int8"),
            }
            for part in &self.weight(product.weight).parts {
                calls.push(self.call_of_part(product, part, kernel, folded)?);
            }
            choices.push(Choice { max_rows, calls });
        }
        self.nodes.push(Node { rows: self.rows(product.out), choices });
        Ok(())
    }

    /// The format of a weight whose products may round x to int8: all its parts are of it.
    fn int8_format(&self, weight: WeightId) -> Option<DeviceFormat> {
        let parts = &self.weight(weight).parts;
        let format = parts[0].format;
        let fits = self.limits.quantize_activations && format.has_scales() && parts.iter().all(|p| p.format == format);
        fits.then_some(format)
    }

    /// Leaves the product's input, after its norm, in `quants` and `steps`.
    fn quantize_rows(&self, product: &Product, format: DeviceFormat) -> Result<Call, BackendError> {
        let norm = product.norm;
        let kernel = kernel::quantize_rows(format, norm.is_some(), self.gpu.variant, self.gpu.subgroup_size());
        let params =
            kernel::QuantizeParams { blocks: self.cols(product.x) / 32, norm_eps: norm.map_or(0.0, |norm| norm.eps) };
        let mut buffers = vec![self.activation(norm.map_or(product.x, |norm| norm.x))];
        buffers.extend(norm.map(|norm| self.vector(norm.weight)));
        buffers.extend([&self.buffers.quants, &self.buffers.steps]);
        let grid = Grid::RowGroups { rows: self.rows(product.x), each: 1 };
        self.call(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }

    fn call_of_part(
        &self,
        product: &Product,
        part: &GpuPart,
        choice: MatMulKernel,
        folded: Folded,
    ) -> Result<Call, BackendError> {
        let norm = product.norm.filter(|_| folded.norm);
        let mut buffers = part.buffers();
        if choice.input() == Input::Int8 {
            buffers.extend([&self.buffers.quants, &self.buffers.steps]);
        } else {
            buffers.push(self.activation(norm.map_or(product.x, |norm| norm.x)));
            buffers.extend(norm.map(|norm| self.vector(norm.weight)));
        }
        buffers.push(product.bias.map_or(&self.buffers.unused, |bias| self.vector(bias)));
        buffers.push(self.activation(product.out));

        let rows = self.rows(product.out);
        let cols = if product.gate { part.rows / 2 } else { part.rows } as u32;
        let groups = cols.div_ceil(choice.group_cols(part.format, folded));
        let width = groups.min(self.gpu.device.limits().max_compute_workgroups_per_dimension);
        let grid = match choice {
            MatMulKernel::Vector { .. } | MatMulKernel::VectorInt8 { .. } => {
                Grid::Fixed { x: width, y: groups.div_ceil(width) }
            }
            _ => Grid::Columns { x: groups, rows, each: choice.group_rows() },
        };
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let params = kernel::MatMulParams {
            blocks: self.cols(product.x) / 32,
            cols,
            out_stride: self.cols(product.out),
            out_offset: part.first_row as u32,
            rows: match rows {
                Rows::Tokens => header::NUM_TOKENS as u32,
                Rows::Logits => header::NUM_LOGITS_ROWS as u32,
            },
            flags: flag(product.accumulate, kernel::ACCUMULATE) | flag(product.bias.is_some(), kernel::BIAS),
            grid_width: width,
            norm_eps: norm.map_or(0.0, |norm| norm.eps),
        };
        let kernel = choice.kernel(part.format, self.gpu.variant, self.gpu.subgroup_size(), folded);
        self.call(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }
}
