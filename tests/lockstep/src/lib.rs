//! A GPU for tests: a `wgpu` adapter that runs WGSL compute kernels on the processor, all invocations of a workgroup in
//! lockstep, with subgroups as wide as GPUs have them, and reports what a real GPU leaves to chance:
//!
//! - data races, between invocations of a workgroup with no barrier between, and between workgroups;
//! - workgroup memory that is read before anybody wrote it;
//! - accesses beyond a buffer, an array or a variable;
//! - barriers that not all invocations of a workgroup come to, and operations of subgroups that not all of theirs do;
//! - shuffles from lanes that there are not, places of cooperative matrices that differ within a subgroup;
//! - stores to buffers that are bound to be read, and buffers that are bound twice where one is written.
//!
//! Such a fault ends the dispatch and goes to the device's handler of uncaptured errors. Subnormal floats are zero, as WGSL
//! allows. A kernel is interpreted from `naga`'s IR, so it is what `wgpu` would give to any driver. What the kernels of this
//! project do not use (textures, `switch`, scans, matrices in buffers ...) is refused by name.

mod device;
mod expression;
mod kernel;
mod layout;
mod machine;
mod math;
mod shared;
mod subgroup;
mod value;

/// What an adapter says that it is.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Its name.
    pub name: &'static str,
    /// The API it is found through.
    pub backend: wgpu::Backend,
    /// Discrete, integrated, ...
    pub device_type: wgpu::DeviceType,
    /// Sizes of subgroups, in ascending order; each kernel is compiled for one of them. Empty for none.
    pub subgroup_sizes: &'static [u32],
    /// Sizes of its cooperative matrices of f16 with f32 sums.
    pub matrix_sizes: &'static [u32],
    /// Storage buffers that a kernel may have.
    pub storage_buffers: u32,
}

/// The adapter of such a GPU.
pub fn adapter(gpu: Gpu) -> wgpu::Adapter {
    wgpu::Adapter::from_custom(device::Adapter(gpu))
}
