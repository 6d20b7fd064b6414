//! A device with its queue, its pipelines and the errors it reported.

use super::super::BackendError;
use super::super::gpu::side_by_side::side_by_side;
use super::adapter::{self, AdapterSummary, Variant};
use super::kernel::{Kernel, Matrices};
use super::read_back::ReadBack;
use super::tuning::Tuning;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// Ends the source of every kernel. `wgpu` 30 translates a Vulkan module when it is created, or where it has an override for
/// each pipeline; only then does it heed that loops need no bound (a 64-bit counter in each, which a driver may not see
/// through) and that workgroup memory need not be cleared (which drivers of some AMD GPUs get wrong: `wgpu` issue 4591).
const UNREAD_OVERRIDE: &str = "override UNREAD: bool = true;\n";

/// A compute pipeline and the bind group layout that its bind groups need.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// An open device; several backends may share one, and with it the compiled pipelines.
#[derive(Clone)]
pub struct GpuDevice {
    /// The adapter, if the program gave it.
    given: Option<wgpu::Adapter>,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) variant: Variant,
    pub(super) tuning: Tuning,
    summary: AdapterSummary,
    /// By their source; shared by all copies of the device.
    pipelines: Arc<Mutex<HashMap<String, Arc<Pipeline>>>>,
    first_error: Arc<Mutex<Option<String>>>,
}

impl GpuDevice {
    /// Opens the adapter that `selector` names (index, part of its name, or `None` for the best), with the kernel variant
    /// that suits it best or the one asked for.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] when there is no such adapter, or it lacks what the kernels need.
    pub fn open(selector: Option<&str>, variant: Option<Variant>) -> Result<Arc<Self>, BackendError> {
        let (adapter, summary) = adapter::choose(selector)?;
        Self::open_chosen(&adapter, summary, variant, None)
    }

    /// Opens an adapter that the program has already, of the [`wgpu`](super::wgpu) that this crate is built with; otherwise as
    /// [`GpuDevice::open`]. Its index in [`AdapterSummary`] is 0.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] when it lacks what the kernels need, does not run the variant, or does not open.
    pub fn open_adapter(adapter: wgpu::Adapter, variant: Option<Variant>) -> Result<Arc<Self>, BackendError> {
        let summary = adapter::summarize(0, &adapter);
        Self::open_chosen(&adapter, summary, variant, Some(adapter.clone()))
    }

    fn open_chosen(
        adapter: &wgpu::Adapter,
        summary: AdapterSummary,
        variant: Option<Variant>,
        given: Option<wgpu::Adapter>,
    ) -> Result<Arc<Self>, BackendError> {
        if let Some(why) = &summary.unusable {
            return Err(BackendError::NoDevice(format!("device {:?} cannot be used: {why}", summary.name)));
        }
        let chosen = variant.unwrap_or(summary.variants[0]);
        if !summary.variants.contains(&chosen) {
            let names: Vec<String> = summary.variants.iter().map(ToString::to_string).collect();
            return Err(BackendError::NoDevice(format!(
                "device {:?} does not run the {chosen} kernels; it runs: {}",
                summary.name,
                names.join(", ")
            )));
        }
        let mut wanted = wgpu::Features::IMMEDIATES
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER
            | super::profile::IN_PASS;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if summary.matrix_size.is_some() {
            wanted |= adapter::MATRIX_FEATURES;
            // SAFETY: wgpu asks that what is experimental be used as its documentation says, and may still be wrong; the
            // kernels use matrices of a kind that the adapter lists, in control flow that is uniform by subgroup (tested).
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("bindery"),
            required_features: adapter.features() & wanted,
            required_limits: adapter.limits(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }))
        .map_err(|error| BackendError::NoDevice(format!("device {:?} did not open: {error}", summary.name)))?;
        let first_error = Arc::new(Mutex::new(None));
        let sink = first_error.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let mut first = sink.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            first.get_or_insert_with(|| error.to_string());
        }));
        let sink = first_error.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                let mut first = sink.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                first.get_or_insert_with(|| format!("the device is lost: {message}"));
            }
        });
        Ok(Arc::new(Self {
            given,
            device,
            queue,
            variant: chosen,
            tuning: Tuning::by_rule(chosen),
            summary,
            pipelines: Arc::default(),
            first_error,
        }))
    }

    /// The same adapter's kernels of another variant, on a device of their own: what a driver's compiler cannot do may cost the
    /// device.
    ///
    /// # Errors
    /// As [`GpuDevice::open`].
    pub(super) fn reopen(&self, variant: Variant) -> Result<Arc<Self>, BackendError> {
        match &self.given {
            Some(adapter) => Self::open_adapter(adapter.clone(), Some(variant)),
            None => Self::open(Some(&self.summary.index.to_string()), Some(variant)),
        }
    }

    /// The same device with other kernels: a variant, one of [`AdapterSummary::variants`], and its numbers.
    pub fn with_kernels(&self, variant: Variant, tuning: Tuning) -> Arc<Self> {
        Arc::new(Self { variant, tuning, ..self.clone() })
    }

    /// The same device with cooperative matrices of another size than the largest that its adapter lists: 8 or 16. What it
    /// does not list it may still multiply: for tests.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] when the device does not run [`Variant::Matrix`], or no device has such matrices.
    pub fn with_matrix_size(&self, size: u32) -> Result<Arc<Self>, BackendError> {
        if !self.summary.variants.contains(&Variant::Matrix) || !matches!(size, 8 | 16) {
            let name = &self.summary.name;
            return Err(BackendError::Unsupported(format!("cooperative matrices of {size} x {size} on {name:?}")));
        }
        let summary = AdapterSummary { matrix_size: Some(size), ..self.summary.clone() };
        Ok(Arc::new(Self { summary, ..self.clone() }))
    }

    /// What the adapter is and can do.
    pub fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    /// The kernel variant in use.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Invocations of a subgroup, where that is one number; 1 without subgroups.
    pub(super) fn subgroup_size(&self) -> u32 {
        self.summary.subgroup_sizes.map_or(1, |(min, _)| min)
    }

    /// The cooperative matrices that products of many rows and prefills use, if they do.
    pub(super) fn matrices(&self) -> Option<Matrices> {
        let (_, max_subgroup_size) = self.summary.subgroup_sizes?;
        let size = self.summary.matrix_size.filter(|_| self.variant == Variant::Matrix)?;
        Some(Matrices { size, max_subgroup_size })
    }

    /// The first error that the device reported on its own, if any.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        let first = self.first_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*first {
            None => Ok(()),
            Some(error) => Err(BackendError::Device(error.clone())),
        }
    }

    /// A storage buffer of zeros.
    pub(super) fn buffer(&self, what: &str, bytes: u64) -> Result<wgpu::Buffer, BackendError> {
        let too_large = |hint: &str| BackendError::OutOfMemory { what: what.into(), bytes, hint: hint.into() };
        if bytes > self.summary.max_binding_bytes.min(self.summary.max_buffer_bytes) {
            return Err(too_large(&format!(
                "this device binds at most {} bytes at once",
                self.summary.max_binding_bytes.min(self.summary.max_buffer_bytes)
            )));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes.max(16).next_multiple_of(16),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        match pollster::block_on(scope.pop()) {
            None => Ok(buffer),
            Some(_) => Err(too_large("use fewer KV blocks (--num-gpu-blocks-override) or a smaller model")),
        }
    }

    /// The pipelines of kernels; those that are new to the device are compiled, side by side.
    ///
    /// # Errors
    /// [`BackendError::Kernel`] for the first that does not compile.
    pub(super) fn pipelines(&self, kernels: &[&Kernel]) -> Result<Vec<Arc<Pipeline>>, BackendError> {
        let sources: Vec<String> = kernels.iter().map(|kernel| kernel.source()).collect();
        let known = || self.pipelines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let new: Vec<(&String, &Kernel)> = {
            let known = known();
            let mut seen = HashSet::new();
            let all = sources.iter().zip(kernels.iter().copied());
            all.filter(|&(source, _)| !known.contains_key(source) && seen.insert(source)).collect()
        };
        let compiled = side_by_side(&new, |&(source, kernel)| self.compile(kernel, source));
        let mut known = known();
        for ((source, _), pipeline) in new.into_iter().zip(compiled) {
            known.insert(source.clone(), Arc::new(pipeline?));
        }
        Ok(sources.iter().map(|source| known[source].clone()).collect())
    }

    /// What naga refuses is an error of validation, what the driver's compiler refuses an internal one, or `wgpu` takes the
    /// device for lost; scopes of errors are the thread's own.
    fn compile(&self, kernel: &Kernel, source: &str) -> Result<Pipeline, BackendError> {
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let pipeline = self.compile_in_scope(kernel, source);
        let scopes = [memory, internal, validation].map(|scope| pollster::block_on(scope.pop()));
        let error = scopes.into_iter().flatten().map(|error| error.to_string()).next();
        if let Some(error) = error.or_else(|| self.check().err().map(|error| error.to_string())) {
            let advice = match self.variant {
                Variant::Matrix => "; --variant subgroup may do",
                Variant::Cpu | Variant::Subgroup => "; --variant plain may do",
                Variant::Plain => "",
            };
            return Err(BackendError::Kernel { kernel: kernel.name.to_owned(), error: format!("{error}{advice}") });
        }
        Ok(pipeline)
    }

    fn compile_in_scope(&self, kernel: &Kernel, source: &str) -> Pipeline {
        let source = [source, UNREAD_OVERRIDE].concat();
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let module = if cfg!(feature = "checked-shaders") {
            self.device.create_shader_module(descriptor)
        } else {
            // SAFETY: no kernel indexes out of bounds as long as the step's arrays are consistent, and `StepInput::check`
            // holds them against each other and against the pool before every submit; every loop is bounded.
            unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let entries: Vec<wgpu::BindGroupLayoutEntry> = kernel
            .bindings
            .iter()
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding: binding.number,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: !binding.written },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = self
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: kernel.params_bytes,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.name),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    }

    /// Waits until a submission, and all before it, are done.
    pub(super) fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        self.device
            .poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })
            .map_err(|error| BackendError::Device(format!("waiting for the device: {error}")))?;
        self.check()
    }

    /// Copies ranges of device buffers to the host: `(buffer, first byte, bytes)`, one after the other.
    pub(super) fn read(&self, ranges: &[(&wgpu::Buffer, u64, u64)]) -> Result<Vec<u8>, BackendError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read") });
        let mut read_back = ReadBack::default();
        read_back.begin(self, ranges.iter().map(|&(_, _, bytes)| bytes).sum());
        ranges.iter().for_each(|&(buffer, at, bytes)| read_back.copy(&mut encoder, buffer, at, bytes));
        let submission = self.queue.submit([encoder.finish()]);
        let mut read = Vec::new();
        read_back.finish(self, submission, |bytes| read.extend_from_slice(bytes))?;
        Ok(read)
    }
}
