//! The dispatches of a matrix product.

use super::super::super::{BackendError, Rows};
use super::super::grid::Grid;
use super::super::kernel::{self, Folded, MatMulKernel};
use super::super::step_words::header;
use super::super::weights::GpuPart;
use super::fusion::Product;
use super::{Call, Choice, Node, Planner};

impl Planner<'_> {
    /// A choice for each kernel: the norm in a call of its own where the kernel does not fold it, then one call for each
    /// part of the weight.
    pub(super) fn product(&mut self, product: &Product) -> Result<(), BackendError> {
        let (variant, matrices) = (self.gpu.variant, self.gpu.matrices());
        let mut choices = Vec::new();
        for (max_rows, kernel) in MatMulKernel::choices(variant, matrices, self.batch_invariant, self.tuning) {
            let norm_first = product.norm.filter(|_| !kernel.folds_norm());
            let folded = Folded { norm: product.norm.is_some() && norm_first.is_none(), gate: product.gate };
            let mut calls = Vec::new();
            if let Some(norm) = norm_first {
                calls.push(self.rms_norm(norm.x, norm.weight, norm.eps, product.x)?);
            }
            for part in &self.weight(product.weight).parts {
                calls.push(self.call_of_part(product, part, kernel, folded)?);
            }
            choices.push(Choice { max_rows, calls });
        }
        self.nodes.push(Node { rows: self.rows(product.out), choices });
        Ok(())
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
        buffers.push(self.activation(norm.map_or(product.x, |norm| norm.x)));
        buffers.extend(norm.map(|norm| self.vector(norm.weight)));
        buffers.push(product.bias.map_or(&self.buffers.unused, |bias| self.vector(bias)));
        buffers.push(self.activation(product.out));

        let rows = self.rows(product.out);
        let cols = if product.gate { part.rows / 2 } else { part.rows } as u32;
        let groups = cols.div_ceil(choice.group_cols(part.format, folded));
        let width = groups.min(self.gpu.device.limits().max_compute_workgroups_per_dimension);
        let grid = match choice {
            MatMulKernel::Vector { .. } => Grid::Fixed { x: width, y: groups.div_ceil(width) },
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
