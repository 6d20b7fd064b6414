//! Records commands.

use super::commands::{Binding, Command, lock};
use super::device::{BindGroup, Buffer, Pipeline, not_here};
use super::kernel::Kernel;
use std::sync::{Arc, Mutex};
use wgpu::custom::*;

/// In the order in which they were recorded.
type Commands = Arc<Mutex<Vec<Command>>>;

#[derive(Debug)]
pub(crate) struct Encoder(pub(crate) Commands);

#[derive(Debug)]
pub(crate) struct CommandBuffer(pub(crate) Commands);

#[derive(Debug)]
struct Pass {
    commands: Commands,
    kernel: Option<Arc<Kernel>>,
    bindings: Option<Arc<Vec<Binding>>>,
    immediates: Vec<u32>,
}

impl CommandBufferInterface for CommandBuffer {}

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
    fn set_bind_group(&mut self, index: u32, bind_group: Option<&DispatchBindGroup>, _offsets: &[wgpu::DynamicOffset]) {
        assert_eq!(index, 0, "one bind group is known here");
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
