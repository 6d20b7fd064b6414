//! A program as prepared launches: kernels, buffers and parameters are fixed at start-up, a step only chooses among them and
//! sets the grids.

use super::super::{ActId, BackendError, KvLayout, Op, Program, Rows, WeightId};
use super::buffers::Buffers;
use super::driver::{Buffer, Driver, KernelId, Launch};
use super::grid::Grid;
use super::kernel::{self, DecodeKernel, Kernel, MatMulKernel};
use super::step_words::{AttentionTiling, StepCounts, header};
use super::weights::CudaWeight;
use std::sync::Arc;

mod logits;

/// One way to run a node.
struct Choice {
    /// Most rows of the step that it is for.
    max_rows: u32,
    name: &'static str,
    kernel: KernelId,
    params: Vec<u8>,
    grid: Grid,
}

/// One launch of a step: the first choice whose `max_rows` suffices.
pub(super) struct Node {
    /// What `max_rows` counts; nothing runs when there are none.
    rows: Rows,
    choices: Vec<Choice>,
    /// Addresses, the step's first.
    buffers: Vec<u64>,
}

/// Everything a step launches, in order.
pub(super) struct Plan {
    nodes: Vec<Node>,
}

impl Plan {
    /// The launches of a step with these counts. Counts may be larger than the step's: kernels hold their place in the grid
    /// against the header.
    pub(super) fn launches(&self, counts: &StepCounts) -> Vec<Launch<'_>> {
        self.nodes.iter().filter_map(|node| node.launch(counts)).map(|(_, launch)| launch).collect()
    }

    /// The names of their kernels.
    pub(super) fn names(&self, counts: &StepCounts) -> Vec<&'static str> {
        self.nodes.iter().filter_map(|node| node.launch(counts)).map(|(name, _)| name).collect()
    }
}

impl Node {
    fn launch(&self, counts: &StepCounts) -> Option<(&'static str, Launch<'_>)> {
        let rows = counts.rows(self.rows);
        if rows == 0 {
            return None;
        }
        let choice = self.choices.iter().find(|choice| rows <= choice.max_rows);
        let choice = choice.expect("the last choice is for any number of rows");
        let grid = choice.grid.size(counts);
        let launch = Launch { kernel: choice.kernel, grid, buffers: &self.buffers, params: &choice.params };
        (grid.0 > 0 && grid.1 > 0).then_some((choice.name, launch))
    }
}

/// Builds the plan of a program.
pub(super) struct Planner<'a> {
    pub(super) driver: &'a Arc<dyn Driver>,
    pub(super) program: &'a Program,
    pub(super) kv: &'a KvLayout,
    pub(super) tiling: AttentionTiling,
    pub(super) decode: DecodeKernel,
    /// See [`super::super::StepLimits::batch_invariant`].
    pub(super) batch_invariant: bool,
    pub(super) weights: &'a [CudaWeight],
    pub(super) buffers: &'a Buffers<Buffer>,
    pub(super) nodes: Vec<Node>,
}

impl<'a> Planner<'a> {
    /// Turns every op into launches, tokens of the step before and block copies before them, and argmax, likeliest tokens
    /// and draws after them.
    pub(super) fn plan(mut self) -> Result<Plan, BackendError> {
        self.feed_tokens()?;
        for layer in 0..self.kv.num_layers as usize {
            self.copy_blocks(layer)?;
        }
        for op in &self.program.ops {
            self.op(op)?;
        }
        if let Some(logits) = self.program.logits {
            self.argmax(logits)?;
            self.top_k(logits)?;
            self.draws(logits)?;
        }
        Ok(Plan { nodes: self.nodes })
    }

    fn op(&mut self, op: &Op) -> Result<(), BackendError> {
        match *op {
            Op::Embed { table, out } => self.embed(table, out),
            Op::RmsNorm { x, weight, eps, out } => self.rms_norm(x, weight, eps, out),
            Op::SelectLogitsRows { x, out } => {
                let kernel = kernel::select_logits_rows();
                let quads = self.cols(out) / 4;
                let grid = Grid::Columns { x: quads.div_ceil(kernel.threads), rows: Rows::Logits, each: 1 };
                let buffers = [self.activation(x), self.activation(out)];
                self.single(&kernel, Rows::Logits, grid, &kernel::QuadsParams { quads }, &buffers)
            }
            Op::MatMul { x, weight, bias, out, accumulate } => self.matmul(x, weight, bias, out, accumulate),
            Op::RopeAndCache { layer, qkv, q, pairing } => {
                let shape = &self.program.attention;
                let kernel = kernel::rope_and_cache(shape, self.kv, pairing);
                let params = kernel::RopeParams { qkv_stride: self.cols(qkv) };
                let invocations = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim / 8;
                let grid = Grid::Columns { x: invocations.div_ceil(kernel.threads), rows: Rows::Tokens, each: 1 };
                let [k, v] = self.pools(layer);
                let buffers = [self.activation(qkv), self.buffers.rope.address(), self.activation(q), k, v];
                self.single(&kernel, Rows::Tokens, grid, &params, &buffers)
            }
            Op::PagedAttention { layer, q, out } => self.attention(layer, q, out),
            Op::SiluMul { gate_up, out } => {
                let kernel = kernel::silu_mul();
                let quads = self.cols(out) / 4;
                let rows = self.rows(out);
                let grid = Grid::Columns { x: quads.div_ceil(kernel.threads), rows, each: 1 };
                let buffers = [self.activation(gate_up), self.activation(out)];
                self.single(&kernel, rows, grid, &kernel::QuadsParams { quads }, &buffers)
            }
        }
    }

    fn activation(&self, id: ActId) -> u64 {
        self.buffers.activations[id.0 as usize].address()
    }

    /// A layer's K and V pool.
    fn pools(&self, layer: u32) -> [u64; 2] {
        [&self.buffers.k_pool, &self.buffers.v_pool].map(|pools| pools[layer as usize].address())
    }

    fn weight(&self, id: WeightId) -> &'a CudaWeight {
        &self.weights[id.0 as usize]
    }

    /// A vector's one plane.
    fn vector(&self, id: WeightId) -> u64 {
        self.weight(id).parts[0].addresses().next().expect("every part has a plane of values")
    }

    fn cols(&self, id: ActId) -> u32 {
        self.program.activations[id.0 as usize].cols
    }

    fn rows(&self, id: ActId) -> Rows {
        self.program.activations[id.0 as usize].rows
    }

    fn choice(
        &self,
        kernel: &Kernel,
        max_rows: u32,
        grid: Grid,
        params: &impl bytemuck::NoUninit,
    ) -> Result<Choice, BackendError> {
        let params = bytemuck::bytes_of(params).to_vec();
        assert_eq!(params.len(), kernel.params_bytes as usize, "kernel {}: bytes of parameters", kernel.name);
        Ok(Choice { max_rows, name: kernel.name, kernel: self.driver.load(kernel)?, params, grid })
    }

    /// Adds a node; `buffers` follow the step's, in the order of the kernels' arguments.
    fn node(&mut self, rows: Rows, choices: Vec<Choice>, buffers: &[u64]) {
        let buffers = [&[self.buffers.step.address()], buffers].concat();
        self.nodes.push(Node { rows, choices, buffers });
    }

    /// A node with one choice.
    fn single(
        &mut self,
        kernel: &Kernel,
        rows: Rows,
        grid: Grid,
        params: &impl bytemuck::NoUninit,
        buffers: &[u64],
    ) -> Result<(), BackendError> {
        assert_eq!(buffers.len() + 1, kernel.buffers as usize, "kernel {}: buffers", kernel.name);
        let choice = self.choice(kernel, u32::MAX, grid, params)?;
        self.node(rows, vec![choice], buffers);
        Ok(())
    }

    fn feed_tokens(&mut self) -> Result<(), BackendError> {
        let kernel = kernel::feed_tokens();
        let buffers = [&self.buffers.ids, &self.buffers.draws.drawn].map(Buffer::address);
        self.single(&kernel, Rows::Tokens, Grid::FedTokens { each: kernel.threads }, &[0_u8; 0], &buffers)
    }

    fn copy_blocks(&mut self, layer: usize) -> Result<(), BackendError> {
        let kernel = kernel::copy_blocks();
        let block_bytes = self.kv.layer_bytes() / u64::from(self.kv.num_blocks);
        let params = kernel::QuadsParams { quads: (block_bytes / 16) as u32 };
        let grid = Grid::BlockCopies { x: params.quads.div_ceil(kernel.threads) };
        self.single(&kernel, Rows::Tokens, grid, &params, &self.pools(layer as u32))
    }

    fn embed(&mut self, table: WeightId, out: ActId) -> Result<(), BackendError> {
        let octets = self.cols(out) / 8;
        for part in &self.weight(table).parts {
            let kernel = kernel::embed(part.format);
            let params = kernel::EmbedParams { octets, first_row: part.first_row as u32, num_rows: part.rows as u32 };
            let buffers: Vec<u64> = part.addresses().chain([self.activation(out)]).collect();
            let grid = Grid::Columns { x: octets.div_ceil(kernel.threads), rows: Rows::Tokens, each: 1 };
            self.single(&kernel, Rows::Tokens, grid, &params, &buffers)?;
        }
        Ok(())
    }

    fn rms_norm(&mut self, x: ActId, weight: WeightId, eps: f32, out: ActId) -> Result<(), BackendError> {
        let params = kernel::RmsNormParams { quads: self.cols(out) / 4, eps };
        let buffers = [self.activation(x), self.vector(weight), self.activation(out)];
        let rows = self.rows(out);
        self.single(&kernel::rms_norm(), rows, Grid::RowGroups { rows, each: 1 }, &params, &buffers)
    }

    fn matmul(
        &mut self,
        x: ActId,
        weight: WeightId,
        bias: Option<WeightId>,
        out: ActId,
        accumulate: bool,
    ) -> Result<(), BackendError> {
        let rows = self.rows(out);
        for part in &self.weight(weight).parts {
            let mut choices = Vec::new();
            for (max_rows, choice) in
                MatMulKernel::choices(part.format, self.compute_capability(), self.batch_invariant)
            {
                let kernel = choice.kernel(part.format);
                let groups = (part.rows as u32).div_ceil(choice.group_cols());
                let grid = match choice {
                    MatMulKernel::Vector { .. } => Grid::Fixed { x: groups, y: 1 },
                    MatMulKernel::Tensor { .. } | MatMulKernel::Tiled => {
                        Grid::Columns { x: groups, rows, each: choice.group_rows() }
                    }
                };
                let params = kernel::MatMulParams {
                    blocks: self.cols(x) / 32,
                    cols: part.rows as u32,
                    out_stride: self.cols(out),
                    out_offset: part.first_row as u32,
                    rows: match rows {
                        Rows::Tokens => header::NUM_TOKENS as u32,
                        Rows::Logits => header::NUM_LOGITS_ROWS as u32,
                    },
                    accumulate: u32::from(accumulate),
                    has_bias: u32::from(bias.is_some()),
                    grid_width: groups,
                };
                choices.push(self.choice(&kernel, max_rows, grid, &params)?);
            }
            let bias = bias.map_or(self.buffers.unused.address(), |bias| self.vector(bias));
            let buffers: Vec<u64> = part.addresses().chain([self.activation(x), bias, self.activation(out)]).collect();
            self.node(rows, choices, &buffers);
        }
        Ok(())
    }

    fn compute_capability(&self) -> u32 {
        self.driver.traits().compute_capability
    }

    fn attention(&mut self, layer: u32, q: ActId, out: ActId) -> Result<(), BackendError> {
        let shape = self.program.attention;
        let groups = shape.num_heads / self.tiling.heads_per_group;
        let [k, v] = self.pools(layer);
        let [q, out] = [q, out].map(|id| self.activation(id));
        let partials = [&self.buffers.partial_out, &self.buffers.partial_stats].map(Buffer::address);

        let kernel = kernel::attention_decode(self.decode, &shape, self.kv, &self.tiling);
        let params = kernel::AttentionParams { scale: shape.scale, items_at: header::DECODE_ITEMS_AT as u32 };
        let buffers = [q, k, v, out, partials[0], partials[1]];
        self.single(&kernel, Rows::Tokens, Grid::DecodeItems { y: groups }, &params, &buffers)?;

        let kernel = kernel::attention_prefill(&shape, self.kv, &self.tiling, self.compute_capability());
        let params = kernel::AttentionParams { scale: shape.scale, items_at: header::PREFILL_ITEMS_AT as u32 };
        self.single(&kernel, Rows::Tokens, Grid::PrefillItems { y: groups }, &params, &buffers)?;

        let kernel = kernel::attention_reduce(&shape, self.kv);
        let grid = Grid::ReduceItems { y: shape.num_heads };
        self.single(&kernel, Rows::Tokens, grid, &[0_u8; 0], &[partials[0], partials[1], out])
    }
}
