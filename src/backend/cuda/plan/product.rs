//! The launches of a matrix product.

use super::super::super::{ActId, Op};
use super::super::folded::{Epilogue, Folded};
use super::super::fusion::{Norm, Product};
use super::super::grid::Grid;
use super::super::kernel::{self, Kernel, MatMulKernel};
use super::super::step_words::header;
use super::super::weights::CudaPart;
use super::{Call, Choice, Node, Planner};

/// What becomes of a product's sums.
struct Ending {
    epilogue: Epilogue,
    out: ActId,
    /// Behind `out` among the arguments.
    buffers: Vec<u64>,
}

impl Ending {
    fn plain(product: &Product) -> Self {
        Self { epilogue: Epilogue::Plain, out: product.out, buffers: Vec::new() }
    }
}

impl Planner<'_> {
    /// A choice for each number of rows up to which the same kernels are taken: one launch for each part of the weight, and
    /// the ops before and after it where the kernels do not fold them.
    pub(super) fn product(&mut self, product: &Product) {
        let parts = &self.weight(product.weight).parts;
        let traits = self.driver.traits();
        let kernels_of =
            |part: &CudaPart| MatMulKernel::choices(part.format, part.rows as u32, &traits, self.batch_invariant);
        let mut sizes: Vec<u32> = parts.iter().flat_map(kernels_of).map(|(max_rows, _)| max_rows).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut choices = Vec::new();
        for max_rows in sizes {
            let kernel_of = |part| {
                let kernel = kernels_of(part).into_iter().find(|(most, _)| max_rows <= *most);
                kernel.expect("the last kernel is for any number of rows").1
            };
            let kernels: Vec<MatMulKernel> = parts.iter().map(kernel_of).collect();
            let folds_norm = kernels.iter().all(|kernel| kernel.folds_norm());
            let folds = |op: &Op| kernels.iter().all(|kernel| kernel.folds(op));
            let ending = if product.epilogue.as_ref().is_some_and(folds) {
                self.ending(product)
            } else {
                Ending::plain(product)
            };
            let folded = Folded { norm: folds_norm && product.norm.is_some(), epilogue: ending.epilogue };
            let mut calls = Vec::new();
            if kernels.iter().any(|kernel| kernel.takes_halves()) {
                calls.push(self.round_rows(product));
            }
            let reads_normed = kernels.iter().any(|kernel| !kernel.folds_norm() && !kernel.takes_halves());
            if let Some(Norm { x, weight, eps }) = product.norm.filter(|_| reads_normed) {
                calls.push(self.rms_norm(x, weight, eps, product.x));
            }
            for (part, kernel) in parts.iter().zip(&kernels) {
                calls.push(self.call_of_part(product, part, *kernel, folded, &ending));
            }
            match product.epilogue.filter(|op| !folds(op)) {
                Some(Op::SiluMul { gate_up, out }) => calls.push(self.silu_mul(gate_up, out)),
                Some(Op::RopeAndCache { layer, qkv, q, pairing, norm }) => {
                    calls.push(self.rope_and_cache(layer, qkv, q, pairing, norm));
                }
                _ => {}
            }
            choices.push(Choice { max_rows, calls });
        }
        self.nodes.push(Node { rows: self.rows(product.out), choices });
    }

    /// Makes halves of the product's input, after its norm.
    fn round_rows(&self, product: &Product) -> Call<Kernel> {
        let norm = product.norm;
        let params =
            kernel::RoundParams { blocks: self.cols(product.x) / 32, norm_eps: norm.map_or(0.0, |norm| norm.eps) };
        let mut buffers = vec![self.activation(norm.map_or(product.x, |norm| norm.x))];
        buffers.extend(norm.map(|norm| self.vector(norm.weight)));
        buffers.push(self.halves.address());
        let grid = Grid::RowGroups { rows: self.rows(product.x), each: 1, y: 1 };
        self.call(&kernel::round_rows(norm.is_some()), grid, &params, &buffers)
    }

    /// The product's ending with all that is folded into it.
    fn ending(&self, product: &Product) -> Ending {
        match product.epilogue {
            Some(Op::SiluMul { out, .. }) => Ending { epilogue: Epilogue::Gate, out, buffers: Vec::new() },
            Some(Op::RopeAndCache { layer, q, pairing, .. }) => {
                let epilogue = Epilogue::RopeAndCache { shape: self.program.attention, kv: self.kv.dtype, pairing };
                let [k, v] = self.pools(layer);
                Ending { epilogue, out: q, buffers: vec![self.buffers.rope.address(), k, v] }
            }
            _ => Ending::plain(product),
        }
    }

    fn call_of_part(
        &self,
        product: &Product,
        part: &CudaPart,
        choice: MatMulKernel,
        folded: Folded,
        ending: &Ending,
    ) -> Call<Kernel> {
        let norm = product.norm.filter(|_| folded.norm);
        let mut buffers: Vec<u64> = part.addresses().collect();
        buffers.push(match norm {
            _ if choice.takes_halves() => self.halves.address(),
            Some(norm) => self.activation(norm.x),
            None => self.activation(product.x),
        });
        buffers.extend(norm.map(|norm| self.vector(norm.weight)));
        buffers.push(product.bias.map_or(self.buffers.unused.address(), |bias| self.vector(bias)));
        buffers.push(self.activation(ending.out));
        buffers.extend(&ending.buffers);

        let rows = self.rows(ending.out);
        let cols = part.rows as u32 / folded.epilogue.parts();
        let groups = cols.div_ceil(choice.group_cols(folded.epilogue));
        let grid = match choice {
            MatMulKernel::Vector { .. } => Grid::Fixed { x: groups, y: 1 },
            MatMulKernel::Tensor(_) => Grid::RowGroups { rows, each: choice.group_rows(), y: groups },
            MatMulKernel::Tiled => Grid::Columns { x: groups, rows, each: choice.group_rows() },
        };
        let params = kernel::MatMulParams {
            blocks: self.cols(product.x) / 32,
            cols,
            out_stride: self.cols(ending.out),
            first_row: part.first_row as u32,
            rows: header::count_of(rows),
            flags: product.flags(),
            grid_width: groups,
            norm_eps: norm.map_or(0.0, |norm| norm.eps),
        };
        self.call(&choice.kernel(part.format, folded), grid, &params, &buffers)
    }
}
