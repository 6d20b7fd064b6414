//! The adapter, its device and queue, behind `wgpu`'s interface for backends.

use super::Gpu;
use super::kernel::{Kernel, ShaderModule};
use super::machine::{self, Bound};
use super::shared::Shared;
use naga::{AddressSpace, StorageAccess};
use std::collections::HashMap;
use std::future::ready;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wgpu::custom::*;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For what no kernel of this project needs.
macro_rules! not_here {
    () => {
        unimplemented!("this device only runs compute kernels over buffers")
    };
}

#[derive(Debug, Clone)]
pub(crate) struct Adapter(pub(crate) Gpu);

#[derive(Debug)]
struct Device {
    gpu: Gpu,
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

type Words = Arc<Mutex<Vec<u32>>>;

#[derive(Debug)]
struct Buffer {
    words: Words,
}

#[derive(Debug)]
struct MappedRange(Vec<u8>);

#[derive(Debug)]
struct Shader(Option<Arc<ShaderModule>>);

#[derive(Debug)]
struct BindGroupLayout;

#[derive(Debug)]
struct PipelineLayout;

/// A binding's number, its buffer, and the words of it.
type Binding = (u32, Words, Range<usize>);

#[derive(Debug)]
struct BindGroup(Arc<Vec<Binding>>);

#[derive(Debug)]
struct Pipeline(Option<Arc<Kernel>>);

/// In the order in which they were recorded.
type Commands = Arc<Mutex<Vec<Command>>>;

#[derive(Debug)]
struct Encoder(Commands);

#[derive(Debug)]
struct CommandBuffer(Commands);

#[derive(Debug)]
struct Pass {
    commands: Commands,
    kernel: Option<Arc<Kernel>>,
    bindings: Option<Arc<Vec<Binding>>>,
    immediates: Vec<u32>,
}

#[derive(Debug)]
enum Command {
    Copy { from: Words, to: Words, from_word: usize, to_word: usize, words: usize },
    Dispatch { kernel: Arc<Kernel>, bindings: Arc<Vec<Binding>>, immediates: Vec<u32>, grid: [u32; 3] },
}

impl AdapterInterface for Adapter {
    fn request_device(&self, _desc: &wgpu::DeviceDescriptor<'_>) -> Pin<Box<dyn RequestDeviceFuture>> {
        let errors = Arc::new(Errors::default());
        let device = Device { gpu: self.0.clone(), errors: errors.clone() };
        let queue = Queue { errors, submissions: AtomicU64::new(0) };
        Box::pin(ready(Ok((DispatchDevice::custom(device), DispatchQueue::custom(queue)))))
    }
    fn is_surface_supported(&self, _surface: &DispatchSurface) -> bool {
        false
    }
    fn features(&self) -> wgpu::Features {
        features(&self.0)
    }
    fn limits(&self) -> wgpu::Limits {
        limits(&self.0)
    }
    fn downlevel_capabilities(&self) -> wgpu::DownlevelCapabilities {
        wgpu::DownlevelCapabilities::default()
    }
    fn get_info(&self) -> wgpu::AdapterInfo {
        info(&self.0)
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
        self.0.matrix_sizes.iter().map(of_size).collect()
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
        let shader = ShaderModule::new(&source).map_err(|error| self.errors.report(error)).ok();
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
            (entry.binding, buffer.words.clone(), words)
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
        let shader = desc.module.as_custom::<Shader>().expect("a module of this device").0.clone();
        let kernel = shader.and_then(|shader| {
            let name = desc.entry_point.expect("pipelines name their entry points");
            Kernel::new(shader, name, &self.gpu).map_err(|error| self.errors.report(error)).ok()
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

impl Command {
    fn run(self) -> Result<(), String> {
        match self {
            Self::Copy { from, to, from_word, to_word, words } => {
                let copied = lock(&from)[from_word..][..words].to_vec();
                lock(&to)[to_word..][..words].copy_from_slice(&copied);
                Ok(())
            }
            Self::Dispatch { kernel, bindings, mut immediates, grid } => {
                let mut locked: HashMap<*const Mutex<Vec<u32>>, (MutexGuard<'_, Vec<u32>>, Vec<usize>)> =
                    HashMap::new();
                for (index, (_, words, _)) in bindings.iter().enumerate() {
                    let entry = locked.entry(Arc::as_ptr(words));
                    entry.or_insert_with(|| (lock(words), Vec::new())).1.push(index);
                }
                let mut buffers = Vec::new();
                for (words, indices) in locked.values_mut() {
                    let mut rest: &mut [u32] = words;
                    let mut passed = 0;
                    let mut ranges: Vec<&Binding> = indices.iter().map(|&index| &bindings[index]).collect();
                    ranges.sort_by_key(|(_, _, range)| range.start);
                    for (number, _, range) in ranges {
                        if range.start < passed {
                            return Err(format!("{}: binding {number} overlaps another", kernel.name()));
                        }
                        let (bound, after) = rest.split_at_mut(range.end - passed);
                        let bound = &mut bound[range.start - passed..];
                        (rest, passed) = (after, range.end);
                        let (name, writes) = kernel.binding(*number)?;
                        let shared = if writes { Shared::written(name, bound) } else { Shared::read_only(name, bound) };
                        buffers.push((*number, shared));
                    }
                }
                machine::dispatch(&kernel, Bound { buffers, immediates: &mut immediates }, grid)
            }
        }
    }
}

impl Kernel {
    /// The name of the variable at a binding, and whether the kernel may write it.
    fn binding(&self, number: u32) -> Result<(String, bool), String> {
        let mut variables = self.shader.module.global_variables.iter().map(|(_, variable)| variable);
        let bound = variables.find(|variable| variable.binding.as_ref().is_some_and(|at| at.binding == number));
        let bound = bound.ok_or_else(|| format!("{}: no variable has binding {number}", self.name()))?;
        let AddressSpace::Storage { access } = bound.space else { not_here!() };
        Ok((bound.name.clone().unwrap_or_default(), access.contains(StorageAccess::STORE)))
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
impl CommandBufferInterface for CommandBuffer {}

impl ComputePipelineInterface for Pipeline {
    fn get_bind_group_layout(&self, _index: u32) -> DispatchBindGroupLayout {
        DispatchBindGroupLayout::custom(BindGroupLayout)
    }
}

impl CommandEncoderInterface for Encoder {
    fn copy_buffer_to_buffer(
        &self,
        source: &DispatchBuffer,
        source_offset: wgpu::BufferAddress,
        destination: &DispatchBuffer,
        destination_offset: wgpu::BufferAddress,
        copy_size: Option<wgpu::BufferAddress>,
    ) {
        let words =
            |buffer: &DispatchBuffer| buffer.as_custom::<Buffer>().expect("a buffer of this device").words.clone();
        let (from, to) = (words(source), words(destination));
        let all = lock(&from).len() - source_offset as usize / 4;
        lock(&self.0).push(Command::Copy {
            from,
            to,
            from_word: source_offset as usize / 4,
            to_word: destination_offset as usize / 4,
            words: copy_size.map_or(all, |bytes| bytes as usize / 4),
        });
    }
    fn copy_buffer_to_texture(
        &self,
        _source: wgpu::TexelCopyBufferInfo<'_>,
        _destination: wgpu::TexelCopyTextureInfo<'_>,
        _copy_size: wgpu::Extent3d,
    ) {
        not_here!()
    }
    fn copy_texture_to_buffer(
        &self,
        _source: wgpu::TexelCopyTextureInfo<'_>,
        _destination: wgpu::TexelCopyBufferInfo<'_>,
        _copy_size: wgpu::Extent3d,
    ) {
        not_here!()
    }
    fn copy_texture_to_texture(
        &self,
        _source: wgpu::TexelCopyTextureInfo<'_>,
        _destination: wgpu::TexelCopyTextureInfo<'_>,
        _copy_size: wgpu::Extent3d,
    ) {
        not_here!()
    }
    fn begin_compute_pass(&self, _desc: &wgpu::ComputePassDescriptor<'_>) -> DispatchComputePass {
        DispatchComputePass::custom(Pass {
            commands: self.0.clone(),
            kernel: None,
            bindings: None,
            immediates: vec![0; 32],
        })
    }
    fn begin_render_pass(&self, _desc: &wgpu::RenderPassDescriptor<'_>) -> DispatchRenderPass {
        not_here!()
    }
    fn finish(&mut self) -> DispatchCommandBuffer {
        DispatchCommandBuffer::custom(CommandBuffer(self.0.clone()))
    }
    fn clear_texture(&self, _texture: &DispatchTexture, _subresource_range: &wgpu::ImageSubresourceRange) {
        not_here!()
    }
    fn clear_buffer(&self, _buffer: &DispatchBuffer, _offset: wgpu::BufferAddress, _size: Option<wgpu::BufferAddress>) {
        not_here!()
    }
    fn insert_debug_marker(&self, _label: &str) {}
    fn push_debug_group(&self, _label: &str) {}
    fn pop_debug_group(&self) {}
    fn write_timestamp(&self, _query_set: &DispatchQuerySet, _query_index: u32) {
        not_here!()
    }
    fn resolve_query_set(
        &self,
        _query_set: &DispatchQuerySet,
        _first_query: u32,
        _query_count: u32,
        _destination: &DispatchBuffer,
        _destination_offset: wgpu::BufferAddress,
    ) {
        not_here!()
    }
    fn mark_acceleration_structures_built<'a>(
        &self,
        _blas: &mut dyn Iterator<Item = &'a wgpu::Blas>,
        _tlas: &mut dyn Iterator<Item = &'a wgpu::Tlas>,
    ) {
        not_here!()
    }
    fn build_acceleration_structures<'a>(
        &self,
        _blas: &mut dyn Iterator<Item = &'a wgpu::BlasBuildEntry<'a>>,
        _tlas: &mut dyn Iterator<Item = &'a wgpu::Tlas>,
    ) {
        not_here!()
    }
    fn transition_resources<'a>(
        &mut self,
        _buffer_transitions: &mut dyn Iterator<Item = wgpu::wgt::BufferTransition<&'a DispatchBuffer>>,
        _texture_transitions: &mut dyn Iterator<Item = wgpu::wgt::TextureTransition<&'a DispatchTexture>>,
    ) {
    }
}

impl ComputePassInterface for Pass {
    fn set_pipeline(&mut self, pipeline: &DispatchComputePipeline) {
        self.kernel = pipeline.as_custom::<Pipeline>().expect("a pipeline of this device").0.clone();
    }
    fn set_bind_group(
        &mut self,
        _index: u32,
        bind_group: Option<&DispatchBindGroup>,
        _offsets: &[wgpu::DynamicOffset],
    ) {
        let group = |group: &DispatchBindGroup| group.as_custom::<BindGroup>().expect("of this device").0.clone();
        self.bindings = bind_group.map(group);
    }
    fn set_immediates(&mut self, offset: u32, data: &[u8]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.immediates);
        bytes[offset as usize..][..data.len()].copy_from_slice(data);
    }
    fn insert_debug_marker(&mut self, _label: &str) {}
    fn push_debug_group(&mut self, _group_label: &str) {}
    fn pop_debug_group(&mut self) {}
    fn write_timestamp(&mut self, _query_set: &DispatchQuerySet, _query_index: u32) {
        not_here!()
    }
    fn begin_pipeline_statistics_query(&mut self, _query_set: &DispatchQuerySet, _query_index: u32) {
        not_here!()
    }
    fn end_pipeline_statistics_query(&mut self) {
        not_here!()
    }
    fn dispatch_workgroups(&mut self, x: u32, y: u32, z: u32) {
        let (Some(kernel), Some(bindings)) = (self.kernel.clone(), self.bindings.clone()) else { return };
        let immediates = self.immediates.clone();
        lock(&self.commands).push(Command::Dispatch { kernel, bindings, immediates, grid: [x, y, z] });
    }
    fn dispatch_workgroups_indirect(
        &mut self,
        _indirect_buffer: &DispatchBuffer,
        _indirect_offset: wgpu::BufferAddress,
    ) {
        not_here!()
    }
    fn transition_resources<'a>(
        &mut self,
        _buffer_transitions: &mut dyn Iterator<Item = wgpu::wgt::BufferTransition<&'a DispatchBuffer>>,
        _texture_transitions: &mut dyn Iterator<Item = wgpu::wgt::TextureTransition<&'a DispatchTextureView>>,
    ) {
    }
}

impl Drop for Pass {
    fn drop(&mut self) {}
}
