//! The dispatches of a matrix product.

use super::super::super::{ActId, Op};
use super::super::folded::{Epilogue, Folded};
use super::super::fusion::{Norm, Product};
use super::super::grid::Grid;
use super::super::kernel::{self, Input, MatMulKernel};
use super::super::step_words::header;
use super::super::weights::GpuPart;
use super::split::Splits;
use super::{Draft, Planner};

/// What becomes of a product's sums.
struct Ending<'a> {
    epilogue: Epilogue,
    out: ActId,
    /// Bound behind `out`.
    buffers: Vec<&'a wgpu::Buffer>,
}

impl<'a> Planner<'a> {
    /// A choice for each kernel: what its input takes before it, one call for each part of the weight, and the op after it
    /// where the kernel does not fold it.
    pub(super) fn product(&mut self, product: &Product, splits: Splits) {
        let (variant, matrices) = (self.gpu.variant, self.gpu.matrices());
        let int8 = self.int8_input(product.weight);
        let kernels = MatMulKernel::choices(variant, matrices, self.batch_invariant, int8.is_some(), self.tuning);
        let (plain, folded_ending) = (Ending::plain(product), self.ending(product));
        let mut choices = Vec::new();
        for (max_rows, kernel, splits) in splits.of(kernels) {
            let mut calls = Vec::new();
            let folds = kernel.folds(folded_ending.epilogue);
            let ending = if folds { &folded_ending } else { &plain };
            let mut folded = Folded { norm: false, epilogue: ending.epilogue };
            let input = match (kernel.input(), product.norm, int8) {
                (Input::Any | Input::Normed, Some(norm), _) if splits.before > 1 => {
                    calls.push(self.rms_norm_of_partial_sums(norm, splits.before, product.x));
                    vec![self.activation(product.x)]
                }
                (Input::Any, Some(norm), _) => {
                    folded.norm = true;
                    vec![self.activation(norm.x), self.vector(norm.weight)]
                }
                (Input::Any | Input::Normed, None, _) => vec![self.activation(product.x)],
                (Input::Normed, Some(Norm { x, weight, eps }), _) => {
                    calls.push(self.rms_norm(x, weight, eps, product.x));
                    vec![self.activation(product.x)]
                }
                (Input::Int8, _, Some((rows, format))) => {
                    calls.push(self.quantize_rows(product, rows, format));
                    vec![&rows.quants, &rows.steps]
                }
                (Input::Int8, _, None) => unreachable!("only weights of one quantised format are multiplied by int8"),
            };
            for part in &self.weight(product.weight).parts {
                calls.push(self.call_of_part(product, part, kernel, folded, &input, ending));
            }
            if let Some(Op::RopeAndCache { layer, qkv, q, pairing, norm }) = product.epilogue.filter(|_| !folds) {
                calls.push(self.rope_and_cache(layer, qkv, q, pairing, norm));
            }
            choices.push((max_rows, calls));
        }
        self.push_choices(self.rows(product.out), choices);
    }

    /// The product's ending with all that is folded into it.
    fn ending(&self, product: &Product) -> Ending<'a> {
        match product.epilogue {
            Some(Op::SiluMul { out, .. }) => Ending { epilogue: Epilogue::Gate, out, buffers: Vec::new() },
            Some(Op::RopeAndCache { layer, q, pairing, .. }) => {
                let epilogue = Epilogue::RopeAndCache { shape: self.program.attention, kv: self.kv.dtype, pairing };
                let (b, layer) = (self.buffers, layer as usize);
                Ending { epilogue, out: q, buffers: vec![&b.rope, &b.k_pool[layer], &b.v_pool[layer]] }
            }
            _ => Ending::plain(product),
        }
    }

    /// `input` is bound between the part and the bias.
    fn call_of_part(
        &self,
        product: &Product,
        part: &GpuPart,
        choice: MatMulKernel,
        folded: Folded,
        input: &[&wgpu::Buffer],
        ending: &Ending<'_>,
    ) -> Draft {
        let norm = product.norm.filter(|_| folded.norm);
        let mut buffers = part.buffers();
        buffers.extend(input);
        buffers.push(product.bias.map_or(&self.buffers.unused, |bias| self.vector(bias)));
        let is_split = choice.splits() > 1;
        buffers.push(if is_split { self.partial_sums() } else { self.activation(ending.out) });
        buffers.extend(&ending.buffers);

        let rows = self.rows(ending.out);
        let cols = part.rows as u32 / folded.epilogue.parts();
        let groups = cols.div_ceil(choice.group_cols(part.format, folded.epilogue));
        let width = groups.min(self.gpu.device.limits().max_compute_workgroups_per_dimension);
        let grid = match choice {
            MatMulKernel::Vector { .. } | MatMulKernel::VectorInt8 { .. } => {
                Grid::Fixed { x: width, y: groups.div_ceil(width) }
            }
            _ => Grid::Columns { x: groups * choice.splits(), rows, each: choice.group_rows() },
        };
        let params = kernel::MatMulParams {
            blocks: self.cols(product.x) / 32,
            cols,
            out_stride: self.cols(ending.out),
            first_row: part.first_row as u32,
            rows: header::count_of(rows),
            flags: if is_split { 0 } else { product.flags() },
            grid_width: width,
            norm_eps: norm.map_or(0.0, |norm| norm.eps),
        };
        let kernel = choice.kernel(part.format, self.gpu.variant, self.gpu.subgroup_size(), folded);
        self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }
}

impl Ending<'_> {
    fn plain(product: &Product) -> Self {
        Self { epilogue: Epilogue::Plain, out: product.out, buffers: Vec::new() }
    }
}
