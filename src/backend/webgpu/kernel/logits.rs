//! The kernels that look at finished logits: argmax, the likeliest tokens, draws, and log probabilities.

use super::super::Variant;
use super::super::buffers::LOGITS_CHUNK;
use super::{Kernel, read, write};

macro_rules! wgsl {
    ($path:literal) => {
        include_str!(concat!("../../../../shaders/wgsl/", $path))
    };
}

/// Parameters of `argmax_chunks`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct ArgmaxChunksParams {
    pub(in super::super) vocab: u32,
    pub(in super::super) chunks: u32,
}

pub(in super::super) fn argmax_chunks(variant: Variant, subgroup_size: u32) -> Kernel {
    let bytes = size_of::<ArgmaxChunksParams>();
    Kernel::new("argmax_chunks", wgsl!("argmax_chunks.wgsl"), &[read(1), write(2)], bytes)
        .reduce(variant, subgroup_size)
        .constant("CHUNK", LOGITS_CHUNK)
}

/// Parameters of `argmax_rows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct ArgmaxRowsParams {
    pub(in super::super) chunks: u32,
}

pub(in super::super) fn argmax_rows() -> Kernel {
    Kernel::new("argmax_rows", wgsl!("argmax_rows.wgsl"), &[read(1), write(2)], size_of::<ArgmaxRowsParams>())
}

/// Parameters of `top_k_chunks`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct TopKChunksParams {
    pub(in super::super) vocab: u32,
    pub(in super::super) chunks: u32,
}

pub(in super::super) fn top_k_chunks(variant: Variant, subgroup_size: u32) -> Kernel {
    let bytes = size_of::<TopKChunksParams>();
    Kernel::new("top_k_chunks", wgsl!("top_k_chunks.wgsl"), &[read(1), write(2), write(3)], bytes)
        .reduce(variant, subgroup_size)
        .include(wgsl!("include/ranked.wgsl"))
        .constant("CHUNK", LOGITS_CHUNK)
}

/// Parameters of `top_k_rows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct TopKRowsParams {
    pub(in super::super) chunks: u32,
}

pub(in super::super) fn top_k_rows(variant: Variant, subgroup_size: u32) -> Kernel {
    let bytes = size_of::<TopKRowsParams>();
    Kernel::new("top_k_rows", wgsl!("top_k_rows.wgsl"), &[read(1), read(2), write(3)], bytes)
        .reduce(variant, subgroup_size)
        .include(wgsl!("include/ranked.wgsl"))
}

/// Parameters of `draw_blocks`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct DrawBlocksParams {
    pub(in super::super) vocab: u32,
    pub(in super::super) blocks: u32,
}

pub(in super::super) fn draw_blocks() -> Kernel {
    let bytes = size_of::<DrawBlocksParams>();
    Kernel::new("draw_blocks", wgsl!("draw_blocks.wgsl"), &[read(1), write(2), write(3)], bytes)
        .include(wgsl!("include/draw.wgsl"))
}

/// Parameters of `draw_rows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct DrawRowsParams {
    pub(in super::super) blocks: u32,
}

pub(in super::super) fn draw_rows(variant: Variant, subgroup_size: u32) -> Kernel {
    let bytes = size_of::<DrawRowsParams>();
    Kernel::new("draw_rows", wgsl!("draw_rows.wgsl"), &[read(1), read(2), write(3)], bytes)
        .reduce(variant, subgroup_size)
        .include(wgsl!("include/draw.wgsl"))
}

/// Parameters of `score_rows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct ScoreRowsParams {
    pub(in super::super) vocab: u32,
}

pub(in super::super) fn score_rows(variant: Variant, subgroup_size: u32) -> Kernel {
    let bindings = [read(1), read(2), read(3), write(4)];
    Kernel::new("score_rows", wgsl!("score_rows.wgsl"), &bindings, size_of::<ScoreRowsParams>())
        .reduce(variant, subgroup_size)
}
