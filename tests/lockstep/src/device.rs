//! The adapter, its device and queue, behind `wgpu`'s interface for backends.

use super::Gpu;
use super::commands::{Binding, Words, lock};
use super::counts::Meter;
use super::encoder::{CommandBuffer, Encoder};
use super::kernel::{Kernel, ShaderModule};
use std::future::ready;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use wgpu::custom::*;

/// For what no kernel of this project needs.
macro_rules! not_here {
    () => {
        unimplemented!("this device only runs compute kernels over buffers")
    };
}
pub(crate) use not_here;

#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub(crate) gpu: Gpu,
    pub(crate) meter: Option<Meter>,
}

#[derive(Debug)]
struct Device {
    gpu: Gpu,
    meter: Option<Meter>,
    errors: Arc<Errors>,
}

#[derive(Debug)]
struct Queue {
    errors: Arc<Errors>,
    submissions: AtomicU64,
}

/// Where faults go.
#[derive(Default)]
struct Errors {
    handler: Mutex<Option<Arc<dyn wgpu::UncapturedErrorHandler>>>,
}

impl std::fmt::Debug for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errors")
    }
}

impl Errors {
    fn report(&self, fault: String) {
        let handler = lock(&self.handler).clone();
        let error = wgpu::Error::Validation { source: fault.clone().into(), description: fault.clone() };
        match handler {
            Some(handler) => handler(error),
            None => panic!("{fault}"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) words: Words,
}

#[derive(Debug)]
struct MappedRange(Vec<u8>);

#[derive(Debug)]
struct Shader(Option<Arc<ShaderModule>>);

#[derive(Debug)]
struct BindGroupLayout;

#[derive(Debug)]
struct PipelineLayout;

#[derive(Debug)]
pub(crate) struct BindGroup(pub(crate) Arc<Vec<Binding>>);

#[derive(Debug)]
pub(crate) struct Pipeline(pub(crate) Option<Arc<Kernel>>);

impl AdapterInterface for Adapter {
    fn request_device(&self, _desc: &wgpu::DeviceDescriptor<'_>) -> Pin<Box<dyn RequestDeviceFuture>> {
        let errors = Arc::new(Errors::default());
        let device = Device { gpu: self.gpu.clone(), meter: self.meter.clone(), errors: errors.clone() };
        let queue = Queue { errors, submissions: AtomicU64::new(0) };
        Box::pin(ready(Ok((DispatchDevice::custom(device), DispatchQueue::custom(queue)))))
    }
    fn is_surface_supported(&self, _surface: &DispatchSurface) -> bool {
        false
    }
    fn features(&self) -> wgpu::Features {
        features(&self.gpu)
    }
    fn limits(&self) -> wgpu::Limits {
        limits(&self.gpu)
    }
    fn downlevel_capabilities(&self) -> wgpu::DownlevelCapabilities {
        wgpu::DownlevelCapabilities::default()
    }
    fn get_info(&self) -> wgpu::AdapterInfo {
        info(&self.gpu)
    }
    fn get_texture_format_features(&self, _format: wgpu::TextureFormat) -> wgpu::TextureFormatFeatures {
        not_here!()
    }
    fn get_presentation_timestamp(&self) -> wgpu::PresentationTimestamp {
        not_here!()
    }
    fn cooperative_matrix_properties(&self) -> Vec<wgpu::CooperativeMatrixProperties> {
        let of_size = |&size: &u32| wgpu::CooperativeMatrixProperties {
            m_size: size,
            n_size: size,
            k_size: size,
            ab_type: wgpu::CooperativeScalarType::F16,
            cr_type: wgpu::CooperativeScalarType::F32,
            saturating_accumulation: false,
        };
        self.gpu.matrix_sizes.iter().map(of_size).collect()
    }
}

fn features(gpu: &Gpu) -> wgpu::Features {
    let mut features = wgpu::Features::IMMEDIATES;
    features.set(wgpu::Features::SUBGROUP, gpu.told_subgroup_sizes.is_some());
    let of_matrices = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
    features.set(of_matrices, !gpu.matrix_sizes.is_empty());
    features
}

fn limits(gpu: &Gpu) -> wgpu::Limits {
    wgpu::Limits {
        max_immediate_size: 128,
        max_storage_buffers_per_shader_stage: gpu.storage_buffers,
        max_storage_buffer_binding_size: 1 << 31,
        max_buffer_size: 1 << 31,
        ..wgpu::Limits::default()
    }
}

fn info(gpu: &Gpu) -> wgpu::AdapterInfo {
    let mut info = wgpu::AdapterInfo::new(gpu.device_type, gpu.backend);
    info.name = gpu.name.into();
    info.driver = "lockstep".into();
    (info.subgroup_min_size, info.subgroup_max_size) = gpu.told_subgroup_sizes.unwrap_or((1, 1));
    info
}

impl DeviceInterface for Device {
    fn features(&self) -> wgpu::Features {
        features(&self.gpu)
    }
    fn limits(&self) -> wgpu::Limits {
        limits(&self.gpu)
    }
    fn adapter_info(&self) -> wgpu::AdapterInfo {
        info(&self.gpu)
    }
    fn create_shader_module(
        &self,
        desc: wgpu::ShaderModuleDescriptor<'_>,
        _shader_bound_checks: wgpu::ShaderRuntimeChecks,
    ) -> DispatchShaderModule {
        let wgpu::ShaderSource::Wgsl(source) = desc.source else { not_here!() };
        let shader = ShaderModule::new(&source, features(&self.gpu)).map_err(|error| self.errors.report(error)).ok();
        DispatchShaderModule::custom(Shader(shader.map(Arc::new)))
    }
    unsafe fn create_shader_module_passthrough(
        &self,
        _desc: &wgpu::ShaderModuleDescriptorPassthrough<'_>,
    ) -> DispatchShaderModule {
        not_here!()
    }
    fn create_bind_group_layout(&self, _desc: &wgpu::BindGroupLayoutDescriptor<'_>) -> DispatchBindGroupLayout {
        DispatchBindGroupLayout::custom(BindGroupLayout)
    }
    fn create_bind_group(&self, desc: &wgpu::BindGroupDescriptor<'_>) -> DispatchBindGroup {
        let binding = |entry: &wgpu::BindGroupEntry<'_>| {
            let wgpu::BindingResource::Buffer(binding) = &entry.resource else { not_here!() };
            let size = binding.size.map_or(binding.buffer.size() - binding.offset, |size| size.get());
            let words = (binding.offset / 4) as usize..((binding.offset + size) / 4) as usize;
            let buffer = binding.buffer.as_custom::<Buffer>().expect("a buffer of this device");
            Binding { number: entry.binding, buffer: buffer.words.clone(), words }
        };
        DispatchBindGroup::custom(BindGroup(Arc::new(desc.entries.iter().map(binding).collect())))
    }
    fn create_pipeline_layout(&self, _desc: &wgpu::PipelineLayoutDescriptor<'_>) -> DispatchPipelineLayout {
        DispatchPipelineLayout::custom(PipelineLayout)
    }
    fn create_render_pipeline(&self, _desc: &wgpu::RenderPipelineDescriptor<'_>) -> DispatchRenderPipeline {
        not_here!()
    }
    fn create_mesh_pipeline(&self, _desc: &wgpu::MeshPipelineDescriptor<'_>) -> DispatchRenderPipeline {
        not_here!()
    }
    fn create_compute_pipeline(&self, desc: &wgpu::ComputePipelineDescriptor<'_>) -> DispatchComputePipeline {
        assert!(desc.compilation_options.constants.is_empty(), "pipeline constants are not known here");
        let shader = desc.module.as_custom::<Shader>().expect("a module of this device").0.clone();
        let kernel = shader.and_then(|shader| {
            let name = desc.entry_point.expect("pipelines name their entry points");
            Kernel::new(shader, name, &self.gpu, &limits(&self.gpu), self.meter.clone())
                .map_err(|error| self.errors.report(error))
                .ok()
        });
        DispatchComputePipeline::custom(Pipeline(kernel.map(Arc::new)))
    }
    unsafe fn create_pipeline_cache(&self, _desc: &wgpu::PipelineCacheDescriptor<'_>) -> DispatchPipelineCache {
        not_here!()
    }
    fn create_buffer(&self, desc: &wgpu::BufferDescriptor<'_>) -> DispatchBuffer {
        let words = vec![0; (desc.size as usize).div_ceil(4)];
        DispatchBuffer::custom(Buffer { words: Arc::new(Mutex::new(words)) })
    }
    fn create_texture(&self, _desc: &wgpu::TextureDescriptor<'_>) -> DispatchTexture {
        not_here!()
    }
    fn create_external_texture(
        &self,
        _desc: &wgpu::ExternalTextureDescriptor<'_>,
        _planes: &[&wgpu::TextureView],
    ) -> DispatchExternalTexture {
        not_here!()
    }
    fn create_blas(
        &self,
        _desc: &wgpu::CreateBlasDescriptor<'_>,
        _sizes: wgpu::BlasGeometrySizeDescriptors,
    ) -> (Option<u64>, DispatchBlas) {
        not_here!()
    }
    fn create_tlas(&self, _desc: &wgpu::CreateTlasDescriptor<'_>) -> DispatchTlas {
        not_here!()
    }
    fn create_sampler(&self, _desc: &wgpu::SamplerDescriptor<'_>) -> DispatchSampler {
        not_here!()
    }
    fn create_query_set(&self, _desc: &wgpu::QuerySetDescriptor<'_>) -> DispatchQuerySet {
        not_here!()
    }
    fn create_command_encoder(&self, _desc: &wgpu::CommandEncoderDescriptor<'_>) -> DispatchCommandEncoder {
        DispatchCommandEncoder::custom(Encoder(Arc::default()))
    }
    fn create_render_bundle_encoder(
        &self,
        _desc: &wgpu::RenderBundleEncoderDescriptor<'_>,
    ) -> DispatchRenderBundleEncoder {
        not_here!()
    }
    fn set_device_lost_callback(&self, _device_lost_callback: BoxDeviceLostCallback) {}
    fn on_uncaptured_error(&self, handler: Arc<dyn wgpu::UncapturedErrorHandler>) {
        *lock(&self.errors.handler) = Some(handler);
    }
    fn push_error_scope(&self, _filter: wgpu::ErrorFilter) -> u32 {
        0
    }
    fn pop_error_scope(&self, _index: u32) -> Pin<Box<dyn PopErrorScopeFuture>> {
        Box::pin(ready(None))
    }
    unsafe fn start_graphics_debugger_capture(&self) {}
    unsafe fn stop_graphics_debugger_capture(&self) {}
    fn poll(&self, _poll_type: wgpu::wgt::PollType<u64>) -> Result<wgpu::PollStatus, wgpu::PollError> {
        Ok(wgpu::PollStatus::QueueEmpty)
    }
    fn get_internal_counters(&self) -> wgpu::InternalCounters {
        wgpu::InternalCounters::default()
    }
    fn generate_allocator_report(&self) -> Option<wgpu::AllocatorReport> {
        None
    }
    fn destroy(&self) {}
}

impl QueueInterface for Queue {
    fn write_buffer(&self, buffer: &DispatchBuffer, offset: wgpu::BufferAddress, data: &[u8]) {
        let buffer = buffer.as_custom::<Buffer>().expect("a buffer of this device");
        let mut words = lock(&buffer.words);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        bytes[offset as usize..][..data.len()].copy_from_slice(data);
    }
    fn create_staging_buffer(&self, _size: wgpu::BufferSize) -> Option<DispatchQueueWriteBuffer> {
        not_here!()
    }
    fn validate_write_buffer(
        &self,
        _buffer: &DispatchBuffer,
        _offset: wgpu::BufferAddress,
        _size: wgpu::BufferSize,
    ) -> Option<()> {
        not_here!()
    }
    fn write_staging_buffer(
        &self,
        _buffer: &DispatchBuffer,
        _offset: wgpu::BufferAddress,
        _staging_buffer: &DispatchQueueWriteBuffer,
    ) {
        not_here!()
    }
    fn write_texture(
        &self,
        _texture: wgpu::TexelCopyTextureInfo<'_>,
        _data: &[u8],
        _data_layout: wgpu::TexelCopyBufferLayout,
        _size: wgpu::Extent3d,
    ) {
        not_here!()
    }
    /// Runs what was recorded, here and now.
    fn submit(&self, command_buffers: &mut dyn Iterator<Item = DispatchCommandBuffer>) -> u64 {
        for buffer in command_buffers {
            let commands = buffer.as_custom::<CommandBuffer>().expect("commands of this device").0.clone();
            for command in lock(&commands).drain(..) {
                if let Err(fault) = command.run() {
                    self.errors.report(fault);
                }
            }
        }
        self.submissions.fetch_add(1, Ordering::Relaxed) + 1
    }
    fn get_timestamp_period(&self) -> f32 {
        1.0
    }
    fn on_submitted_work_done(&self, callback: BoxSubmittedWorkDoneCallback) {
        callback();
    }
    fn compact_blas(&self, _blas: &DispatchBlas) -> (Option<u64>, DispatchBlas) {
        not_here!()
    }
    fn present(&self, _detail: &DispatchSurfaceOutputDetail) {
        not_here!()
    }
}

impl BufferInterface for Buffer {
    fn map_async(&self, _mode: wgpu::MapMode, _range: Range<wgpu::BufferAddress>, callback: BufferMapCallback) {
        callback(Ok(()));
    }
    fn get_mapped_range(
        &self,
        sub_range: Range<wgpu::BufferAddress>,
    ) -> Result<DispatchBufferMappedRange, wgpu::MapRangeError> {
        let words = lock(&self.words);
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let range = sub_range.start as usize..sub_range.end as usize;
        Ok(DispatchBufferMappedRange::custom(MappedRange(bytes[range].to_vec())))
    }
    fn unmap(&self) {}
    fn destroy(&self) {}
}

impl BufferMappedRangeInterface for MappedRange {
    fn len(&self) -> usize {
        self.0.len()
    }
    unsafe fn read_slice(&self) -> &[u8] {
        &self.0
    }
    unsafe fn write_slice(&mut self) -> wgpu::WriteOnly<'_, [u8]> {
        not_here!()
    }
}

impl ShaderModuleInterface for Shader {
    fn get_compilation_info(&self) -> Pin<Box<dyn ShaderCompilationInfoFuture>> {
        not_here!()
    }
}

impl BindGroupLayoutInterface for BindGroupLayout {}
impl BindGroupInterface for BindGroup {}
impl PipelineLayoutInterface for PipelineLayout {}

impl ComputePipelineInterface for Pipeline {
    fn get_bind_group_layout(&self, _index: u32) -> DispatchBindGroupLayout {
        DispatchBindGroupLayout::custom(BindGroupLayout)
    }
}
