//! A GPU for tests: a `wgpu` adapter that runs WGSL compute kernels on the processor, all invocations of a workgroup in
//! lockstep, with subgroups as wide as GPUs have them, and reports what a real GPU leaves to chance:
//!
//! - data races, between invocations of a workgroup with no barrier between, and between workgroups;
//! - workgroup memory that is read before anybody wrote it;
//! - accesses beyond a buffer, an array or a variable;
//! - barriers that not all invocations of a workgroup come to, and operations of subgroups that not all of theirs do;
//! - shuffles from lanes that there are not, places of cooperative matrices that differ within a subgroup;
//! - buffers that are bound twice where one is written, more storage buffers, invocations, workgroups or workgroup memory than
//!   the GPU has, and operations of subgroups or matrices where it has none.
//!
//! Such a fault ends the dispatch and goes to the device's handler of uncaptured errors. Subnormal floats are zero, as WGSL
//! allows. A kernel is interpreted from `naga`'s IR, so it is what `wgpu` would give to any driver. What the kernels of this
//! project do not use (textures, `switch`, scans, matrices in buffers ...) is refused by name.

mod commands;
mod counter;
mod counts;
mod device;
mod encoder;
mod expression;
mod kernel;
mod layout;
mod machine;
mod math;
mod pointer;
mod shared;
mod statement;
mod subgroup;
mod value;

pub use counts::{Access, Counts, Meter, Traffic};

/// What an adapter says that it is, and how it runs kernels. The constants follow what is documented of these makers' GPUs;
/// none of these has been seen.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Its name.
    pub name: &'static str,
    /// The API it is found through.
    pub backend: wgpu::Backend,
    /// Discrete, integrated, ...
    pub device_type: wgpu::DeviceType,
    /// The smallest and the largest subgroup that the adapter tells of; `None` where kernels have no subgroup operations.
    pub told_subgroup_sizes: Option<(u32, u32)>,
    /// Those that there are: each kernel is compiled for one of them.
    pub subgroup_sizes: &'static [u32],
    /// Whether invocations that are neighbours are in different subgroups, which Vulkan leaves open.
    pub scattered_subgroups: bool,
    /// Rows and columns of its cooperative matrices of f16 with f32 sums.
    pub matrix_sizes: &'static [u32],
    /// Whether products of matrices lack a term: a driver's fault.
    pub wrong_matrices: bool,
    /// Storage buffers that a kernel may have.
    pub storage_buffers: u32,
}

impl Gpu {
    /// Subgroups of 32, matrices of 16 x 16.
    pub const NVIDIA: Self = Self {
        name: "NVIDIA GeForce",
        backend: wgpu::Backend::Vulkan,
        device_type: wgpu::DeviceType::DiscreteGpu,
        told_subgroup_sizes: Some((32, 32)),
        subgroup_sizes: &[32],
        scattered_subgroups: false,
        matrix_sizes: &[16],
        wrong_matrices: false,
        storage_buffers: 64,
    };
    /// Subgroups of 32 or 64 as the compiler likes.
    pub const AMD: Self =
        Self { name: "AMD Radeon", told_subgroup_sizes: Some((32, 64)), subgroup_sizes: &[32, 64], ..Self::NVIDIA };
    /// Subgroups of 8, 16 or 32 as the compiler likes.
    pub const INTEL: Self = Self {
        name: "Intel Arc",
        told_subgroup_sizes: Some((8, 32)),
        subgroup_sizes: &[8, 16, 32],
        matrix_sizes: &[],
        ..Self::NVIDIA
    };
    /// Subgroups of 32, though Metal's adapters tell WebGPU's bounds; matrices of 8 x 8.
    pub const APPLE: Self = Self {
        name: "Apple M2",
        backend: wgpu::Backend::Metal,
        device_type: wgpu::DeviceType::IntegratedGpu,
        told_subgroup_sizes: Some((4, 64)),
        matrix_sizes: &[8],
        storage_buffers: 31,
        ..Self::NVIDIA
    };
    /// Subgroups of 64 or 128 as the compiler likes.
    pub const QUALCOMM: Self = Self {
        name: "Adreno",
        device_type: wgpu::DeviceType::IntegratedGpu,
        told_subgroup_sizes: Some((64, 128)),
        subgroup_sizes: &[64, 128],
        matrix_sizes: &[],
        ..Self::NVIDIA
    };
    /// No subgroup operations, and no more storage buffers than WebGPU promises.
    pub const SMALL: Self = Self {
        name: "Small",
        device_type: wgpu::DeviceType::IntegratedGpu,
        told_subgroup_sizes: None,
        subgroup_sizes: &[1],
        matrix_sizes: &[],
        storage_buffers: 8,
        ..Self::NVIDIA
    };
}

/// The adapter of such a GPU.
pub fn adapter(gpu: Gpu) -> wgpu::Adapter {
    wgpu::Adapter::from_custom(device::Adapter { gpu, meter: None })
}

/// The adapter of such a GPU, whose dispatches are counted.
pub fn metered_adapter(gpu: Gpu, meter: Meter) -> wgpu::Adapter {
    wgpu::Adapter::from_custom(device::Adapter { gpu, meter: Some(meter) })
}
