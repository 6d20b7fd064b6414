//! Adapters: which there are, which one to use, what it can do.

use super::super::BackendError;
use std::fmt;

/// The shape of kernels that suits an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Software adapters: a workgroup is a few vector registers, no workgroup memory, no barriers.
    Cpu,
    /// GPUs with cooperative matrices: those take products of many rows and prefills, the rest is as for `Subgroup`.
    Matrix,
    /// GPUs with subgroup operations, subgroups of at least 8.
    Subgroup,
    /// Everything else: workgroup memory and barriers only.
    Plain,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Matrix => "matrix",
            Self::Subgroup => "subgroup",
            Self::Plain => "plain",
        })
    }
}

impl std::str::FromStr for Variant {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "cpu" => Ok(Self::Cpu),
            "matrix" => Ok(Self::Matrix),
            "subgroup" => Ok(Self::Subgroup),
            "plain" => Ok(Self::Plain),
            _ => Err(format!("unknown kernel variant {s:?}; use cpu, matrix, subgroup or plain")),
        }
    }
}

/// An adapter as `wgpu` sees it, and what it means for us.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    /// Position in the list, for `--device`.
    pub index: usize,
    /// Name, for `--device` too.
    pub name: String,
    /// PCI vendor id.
    pub vendor: u32,
    /// Discrete GPU, integrated GPU, virtual GPU, CPU or other.
    pub device_type: String,
    /// Graphics API.
    pub api: String,
    /// Driver name and version.
    pub driver: String,
    /// Smallest and largest subgroup, when there are subgroup operations.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// Native f16 arithmetic (not needed: kernels unpack halves themselves).
    pub shader_f16: bool,
    /// Rows and columns of its cooperative matrices (f16 factors, f32 sums), when it has any that the kernels use.
    pub matrix_size: Option<u32>,
    /// Largest storage binding, in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Device-local memory, in bytes, where the API tells.
    pub memory_bytes: Option<u64>,
    /// Whether the adapter is the processor itself.
    pub is_software: bool,
    /// Kernel variants that run here, the chosen one first.
    pub variants: Vec<Variant>,
    /// Why the adapter cannot be used, if it cannot.
    pub unusable: Option<String>,
}

/// What to do where there is no adapter.
pub const NO_ADAPTER: &str = "no Vulkan, Metal or DirectX 12 adapter found. On Debian and Ubuntu, AMD and Intel: \
                              apt-get install mesa-vulkan-drivers libvulkan1 (it brings a software adapter, too), and \
                              be in the group `render`; NVIDIA: its own driver";

/// Every adapter of the machine, in `wgpu`'s order.
pub fn adapters() -> Vec<AdapterSummary> {
    enumerate().iter().enumerate().map(|(index, adapter)| summarize(index, adapter)).collect()
}

fn instance() -> wgpu::Instance {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
    desc.backends = wgpu::Backends::PRIMARY;
    desc.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(desc)
}

fn enumerate() -> Vec<wgpu::Adapter> {
    pollster::block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY))
}

/// The adapter that `selector` names: an index into [`adapters`], or a part of the name in any case. Without a selector
/// the first of: discrete GPU, integrated GPU, virtual GPU, software.
pub(super) fn choose(selector: Option<&str>) -> Result<(wgpu::Adapter, AdapterSummary), BackendError> {
    let all: Vec<(wgpu::Adapter, AdapterSummary)> = enumerate()
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| {
            let summary = summarize(index, &adapter);
            (adapter, summary)
        })
        .collect();
    if all.is_empty() {
        return Err(BackendError::NoDevice(NO_ADAPTER.to_string()));
    }
    let names = || all.iter().map(|(_, s)| format!("{}: {}", s.index, s.name)).collect::<Vec<_>>().join("; ");
    let index = match selector {
        None => all
            .iter()
            .enumerate()
            .filter(|(_, (_, s))| s.unusable.is_none())
            .min_by_key(|(index, (adapter, s))| (rank(adapter), !s.name.contains("llvmpipe"), *index))
            .map(|(index, _)| index),
        Some(wanted) => match wanted.parse::<usize>() {
            Ok(index) => (index < all.len()).then_some(index),
            Err(_) if wanted.is_empty() => None,
            Err(_) => all.iter().position(|(_, s)| s.name.to_lowercase().contains(&wanted.to_lowercase())),
        },
    };
    let Some(index) = index else {
        return Err(BackendError::NoDevice(match selector {
            Some(wanted) => format!("no device {wanted:?}; there are: {}", names()),
            None => format!("no usable device; there are: {} (see `bindery devices`)", names()),
        }));
    };
    Ok(all.into_iter().nth(index).expect("index is within the list"))
}

fn rank(adapter: &wgpu::Adapter) -> u32 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// What an adapter is and can do, as the `index`-th of the list.
pub(super) fn summarize(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let subgroups = features.contains(wgpu::Features::SUBGROUP);
    let sizes = subgroup_sizes(&info);
    let mut variants = Vec::new();
    if subgroups && info.device_type == wgpu::DeviceType::Cpu && sizes.0 == sizes.1 && matches!(sizes.0, 4 | 8) {
        variants.push(Variant::Cpu);
    }
    let matrix_size = matrix_size(adapter);
    if subgroups && sizes.0 >= 8 {
        variants.extend(matrix_size.map(|_| Variant::Matrix));
        variants.push(Variant::Subgroup);
    }
    variants.push(Variant::Plain);
    AdapterSummary {
        index,
        name: info.name.clone(),
        vendor: info.vendor,
        device_type: format!("{:?}", info.device_type),
        api: format!("{:?}", info.backend),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        subgroup_sizes: subgroups.then_some(sizes),
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        matrix_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        memory_bytes: memory_bytes(adapter),
        is_software: info.device_type == wgpu::DeviceType::Cpu,
        variants,
        unusable: unusable(&features, &limits),
    }
}

/// The smallest and the largest subgroup. On Metal `wgpu` reports WebGPU's bounds, 4 and 64, whatever the GPU: Apple's have 32,
/// of the others Intel's have 8 or more, AMD's 32 or 64.
fn subgroup_sizes(info: &wgpu::AdapterInfo) -> (u32, u32) {
    match info.backend {
        wgpu::Backend::Metal if is_apples(info) => (32, 32),
        wgpu::Backend::Metal => (info.subgroup_min_size.max(8), info.subgroup_max_size),
        _ => (info.subgroup_min_size, info.subgroup_max_size),
    }
}

/// Whether a Metal adapter is a GPU of Apple's own.
fn is_apples(info: &wgpu::AdapterInfo) -> bool {
    info.name.starts_with("Apple")
}

/// Features that cooperative matrices take.
pub(super) const MATRIX_FEATURES: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

/// The largest square matrices that the adapter lists with f16 factors and f32 sums. What it does not list it may still
/// accept, and get wrong. On Metal `wgpu` 30 lists matrices for AMD's and Intel's GPUs, too, but only Apple's have them.
fn matrix_size(adapter: &wgpu::Adapter) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let info = adapter.get_info();
    let has_none = info.backend == wgpu::Backend::Metal && !is_apples(&info);
    if has_none || !adapter.features().contains(MATRIX_FEATURES | wgpu::Features::SUBGROUP) {
        return None;
    }
    let listed = adapter.cooperative_matrix_properties();
    [16, 8].into_iter().find(|&size| {
        let fits = |m: &wgpu::CooperativeMatrixProperties| {
            [m.m_size, m.n_size, m.k_size] == [size; 3] && (m.ab_type, m.cr_type) == (F16, F32)
        };
        listed.iter().any(fits)
    })
}

fn unusable(features: &wgpu::Features, limits: &wgpu::Limits) -> Option<String> {
    if !features.contains(wgpu::Features::IMMEDIATES) || limits.max_immediate_size < 32 {
        return Some("it has no immediates (push constants) of 32 bytes".into());
    }
    if limits.max_storage_buffers_per_shader_stage < 7 {
        return Some(format!("7 storage buffers in a shader, it has {}", limits.max_storage_buffers_per_shader_stage));
    }
    if limits.max_compute_workgroup_storage_size < 16384 || limits.max_compute_invocations_per_workgroup < 256 {
        return Some("it has under 16 KiB of workgroup memory, or under 256 invocations in a workgroup".into());
    }
    None
}

/// Size of the largest memory heap, through the API below `wgpu`.
#[cfg(any(target_os = "linux", target_os = "windows", target_os = "android"))]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handles are only used for a query while `adapter` is alive.
    unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = hal.shared_instance().raw_instance();
        let properties = instance.get_physical_device_memory_properties(hal.raw_physical_device());
        properties.memory_heaps_as_slice().iter().map(|heap| heap.size).max()
    }
}

/// Not known on this system.
#[cfg(not(any(target_os = "linux", target_os = "windows", target_os = "android")))]
fn memory_bytes(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bindery_lockstep::{Gpu, adapter};

    fn summary(gpu: Gpu) -> AdapterSummary {
        summarize(0, &adapter(gpu))
    }

    #[test]
    fn kernels_follow_from_what_a_gpu_has() {
        use Variant::{Matrix, Plain, Subgroup};
        for (gpu, sizes, matrix_size, variants) in [
            (Gpu::NVIDIA, Some((32, 32)), Some(16), vec![Matrix, Subgroup, Plain]),
            (Gpu::AMD, Some((32, 64)), Some(16), vec![Matrix, Subgroup, Plain]),
            (Gpu::INTEL, Some((8, 32)), None, vec![Subgroup, Plain]),
            (Gpu::APPLE, Some((32, 32)), Some(8), vec![Matrix, Subgroup, Plain]),
            (Gpu::QUALCOMM, Some((64, 128)), None, vec![Subgroup, Plain]),
            (Gpu::SMALL, None, None, vec![Plain]),
            // Of matrices that are listed the largest, where they are there at all.
            (Gpu { matrix_sizes: &[8, 16], ..Gpu::NVIDIA }, Some((32, 32)), Some(16), vec![Matrix, Subgroup, Plain]),
            (Gpu { name: "AMD Radeon Pro", ..Gpu::APPLE }, Some((8, 64)), None, vec![Subgroup, Plain]),
            // Subgroups that are smaller than those of the kernels for GPUs.
            (Gpu { told_subgroup_sizes: Some((4, 4)), ..Gpu::INTEL }, Some((4, 4)), None, vec![Plain]),
        ] {
            let name = gpu.name;
            let summary = summary(gpu);
            assert_eq!((summary.subgroup_sizes, summary.matrix_size), (sizes, matrix_size), "{name}");
            assert_eq!((summary.variants, summary.unusable), (variants, None), "{name}");
        }
    }

    #[test]
    fn a_gpu_that_lacks_something_is_refused_in_words() {
        let adapter = adapter(Gpu { storage_buffers: 6, ..Gpu::SMALL });
        let Err(BackendError::NoDevice(why)) = super::super::GpuDevice::open_adapter(adapter, None) else {
            panic!("kernels have 7 buffers")
        };
        assert_eq!(why, "device \"Small\" cannot be used: 7 storage buffers in a shader, it has 6");
    }
}
