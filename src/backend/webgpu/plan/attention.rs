//! The dispatches around the KV pool: block copies, rope_and_cache and the attention.

use super::super::super::{ActId, AttentionShape, HeadNorm, KvDtype, RopePairing, Rows};
use super::super::grid::{Grid, ItemKind};
use super::super::kernel;
use super::super::step_words::header;
use super::{Draft, Planner};

impl Planner<'_> {
    /// Three layers in one dispatch, or fewer in one each.
    pub(super) fn copy_blocks(&mut self, layers: &[usize]) {
        let params = kernel::QuadsParams { quads: (self.kv.layer_block_bytes() / 16) as u32 };
        let grid = Grid::BlockCopies { x: params.quads.div_ceil(64) };
        let b = self.buffers;
        let pools: Vec<&wgpu::Buffer> = layers.iter().flat_map(|&layer| [&b.k_pool[layer], &b.v_pool[layer]]).collect();
        let kernel = if layers.len() == 3 { kernel::copy_blocks_of_three() } else { kernel::copy_blocks() };
        pools
            .chunks(kernel.bindings.len() - 1)
            .for_each(|pools| self.single(&kernel, Rows::Tokens, grid, bytemuck::bytes_of(&params), pools))
    }

    /// Whether a product can do what rope_and_cache does: to round a row of an int8 pool takes all of it, and the product
    /// binds more buffers than some adapters have.
    pub(super) fn folds_rope_and_cache(&self) -> bool {
        let limits = self.gpu.device.limits();
        self.kv.dtype != KvDtype::Int8 && limits.max_storage_buffers_per_shader_stage >= kernel::ROPE_AND_CACHE_BUFFERS
    }

    pub(super) fn rope_and_cache(
        &self,
        layer: u32,
        qkv: ActId,
        q: ActId,
        pairing: RopePairing,
        norm: Option<HeadNorm>,
    ) -> Draft {
        let shape = &self.program.attention;
        let kernel = kernel::rope_and_cache(shape, self.kv.dtype, pairing, norm.is_some());
        let params = kernel::RopeParams { qkv_stride: self.cols(qkv), norm_eps: norm.map_or(0.0, |norm| norm.eps) };
        let grid = Grid::Columns { x: kernel::rope_groups(shape), rows: Rows::Tokens, each: 1 };
        let (b, layer) = (self.buffers, layer as usize);
        let norm = norm.map_or(&b.unused, |norm| self.vector(norm.weight));
        let buffers = [self.activation(qkv), &b.rope, self.activation(q), &b.k_pool[layer], &b.v_pool[layer], norm];
        self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers)
    }

    pub(super) fn attention(&mut self, layer: usize, q: ActId, out: ActId) {
        let shape: AttentionShape = self.program.attention;
        let (variant, subgroup_size) = (self.gpu.variant, self.gpu.subgroup_size());
        let groups = shape.num_heads / self.tiling.heads_per_group;
        let b = self.buffers;
        let (k_pool, v_pool) = (&b.k_pool[layer], &b.v_pool[layer]);
        let buffers = [self.activation(q), k_pool, v_pool, self.activation(out), &b.partial_out, &b.partial_stats];

        let kernel = kernel::attention_decode(variant, subgroup_size, &shape, self.kv.dtype, &self.tiling);
        let items_at = header::DECODE_ITEMS_AT as u32;
        let params = kernel::AttentionParams { scale: shape.scale, items_at, first_item: 0 };
        let grid = Grid::Items { of: ItemKind::Decode, y: groups };
        let decode = self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers);

        let matrices = self.gpu.matrices();
        let kernel = kernel::attention_prefill(variant, subgroup_size, matrices, &shape, self.kv.dtype, &self.tiling);
        let params = kernel::AttentionParams { items_at: header::PREFILL_ITEMS_AT as u32, ..params };
        let grid = Grid::Items { of: ItemKind::Prefill, y: groups };
        let prefill = self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers);

        let params = kernel::ReduceParams { first_item: 0 };
        let buffers = [&b.partial_out, &b.partial_stats, self.activation(out)];
        let grid = Grid::Items { of: ItemKind::Reduce, y: shape.num_heads };
        let kernel = kernel::attention_reduce(variant, &shape);
        let reduce = self.draft(&kernel, grid, bytemuck::bytes_of(&params), &buffers);
        self.push(Rows::Tokens, vec![decode, prefill, reduce]);
    }
}
