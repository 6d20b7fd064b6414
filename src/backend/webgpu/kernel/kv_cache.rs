//! The kernels that write the KV pool: rope_and_cache and the block copies.

use super::super::super::{AttentionShape, KvLayout, RopePairing};
use super::{Kernel, QuadsParams, read, write};
use std::fmt::Write;

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
}

pub(in super::super) fn rope_and_cache(shape: &AttentionShape, layout: &KvLayout, pairing: RopePairing) -> Kernel {
    let bindings = [read(1), read(2), write(3), write(4), write(5)];
    let mut kernel = Kernel::new("rope_and_cache", wgsl!("rope_and_cache.wgsl"), &bindings, size_of::<RopeParams>())
        .kv(shape, layout);
    writeln!(kernel.prelude, "const INTERLEAVED = {};", pairing == RopePairing::Interleaved)
        .expect("a string takes any write");
    kernel
}

pub(in super::super) fn copy_blocks() -> Kernel {
    Kernel::new("copy_blocks", wgsl!("copy_blocks.wgsl"), &[write(1), write(2)], size_of::<QuadsParams>())
}

pub(in super::super) fn copy_blocks_of_three() -> Kernel {
    let bindings = [1, 2, 3, 4, 5, 6].map(write);
    let file = wgsl!("copy_blocks_of_three.wgsl");
    Kernel::new("copy_blocks_of_three", file, &bindings, size_of::<QuadsParams>())
}
