//! Runs kernels on an adapter.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::{Arc, Mutex};

pub const WORDS: usize = 64;

/// Runs an entry point `main` of 32 invocations in two workgroups over a buffer `data` of 64 numbers, 0 to 63, and a buffer
/// `given` of as many; the numbers afterwards, or the first fault.
pub fn run_on(adapter: &wgpu::Adapter, source: &str) -> Result<Vec<u32>, String> {
    let prelude = "
        @group(0) @binding(0) var<storage, read_write> data: array<u32, 64>;
        @group(0) @binding(1) var<storage, read> given: array<u32>;
    ";
    let source = [source, prelude].concat();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let fault = Arc::new(Mutex::new(None));
    let sink = fault.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        sink.lock().unwrap().get_or_insert(error.to_string());
    }));
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(source.into()) };
    let module = device.create_shader_module(descriptor);
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let buffer = |usage| {
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: 4 * WORDS as u64, usage, mapped_at_creation: false };
        device.create_buffer(&descriptor)
    };
    let all = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let [data, given] = [buffer(all), buffer(all)];
    let back = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let numbers: Vec<u8> = (0..WORDS as u32).flat_map(u32::to_le_bytes).collect();
    queue.write_buffer(&data, 0, &numbers);
    queue.write_buffer(&given, 0, &numbers);
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: data.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: given.as_entire_binding() },
        ],
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bind_group, &[]);
    pass.dispatch_workgroups(2, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&data, 0, &back, 0, 4 * WORDS as u64);
    queue.submit([encoder.finish()]);
    if let Some(fault) = fault.lock().unwrap().take() {
        return Err(fault);
    }
    back.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    let view = back.slice(..).get_mapped_range().unwrap();
    let words = view.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()));
    Ok(words.collect())
}

/// A kernel of this body; `id` counts all invocations, `li` those of a workgroup.
pub fn kernel(declarations: &str, body: &str) -> String {
    format!(
        "{declarations}
        @compute @workgroup_size(32) fn main(
            @builtin(global_invocation_id) ids: vec3<u32>, @builtin(local_invocation_index) li: u32,
            @builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32,
            @builtin(subgroup_id) subgroup: u32,
        ) {{ let id = ids.x; {body} }}"
    )
}
