//! A program as prebuilt dispatches: pipelines, bind groups and parameters are fixed at start-up, a step only chooses among
//! them and sets the grid.

use super::super::{ActId, AttentionShape, BackendError, KvLayout, Op, Program, Rows, WeightId};
use super::buffers::Buffers;
use super::device::{GpuDevice, Pipeline};
use super::fusion::{self, Fused, Product};
use super::grid::Grid;
use super::kernel::{self, Kernel};
use super::step_words::{AttentionTiling, Round, StepCounts};
use super::tuning::Tuning;
use super::weights::GpuWeight;
pub(super) use int8::Int8Rows;
pub(super) use split::PARTIAL_SUMS_BYTES;
use split::Splits;
use std::ops::Range;

mod attention;
mod int8;
mod logits;
mod product;
mod split;
#[cfg(test)]
mod tests;

/// A kernel with everything that it is given.
struct Call {
    kernel: &'static str,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    /// The first `params_len` bytes.
    params: [u8; MAX_PARAMS],
    params_len: usize,
    grid: Grid,
}

/// A call whose kernel is not compiled yet.
pub(super) struct Draft {
    kernel: Kernel,
    /// In the order of the kernel's bindings.
    buffers: Vec<wgpu::Buffer>,
    params: [u8; MAX_PARAMS],
    params_len: usize,
    grid: Grid,
}

/// Bytes of a kernel's parameters, at most.
const MAX_PARAMS: usize = size_of::<kernel::MatMulParams>();

/// One way to run a node: for so many rows of the step at most, these calls.
struct Choice {
    max_rows: u32,
    calls: Range<usize>,
}

/// A part of a step: the first choice whose `max_rows` suffices. Attention comes again for each round of its work items.
struct Node {
    /// What `max_rows` counts; nothing runs when there are none.
    rows: Rows,
    is_in_rounds: bool,
    choices: Range<usize>,
    work: Work,
}

/// Multiply-adds of a dispatch, as far as they count.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    per_row: u64,
    /// For each key that each token attends to.
    per_key: u64,
}

impl Work {
    fn of(self, rows: u32, round: &Round) -> u64 {
        self.per_row * u64::from(rows) + self.per_key * round.keys
    }
}

/// Multiply-adds of the attention for each key that a token attends to: scores, and the weighted sum of values.
pub(super) fn work_per_key(shape: &AttentionShape) -> u64 {
    2 * u64::from(shape.num_heads) * u64::from(shape.head_dim)
}

/// Everything a step dispatches, in order. Each array is walked from front to back: by the time of a step, little of it is
/// left in the processor's caches.
#[derive(Default)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    choices: Vec<Choice>,
    calls: Vec<Call>,
}

/// What a submit has all of or nothing: a node, or a round of one.
struct Part<'a> {
    plan: &'a Plan,
    node: &'a Node,
    counts: &'a StepCounts,
    round: &'a Round,
    /// In multiply-adds.
    work: u64,
}

/// One dispatch of a step, ready to be recorded.
pub(super) struct Dispatch<'a> {
    call: &'a Call,
    /// Workgroups, at least one.
    grid: (u32, u32),
    /// For the last word of the parameters.
    first_item: Option<u32>,
}

impl Dispatch<'_> {
    /// Name of its kernel.
    pub(super) fn kernel(&self) -> &'static str {
        self.call.kernel
    }

    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        let params = &self.call.params[..self.call.params_len];
        pass.set_pipeline(&self.call.pipeline);
        pass.set_bind_group(0, &self.call.bind_group, &[]);
        if !params.is_empty() {
            pass.set_immediates(0, params);
        }
        if let Some(first_item) = self.first_item.filter(|&first| first > 0) {
            pass.set_immediates(params.len() as u32 - 4, bytemuck::bytes_of(&first_item));
        }
        pass.dispatch_workgroups(self.grid.0, self.grid.1, 1);
    }
}

impl<'a> Part<'a> {
    /// What it comes to; a dispatch of no workgroup is left out.
    fn dispatches(self) -> impl Iterator<Item = Dispatch<'a>> {
        let Self { plan, node, counts, round, .. } = self;
        let rows = counts.rows(node.rows);
        let choice = plan.choices[node.choices.clone()].iter().find(|choice| rows <= choice.max_rows);
        let calls = choice.expect("the last choice is for any number of rows").calls.clone();
        let dispatches = plan.calls[calls].iter().map(|call| {
            let (grid, first_item) = (call.grid.size(counts, round), call.grid.first_item(round));
            Dispatch { call, grid, first_item }
        });
        dispatches.filter(move |dispatch| rows > 0 && dispatch.grid.0 > 0 && dispatch.grid.1 > 0)
    }
}

impl Plan {
    /// What a step comes to, in order.
    fn parts<'a>(&'a self, counts: &'a StepCounts) -> impl Iterator<Item = Part<'a>> {
        self.nodes.iter().flat_map(move |node| {
            let rounds = if node.is_in_rounds { counts.rounds.len() } else { 1 };
            counts.rounds.iter().take(rounds).map(move |round| {
                let work = node.work.of(counts.rows(node.rows), round);
                Part { plan: self, node, counts, round, work }
            })
        })
    }

    /// Work of a step, in multiply-adds.
    pub(super) fn work(&self, counts: &StepCounts) -> u64 {
        self.parts(counts).map(|part| part.work).sum()
    }

    /// Every dispatch of a step, in order.
    pub(super) fn dispatches<'a>(&'a self, counts: &'a StepCounts) -> impl Iterator<Item = Dispatch<'a>> {
        self.parts(counts).flat_map(Part::dispatches)
    }

    /// Records the parts of a step from `first` on, until the next one would take the work beyond `budget`; at least one.
    /// Returns the part that comes next, or `None` when all are recorded.
    pub(super) fn encode(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        counts: &StepCounts,
        first: usize,
        budget: u64,
    ) -> Option<usize> {
        let mut done = 0;
        for (index, part) in self.parts(counts).enumerate().skip(first) {
            if done > 0 && done + part.work > budget {
                return Some(index);
            }
            done += part.work;
            part.dispatches().for_each(|dispatch| dispatch.encode(pass));
        }
        None
    }
}

impl Draft {
    fn call(&self, gpu: &GpuDevice, pipeline: &Pipeline) -> Call {
        let &Self { ref kernel, ref buffers, params, params_len, grid } = self;
        let bindings = kernel.bindings.iter().zip(buffers);
        let entries: Vec<wgpu::BindGroupEntry<'_>> = bindings
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding: binding.number,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.layout,
            entries: &entries,
        });
        Call { kernel: kernel.name, pipeline: pipeline.pipeline.clone(), bind_group, params, params_len, grid }
    }
}

/// Builds the plan of a program.
pub(super) struct Planner<'a> {
    pub(super) gpu: &'a GpuDevice,
    pub(super) program: &'a Program,
    pub(super) kv: &'a KvLayout,
    pub(super) tiling: AttentionTiling,
    pub(super) tuning: &'a Tuning,
    /// See [`super::super::StepLimits::batch_invariant`].
    pub(super) batch_invariant: bool,
    pub(super) weights: &'a [GpuWeight],
    pub(super) buffers: &'a Buffers<wgpu::Buffer>,
    /// Where products may round their input to int8.
    pub(super) int8: Option<Int8Rows>,
    /// [`PARTIAL_SUMS_BYTES`] where products may be split along the columns of x.
    pub(super) partial_sums: Option<wgpu::Buffer>,
    /// Without calls until all of them are there to be compiled.
    pub(super) plan: Plan,
    pub(super) drafts: Vec<Draft>,
}

impl<'a> Planner<'a> {
    /// Turns every op into dispatches, tokens of the step before and block copies before them, and argmax, likeliest tokens,
    /// draws and log probabilities after them.
    pub(super) fn plan(mut self) -> Result<Plan, BackendError> {
        self.feed_tokens();
        for layers in (0..self.kv.num_layers as usize).collect::<Vec<_>>().chunks(3) {
            self.copy_blocks(layers);
        }
        let can_end = |weight: WeightId, op: &Op| {
            let first_rows = self.weight(weight).parts.iter().map(|part| part.first_row);
            fusion::parts_can_end(op, self.program.attention.head_dim, first_rows)
                && (matches!(op, Op::SiluMul { .. }) || self.folds_rope_and_cache())
        };
        let all = fusion::fuse(self.program, can_end);
        let mut before = 1;
        for (index, fused) in all.iter().enumerate() {
            let own = match fused {
                Fused::Op(_) => 1,
                Fused::Product(product) => self.splits(product, all.get(index + 1)),
            };
            let first = self.plan.nodes.len();
            match fused {
                Fused::Op(op) => self.op(op),
                Fused::Product(product) => self.product(product, Splits { before, own }),
            }
            before = own;
            let whole = self.work(fused);
            let nodes = &mut self.plan.nodes[first..];
            // Shared evenly by the nodes, such as the parts of a large matrix.
            let count = nodes.len() as u64;
            nodes.iter_mut().for_each(|node| {
                node.work = Work { per_row: whole.per_row / count, per_key: whole.per_key / count };
            });
        }
        if let Some(logits) = self.program.logits {
            self.argmax(logits);
            self.top_k(logits);
            self.draws(logits);
            self.scores(logits);
        }
        let kernels: Vec<&Kernel> = self.drafts.iter().map(|draft| &draft.kernel).collect();
        let pipelines = self.gpu.pipelines(&kernels)?;
        let calls = self.drafts.iter().zip(&pipelines).map(|(draft, pipeline)| draft.call(self.gpu, pipeline));
        Ok(Plan { calls: calls.collect(), ..self.plan })
    }

    /// What an op does for each row and key; most do little beside these two.
    fn work(&self, fused: &Fused) -> Work {
        match *fused {
            Fused::Product(Product { x, weight, .. }) => {
                let rows: usize = self.weight(weight).parts.iter().map(|part| part.rows).sum();
                Work { per_row: u64::from(self.cols(x)) * rows as u64, per_key: 0 }
            }
            Fused::Op(Op::PagedAttention { .. }) => Work { per_row: 0, per_key: work_per_key(&self.program.attention) },
            Fused::Op(_) => Work::default(),
        }
    }

    fn op(&mut self, op: &Op) {
        match *op {
            Op::Embed { table, out } => self.embed(table, out),
            Op::RmsNorm { x, weight, eps, out } => {
                let call = self.rms_norm(x, weight, eps, out);
                self.push(self.rows(out), vec![call]);
            }
            Op::SelectLogitsRows { x, out } => {
                let quads = self.cols(out) / 4;
                let params = kernel::QuadsParams { quads };
                let grid = Grid::Columns { x: quads.div_ceil(32), rows: Rows::Logits, each: 1 };
                let buffers = [self.activation(x), self.activation(out)];
                self.single(&kernel::select_logits_rows(), Rows::Logits, grid, bytemuck::bytes_of(&params), &buffers)
            }
            Op::MatMul { .. } => unreachable!("products are planned with what is folded into them"),
            Op::RopeAndCache { layer, qkv, q, pairing, norm } => {
                let call = self.rope_and_cache(layer, qkv, q, pairing, norm);
                self.push(Rows::Tokens, vec![call]);
            }
            Op::PagedAttention { layer, q, out } => self.attention(layer as usize, q, out),
            Op::SiluMul { gate_up, out } => {
                let quads = self.cols(out) / 4;
                let rows = self.rows(out);
                let params = kernel::QuadsParams { quads };
                let grid = Grid::Columns { x: quads.div_ceil(32), rows, each: 1 };
                let buffers = [self.activation(gate_up), self.activation(out)];
                self.single(&kernel::silu_mul(), rows, grid, bytemuck::bytes_of(&params), &buffers)
            }
        }
    }

    fn activation(&self, id: ActId) -> &'a wgpu::Buffer {
        &self.buffers.activations[id.0 as usize]
    }

    fn weight(&self, id: WeightId) -> &'a GpuWeight {
        &self.weights[id.0 as usize]
    }

    fn cols(&self, id: ActId) -> u32 {
        self.program.activations[id.0 as usize].cols
    }

    fn rows(&self, id: ActId) -> Rows {
        self.program.activations[id.0 as usize].rows
    }

    /// The buffer of a norm's weight or a bias.
    fn vector(&self, id: WeightId) -> &'a wgpu::Buffer {
        &self.weight(id).parts[0].values
    }

    /// A node with one choice of one call; see [`Planner::draft`].
    fn single(&mut self, kernel: &Kernel, rows: Rows, grid: Grid, params: &[u8], buffers: &[&wgpu::Buffer]) {
        let call = self.draft(kernel, grid, params, buffers);
        self.push(rows, vec![call]);
    }

    /// A node with one choice.
    fn push(&mut self, rows: Rows, drafts: Vec<Draft>) {
        self.push_choices(rows, vec![(u32::MAX, drafts)]);
    }

    /// A node: calls for each largest number of rows, the last for any.
    fn push_choices(&mut self, rows: Rows, choices: Vec<(u32, Vec<Draft>)>) {
        let is_in_rounds = matches!(choices[0].1[0].grid, Grid::Items { .. });
        let first = self.plan.choices.len();
        for (max_rows, drafts) in choices {
            let first = self.drafts.len();
            self.drafts.extend(drafts);
            self.plan.choices.push(Choice { max_rows, calls: first..self.drafts.len() });
        }
        let choices = first..self.plan.choices.len();
        self.plan.nodes.push(Node { rows, is_in_rounds, choices, work: Work::default() });
    }

    /// `buffers` follow the step's, in the order of the kernel's bindings.
    fn draft(&self, kernel: &Kernel, grid: Grid, params: &[u8], buffers: &[&wgpu::Buffer]) -> Draft {
        assert_eq!(kernel.bindings.len(), buffers.len() + 1, "kernel {}: buffers against bindings", kernel.name);
        let buffers = std::iter::once(&self.buffers.step).chain(buffers.iter().copied()).cloned().collect();
        let mut padded = [0; MAX_PARAMS];
        padded[..params.len()].copy_from_slice(params);
        Draft { kernel: kernel.clone(), buffers, params: padded, params_len: params.len(), grid }
    }

    fn feed_tokens(&mut self) {
        let buffers = [&self.buffers.ids, &self.buffers.draws.drawn];
        self.single(&kernel::feed_tokens(), Rows::Tokens, Grid::FedTokens { each: 32 }, &[], &buffers)
    }

    fn embed(&mut self, table: WeightId, out: ActId) {
        let octets = self.cols(out) / 8;
        for part in &self.weight(table).parts {
            let params = kernel::EmbedParams { octets, first_row: part.first_row as u32, num_rows: part.rows as u32 };
            let mut buffers = part.buffers();
            buffers.push(self.activation(out));
            let grid = Grid::Columns { x: octets.div_ceil(32), rows: Rows::Tokens, each: 1 };
            let kernel = kernel::embed(part.format, self.gpu.variant);
            self.single(&kernel, Rows::Tokens, grid, bytemuck::bytes_of(&params), &buffers);
        }
    }

    fn rms_norm(&self, x: ActId, weight: WeightId, eps: f32, out: ActId) -> Draft {
        let params = kernel::RmsNormParams { quads: self.cols(out) / 4, eps };
        let kernel = kernel::rms_norm(self.gpu.variant, self.gpu.subgroup_size());
        let buffers = [self.activation(x), self.vector(weight), self.activation(out)];
        let grid = Grid::RowGroups { rows: self.rows(out), each: 1, y: 1 };
        self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }
}
