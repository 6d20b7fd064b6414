//! A program as prepared launches: kernels, buffers and parameters are fixed at start-up, a step only chooses among them and
//! sets the grids.

use super::super::{
    ActId, BackendError, HeadNorm, KvDtype, KvLayout, Op, Program, RopePairing, Rows, StepLimits, WeightId,
};
use super::buffers::Buffers;
use super::driver::{Buffer, Driver, KernelId, Launch};
use super::fusion::{self, Fused};
use super::grid::{Grid, ItemKind};
use super::kernel::{self, DecodeKernel, Kernel};
use super::step_words::{AttentionTiling, Round, StepCounts, header};
use super::weights::CudaWeight;
use std::borrow::Cow;
use std::sync::Arc;

mod logits;
mod product;

/// A kernel with everything that it is given; planned first, and then loaded with all others.
struct Call<K = KernelId> {
    name: &'static str,
    kernel: K,
    /// Addresses, the step's first.
    buffers: Vec<u64>,
    params: Vec<u8>,
    grid: Grid,
}

/// One way to run a node.
struct Choice<K = KernelId> {
    /// Most rows of the step that it is for.
    max_rows: u32,
    calls: Vec<Call<K>>,
}

/// A part of a step: the first choice whose `max_rows` suffices. Attention comes again for each round of its work items.
pub(super) struct Node<K = KernelId> {
    /// What `max_rows` counts; nothing runs when there are none.
    rows: Rows,
    choices: Vec<Choice<K>>,
}

/// Everything a step launches, in order.
pub(super) struct Plan {
    nodes: Vec<Node>,
}

impl Plan {
    /// The launches of a step with these counts. Counts may be larger than the step's: what kernels do beyond them nobody
    /// reads.
    pub(super) fn launches<'a>(&'a self, counts: &'a StepCounts) -> Vec<Launch<'a>> {
        self.nodes.iter().flat_map(|node| node.launches(counts)).map(|(_, launch)| launch).collect()
    }

    /// The names of their kernels.
    pub(super) fn names(&self, counts: &StepCounts) -> Vec<&'static str> {
        self.nodes.iter().flat_map(|node| node.launches(counts)).map(|(name, _)| name).collect()
    }
}

impl Call {
    fn launch<'a>(&'a self, counts: &StepCounts, round: &Round) -> Launch<'a> {
        let mut params = Cow::Borrowed(&self.params[..]);
        if let Some(first_item) = self.grid.first_item(round).filter(|&first| first > 0) {
            let at = params.len() - 4;
            params.to_mut()[at..].copy_from_slice(&first_item.to_ne_bytes());
        }
        Launch { kernel: self.kernel, grid: self.grid.size(counts, round), buffers: &self.buffers, params }
    }
}

impl Node {
    /// What it comes to in a step, with the kernels' names; a launch of no workgroup is left out.
    fn launches<'a>(&'a self, counts: &'a StepCounts) -> impl Iterator<Item = (&'static str, Launch<'a>)> {
        let rows = counts.rows(self.rows);
        let choice = self.choices.iter().find(|choice| rows <= choice.max_rows);
        let calls = &choice.expect("the last choice is for any number of rows").calls;
        let is_in_rounds = matches!(calls[0].grid, Grid::Items { .. });
        let rounds = counts.rounds.iter().take(if is_in_rounds { counts.rounds.len() } else { 1 });
        let launches =
            rounds.flat_map(move |round| calls.iter().map(move |call| (call.name, call.launch(counts, round))));
        launches.filter(move |(_, launch)| rows > 0 && launch.grid.0 > 0 && launch.grid.1 > 0)
    }
}

impl Node<Kernel> {
    fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.choices.iter().flat_map(|choice| &choice.calls).map(|call| &call.kernel)
    }

    /// The same with what its kernels were loaded as, in their order.
    fn loaded(self, ids: &mut impl Iterator<Item = KernelId>) -> Node {
        let mut loaded = |Call { name, buffers, params, grid, .. }: Call<Kernel>| {
            let kernel = ids.next().expect("there is one for each kernel");
            Call { name, kernel, buffers, params, grid }
        };
        let mut choice = |Choice { max_rows, calls }: Choice<Kernel>| {
            let calls = calls.into_iter().map(&mut loaded).collect();
            Choice { max_rows, calls }
        };
        Node { rows: self.rows, choices: self.choices.into_iter().map(&mut choice).collect() }
    }
}

/// Bytes of the input of one product at a time as halves, for those that take them on this device.
pub(super) fn halves_bytes(
    program: &Program,
    limits: &StepLimits,
    weights: &[CudaWeight],
    compute_capability: u32,
) -> u64 {
    let bytes = |op: &Op| match *op {
        Op::MatMul { x, weight, .. } => {
            let mut parts = weights[weight.0 as usize].parts.iter();
            let activation = program.activations[x.0 as usize];
            let takes_halves = parts.any(|part| kernel::has_tensor_products(part.format, compute_capability));
            let rows = if takes_halves { limits.max_rows(activation.rows) } else { 0 };
            2 * u64::from(rows) * u64::from(activation.cols)
        }
        _ => 0,
    };
    program.ops.iter().map(bytes).max().unwrap_or(0)
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
    /// See [`halves_bytes`].
    pub(super) halves: &'a Buffer,
    pub(super) nodes: Vec<Node<Kernel>>,
}

impl<'a> Planner<'a> {
    /// Turns every op into launches, tokens of the step before and block copies before them, and argmax, likeliest tokens
    /// and draws after them; and loads their kernels, all at once, so that they are compiled side by side.
    pub(super) fn plan(mut self) -> Result<Plan, BackendError> {
        self.feed_tokens();
        for layer in 0..self.kv.num_layers as usize {
            self.copy_blocks(layer);
        }
        let can_end = |weight: WeightId, op: &Op| {
            let first_rows = self.weight(weight).parts.iter().map(|part| part.first_row);
            // A row of an int8 pool is rounded as a whole.
            fusion::parts_can_end(op, self.program.attention.head_dim, first_rows)
                && (matches!(op, Op::SiluMul { .. }) || self.kv.dtype != KvDtype::Int8)
        };
        for fused in fusion::fuse(self.program, can_end) {
            match fused {
                Fused::Op(op) => self.op(&op),
                Fused::Product(product) => self.product(&product),
            }
        }
        if let Some(logits) = self.program.logits {
            self.argmax(logits);
            self.top_k(logits);
            self.draws(logits);
            self.scores(logits);
        }
        let kernels: Vec<&Kernel> = self.nodes.iter().flat_map(Node::kernels).collect();
        let mut ids = self.driver.load(&kernels)?.into_iter();
        Ok(Plan { nodes: self.nodes.into_iter().map(|node| node.loaded(&mut ids)).collect() })
    }

    fn op(&mut self, op: &Op) {
        match *op {
            Op::Embed { table, out } => self.embed(table, out),
            Op::RmsNorm { x, weight, eps, out } => {
                let call = self.rms_norm(x, weight, eps, out);
                self.push(self.rows(out), vec![call]);
            }
            Op::SelectLogitsRows { x, out } => {
                let kernel = kernel::select_logits_rows();
                let quads = self.cols(out) / 4;
                let grid = Grid::Columns { x: quads.div_ceil(kernel.threads), rows: Rows::Logits, each: 1 };
                let buffers = [self.activation(x), self.activation(out)];
                self.single(&kernel, Rows::Logits, grid, &kernel::QuadsParams { quads }, &buffers)
            }
            Op::MatMul { .. } => unreachable!("products are planned with what is folded into them"),
            Op::RopeAndCache { layer, qkv, q, pairing, norm } => {
                let call = self.rope_and_cache(layer, qkv, q, pairing, norm);
                self.push(Rows::Tokens, vec![call]);
            }
            Op::PagedAttention { layer, q, out } => self.attention(layer, q, out),
            Op::SiluMul { gate_up, out } => {
                let call = self.silu_mul(gate_up, out);
                self.push(self.rows(out), vec![call]);
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

    /// `buffers` follow the step's, in the order of the kernel's arguments.
    fn call(&self, kernel: &Kernel, grid: Grid, params: &impl bytemuck::NoUninit, buffers: &[u64]) -> Call<Kernel> {
        let params = bytemuck::bytes_of(params).to_vec();
        assert_eq!(params.len(), kernel.params_bytes as usize, "kernel {}: bytes of parameters", kernel.name);
        assert_eq!(buffers.len() + 1, kernel.buffers as usize, "kernel {}: buffers", kernel.name);
        let buffers = [&[self.buffers.step.address()], buffers].concat();
        Call { name: kernel.name, kernel: kernel.clone(), buffers, params, grid }
    }

    /// A node with one choice.
    fn push(&mut self, rows: Rows, calls: Vec<Call<Kernel>>) {
        self.nodes.push(Node { rows, choices: vec![Choice { max_rows: u32::MAX, calls }] });
    }

    /// A node with one choice of one call; see [`Planner::call`].
    fn single(&mut self, kernel: &Kernel, rows: Rows, grid: Grid, params: &impl bytemuck::NoUninit, buffers: &[u64]) {
        let call = self.call(kernel, grid, params, buffers);
        self.push(rows, vec![call]);
    }

    fn feed_tokens(&mut self) {
        let kernel = kernel::feed_tokens();
        let buffers = [&self.buffers.ids, &self.buffers.draws.drawn].map(Buffer::address);
        self.single(&kernel, Rows::Tokens, Grid::FedTokens { each: kernel.threads }, &[0_u8; 0], &buffers)
    }

    fn copy_blocks(&mut self, layer: usize) {
        let kernel = kernel::copy_blocks();
        let block_bytes = self.kv.layer_bytes() / u64::from(self.kv.num_blocks);
        let params = kernel::QuadsParams { quads: (block_bytes / 16) as u32 };
        let grid = Grid::BlockCopies { x: params.quads.div_ceil(kernel.threads) };
        self.single(&kernel, Rows::Tokens, grid, &params, &self.pools(layer as u32))
    }

    fn embed(&mut self, table: WeightId, out: ActId) {
        let octets = self.cols(out) / 8;
        for part in &self.weight(table).parts {
            let kernel = kernel::embed(part.format);
            let params = kernel::EmbedParams { octets, first_row: part.first_row as u32, num_rows: part.rows as u32 };
            let buffers: Vec<u64> = part.addresses().chain([self.activation(out)]).collect();
            let grid = Grid::Columns { x: octets.div_ceil(kernel.threads), rows: Rows::Tokens, each: 1 };
            self.single(&kernel, Rows::Tokens, grid, &params, &buffers);
        }
    }

    fn rms_norm(&self, x: ActId, weight: WeightId, eps: f32, out: ActId) -> Call<Kernel> {
        let params = kernel::RmsNormParams { quads: self.cols(out) / 4, eps };
        let buffers = [self.activation(x), self.vector(weight), self.activation(out)];
        let grid = Grid::RowGroups { rows: self.rows(out), each: 1, y: 1 };
        self.call(&kernel::rms_norm(), grid, &params, &buffers)
    }

    fn rope_and_cache(
        &self,
        layer: u32,
        qkv: ActId,
        q: ActId,
        pairing: RopePairing,
        norm: Option<HeadNorm>,
    ) -> Call<Kernel> {
        let shape = &self.program.attention;
        let kernel = kernel::rope_and_cache(shape, self.kv.dtype, pairing, norm.is_some());
        let params = kernel::RopeParams { qkv_stride: self.cols(qkv), norm_eps: norm.map_or(0.0, |norm| norm.eps) };
        let invocations = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim / 8;
        let grid = Grid::Columns { x: invocations.div_ceil(kernel.threads), rows: Rows::Tokens, each: 1 };
        let [k, v] = self.pools(layer);
        let norm = norm.map_or(self.buffers.unused.address(), |norm| self.vector(norm.weight));
        let buffers = [self.activation(qkv), self.buffers.rope.address(), self.activation(q), k, v, norm];
        self.call(&kernel, grid, &params, &buffers)
    }

    fn silu_mul(&self, gate_up: ActId, out: ActId) -> Call<Kernel> {
        let kernel = kernel::silu_mul();
        let quads = self.cols(out) / 4;
        let grid = Grid::Columns { x: quads.div_ceil(kernel.threads), rows: self.rows(out), each: 1 };
        let buffers = [self.activation(gate_up), self.activation(out)];
        self.call(&kernel, grid, &kernel::QuadsParams { quads }, &buffers)
    }

    fn compute_capability(&self) -> u32 {
        self.driver.traits().compute_capability
    }

    fn attention(&mut self, layer: u32, q: ActId, out: ActId) {
        let shape = self.program.attention;
        let groups = shape.num_heads / self.tiling.heads_per_group;
        let [k, v] = self.pools(layer);
        let [q, out] = [q, out].map(|id| self.activation(id));
        let partials = [&self.buffers.partial_out, &self.buffers.partial_stats].map(Buffer::address);

        let kernel =
            kernel::attention_decode(self.decode, &shape, self.kv.dtype, &self.tiling, self.compute_capability());
        let items_at = header::DECODE_ITEMS_AT as u32;
        let params = kernel::AttentionParams { scale: shape.scale, items_at, first_item: 0 };
        let buffers = [q, k, v, out, partials[0], partials[1]];
        let decode = self.call(&kernel, Grid::Items { of: ItemKind::Decode, y: groups }, &params, &buffers);

        let kernel = kernel::attention_prefill(&shape, self.kv.dtype, &self.tiling, self.compute_capability());
        let params = kernel::AttentionParams { items_at: header::PREFILL_ITEMS_AT as u32, ..params };
        let prefill = self.call(&kernel, Grid::Items { of: ItemKind::Prefill, y: groups }, &params, &buffers);

        let kernel = kernel::attention_reduce(&shape, self.kv.dtype);
        let params = kernel::ReduceParams { first_item: 0 };
        let grid = Grid::Items { of: ItemKind::Reduce, y: shape.num_heads };
        let reduce = self.call(&kernel, grid, &params, &[partials[0], partials[1], out]);
        self.push(Rows::Tokens, vec![decode, prefill, reduce]);
    }
}
