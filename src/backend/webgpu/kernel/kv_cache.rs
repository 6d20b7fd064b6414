//! The kernels that write the KV pool: rope_and_cache and the block copies.

use super::super::super::{AttentionShape, KvDtype, RopePairing};
use super::{Kernel, QuadsParams, read, write};

macro_rules! wgsl {
    ($path:literal) => {
        include_str!(concat!("../../../../shaders/wgsl/", $path))
    };
}

/// Parameters of `rope_and_cache`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct RopeParams {
    pub(in super::super) qkv_stride: u32,
    pub(in super::super) norm_eps: f32,
}

/// Invocations of one head in `rope_and_cache`, and of a workgroup: whole heads, about 32 invocations of them.
fn rope_lanes(shape: &AttentionShape) -> (u32, u32) {
    let lanes = shape.head_dim / 8;
    (lanes, (32 / lanes).max(1) * lanes)
}

/// Workgroups of `rope_and_cache` for one token.
pub(in super::super) fn rope_groups(shape: &AttentionShape) -> u32 {
    let (lanes, wg) = rope_lanes(shape);
    ((shape.num_heads + 2 * shape.num_kv_heads) * lanes).div_ceil(wg)
}

pub(in super::super) fn rope_and_cache(
    shape: &AttentionShape,
    kv: KvDtype,
    pairing: RopePairing,
    has_norm: bool,
) -> Kernel {
    let bindings = [read(1), read(2), write(3), write(4), write(5), read(6)];
    let (name, file) = match kv {
        KvDtype::F32 | KvDtype::F16 => ("rope_and_cache", wgsl!("rope_and_cache.wgsl")),
        KvDtype::Int8 => ("rope_and_cache_int8", wgsl!("rope_and_cache_int8.wgsl")),
    };
    Kernel::new(name, file, &bindings, size_of::<RopeParams>())
        .kv(shape, kv)
        .pairing(pairing)
        .flag("HEAD_NORM", has_norm)
        .include(wgsl!("include/rope.wgsl"))
        .constant("WG", rope_lanes(shape).1)
}

pub(in super::super) fn copy_blocks() -> Kernel {
    Kernel::new("copy_blocks", wgsl!("copy_blocks.wgsl"), &[write(1), write(2)], size_of::<QuadsParams>())
}

pub(in super::super) fn copy_blocks_of_three() -> Kernel {
    let bindings = [1, 2, 3, 4, 5, 6].map(write);
    let file = wgsl!("copy_blocks_of_three.wgsl");
    Kernel::new("copy_blocks_of_three", file, &bindings, size_of::<QuadsParams>())
}
