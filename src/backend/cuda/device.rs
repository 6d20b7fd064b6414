//! The real device: the CUDA driver, one stream, kernels compiled where the cache has none.

use super::super::gpu::side_by_side::side_by_side;
use super::super::{BackendError, DeviceMemory};
use super::cubin_cache::{self, CubinCache};
use super::driver::{DeviceTraits, Driver, GraphId, KernelId, Launch, ReadId, new_kernels};
use super::events::Events;
use super::kernel::Kernel;
use super::landing::Landings;
use super::library::{self, CudaSummary, check};
use super::nvrtc;
use super::staging::Staging;
use cudarc::driver::result::{self, stream::StreamKind};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// An open CUDA device; several backends may share one, and with it the compiled kernels.
pub struct CudaDevice {
    summary: CudaSummary,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    architecture: String,
    compiler: String,
    cache: CubinCache,
    opened: Instant,
    state: Mutex<State>,
}

// SAFETY: context and stream may be used from any thread once the context is current there, which every call sees to, and
// calls that belong together hold the lock on `state`.
unsafe impl Send for CudaDevice {}
// SAFETY: as above.
unsafe impl Sync for CudaDevice {}

struct State {
    kernels: HashMap<String, KernelId>,
    loaded: Vec<Loaded>,
    graphs: Vec<Option<sys::CUgraphExec>>,
    staging: Staging,
    landings: Landings,
}

/// A kernel on the device.
struct Loaded {
    name: &'static str,
    module: sys::CUmodule,
    function: sys::CUfunction,
    threads: u32,
    shared_bytes: u32,
    buffers: usize,
    params_bytes: usize,
}

impl CudaDevice {
    /// Opens the device that `selector` names: its index or a part of its name, as `bindery devices` lists them; the first
    /// without a selector.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] without a driver, such a device, or NVRTC.
    pub fn open(selector: Option<&str>) -> Result<Arc<Self>, BackendError> {
        let summary = library::choose(selector)?;
        let (major, minor) = summary.compute_capability;
        let architecture = nvrtc::architecture(10 * major + minor)?;
        let (nvrtc_major, nvrtc_minor) = nvrtc::version()?;
        let device = check("the device", result::device::get(summary.index as i32))?;
        // SAFETY: the device comes from the driver; its context is released when this is dropped.
        let context = check("its context", unsafe { result::primary_ctx::retain(device) })?;
        // SAFETY: just made.
        check("its context", unsafe { result::ctx::set_current(context) })?;
        let stream = check("a stream", result::stream::create(StreamKind::NonBlocking))?;
        let staging = Staging::new()?;
        Ok(Arc::new(Self {
            device,
            context,
            stream,
            architecture,
            compiler: format!("nvrtc {nvrtc_major}.{nvrtc_minor} {}", nvrtc::OPTIONS.join(" ")),
            cache: CubinCache::of_user(),
            opened: Instant::now(),
            state: Mutex::new(State {
                kernels: HashMap::new(),
                loaded: Vec::new(),
                graphs: Vec::new(),
                staging,
                landings: Landings::default(),
            }),
            summary,
        }))
    }

    /// What the driver says of the device.
    pub fn summary(&self) -> &CudaSummary {
        &self.summary
    }

    /// Makes the context current on this thread and takes the lock.
    fn enter(&self) -> Result<MutexGuard<'_, State>, BackendError> {
        // SAFETY: the context lives as long as `self`.
        check("the context", unsafe { result::ctx::set_current(self.context) })?;
        Ok(self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn wait(&self) -> Result<(), BackendError> {
        // SAFETY: the stream lives as long as `self`.
        check("waiting for the device", unsafe { result::stream::synchronize(self.stream) })
    }

    /// The kernel's machine code, from the cache or the compiler.
    fn image(&self, kernel: &Kernel, source: &str) -> Result<Vec<u8>, BackendError> {
        let key = cubin_cache::key(&self.compiler, &self.architecture, source);
        if let Some(image) = self.cache.get(&key) {
            return Ok(image);
        }
        let image = nvrtc::compile(kernel.name, source, &self.architecture)?.image;
        self.cache.put(&key, &image);
        Ok(image)
    }

    fn load_image(&self, kernel: &Kernel, image: &[u8]) -> Result<Loaded, BackendError> {
        let what = format!("loading kernel {}", kernel.name);
        // SAFETY: the image is what NVRTC made: machine code, or PTX ending in a zero.
        let module = check(&what, unsafe { result::module::load_data(image.as_ptr().cast()) })?;
        let name = CString::new(kernel.name).expect("names of kernels are identifiers");
        // SAFETY: the module was just loaded, and stays so as long as `self`.
        let function = check(&what, unsafe { result::module::get_function(module, name) })?;
        if kernel.shared_bytes > 0 {
            // More than every kernel may have, and of what a multiprocessor shares between it and its cache, all that it can.
            for (attribute, value) in [
                (
                    sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    kernel.shared_bytes as i32,
                ),
                (sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100),
            ] {
                // SAFETY: the function is of the module above.
                check(&what, unsafe { result::function::set_function_attribute(function, attribute, value) })?;
            }
        }
        Ok(Loaded {
            name: kernel.name,
            module,
            function,
            threads: kernel.threads,
            shared_bytes: kernel.shared_bytes,
            buffers: kernel.buffers as usize,
            params_bytes: kernel.params_bytes as usize,
        })
    }

    fn start(&self, state: &State, launch: &Launch<'_>) -> Result<(), BackendError> {
        let kernel = &state.loaded[launch.kernel.0 as usize];
        assert_eq!(launch.buffers.len(), kernel.buffers, "kernel {}: buffers", kernel.name);
        assert_eq!(launch.params.len(), kernel.params_bytes, "kernel {}: bytes of parameters", kernel.name);
        let mut arguments: Vec<*mut c_void> =
            launch.buffers.iter().map(|address| std::ptr::from_ref(address).cast_mut().cast()).collect();
        if !launch.params.is_empty() {
            arguments.push(launch.params.as_ptr().cast_mut().cast());
        }
        let (x, y) = launch.grid;
        // SAFETY: the driver reads as many arguments as the kernel declares, which are those counted above, each of the
        // declared size, and copies them before it returns; the kernels stay within their buffers as long as the step's
        // arrays are consistent, which `StepInput::check` sees to.
        let launched = unsafe {
            result::launch_kernel(
                kernel.function,
                (x, y, 1),
                (kernel.threads, 1, 1),
                kernel.shared_bytes,
                self.stream,
                &mut arguments,
            )
        };
        check(&format!("launching kernel {}", kernel.name), launched)
    }

    fn record(&self, state: &State, launches: &[Launch<'_>]) -> Result<sys::CUgraphExec, BackendError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`, and nobody else uses it while the lock is held.
        check("a capture", unsafe { result::stream::begin_capture(self.stream, mode) })?;
        let recorded = launches.iter().try_for_each(|launch| self.start(state, launch));
        // SAFETY: as above. A capture is ended whatever became of the launches, or the stream would stay unusable.
        let graph = check("a capture", unsafe { result::stream::end_capture(self.stream) });
        recorded?;
        let graph = graph?;
        // SAFETY: the graph was just captured; the executable one keeps what it needs of it.
        unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            check("a graph", result::graph::destroy(graph))?;
            check("a graph", executable)
        }
    }
}

impl Driver for CudaDevice {
    fn description(&self) -> String {
        let CudaSummary { name, driver_version: (major, minor), .. } = &self.summary;
        format!("{name} (CUDA, driver for {major}.{minor}, {}, {})", self.compiler_name(), self.architecture)
    }

    fn memory(&self) -> DeviceMemory {
        let total_bytes = Some(self.summary.memory_bytes);
        DeviceMemory { total_bytes, is_software: false, max_buffer_bytes: self.summary.memory_bytes }
    }

    fn traits(&self) -> DeviceTraits {
        let (major, minor) = self.summary.compute_capability;
        DeviceTraits {
            compute_capability: 10 * major + minor,
            multiprocessors: self.summary.multiprocessors,
            max_shared_bytes: self.summary.max_shared_bytes,
        }
    }

    fn alloc(&self, what: &str, bytes: u64) -> Result<u64, BackendError> {
        let _state = self.enter()?;
        // SAFETY: nobody reads the memory before it is zeroed: both happen in the stream's order.
        unsafe {
            let address = result::malloc_sync(bytes as usize).map_err(|error| match error.0 {
                sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => BackendError::OutOfMemory {
                    what: what.to_owned(),
                    bytes,
                    hint:
                        "use fewer KV blocks (--num-gpu-blocks-override, --gpu-memory-utilization) or a smaller model"
                            .to_owned(),
                },
                _ => BackendError::Device(format!("CUDA, memory for {what}: {}", library::message(error))),
            })?;
            check(what, result::memset_d8_async(address, 0, bytes as usize, self.stream))?;
            Ok(address)
        }
    }

    fn free(&self, address: u64) {
        if let Ok(_state) = self.enter() {
            // SAFETY: `alloc` returned it, and its owner is gone. The driver waits for what still uses it. Nothing is left
            // to do where that fails: then the device is lost.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), BackendError> {
        let mut state = self.enter()?;
        state.staging.upload(self.stream, address, bytes)
    }

    fn read(&self, ranges: &[(u64, u64)]) -> Result<Vec<u8>, BackendError> {
        let mut state = self.enter()?;
        state.staging.read(self.stream, ranges)
    }

    fn begin_read(&self, ranges: &[(u64, u64)]) -> Result<ReadId, BackendError> {
        let mut state = self.enter()?;
        state.landings.begin(self.stream, ranges).map(ReadId)
    }

    fn finish_read(&self, read: ReadId) -> Result<Vec<u8>, BackendError> {
        let mut state = self.enter()?;
        state.landings.finish(read.0)
    }

    fn load(&self, kernels: &[&Kernel]) -> Result<Vec<KernelId>, BackendError> {
        let sources: Vec<String> = kernels.iter().map(|kernel| kernel.source()).collect();
        let state = self.enter()?;
        let new = new_kernels(&sources, kernels, |source| state.kernels.contains_key(source));
        drop(state);
        let images = side_by_side(&new, |&(source, kernel)| self.image(kernel, source));

        let mut state = self.enter()?;
        for ((source, kernel), image) in new.into_iter().zip(images) {
            let loaded = self.load_image(kernel, &image?)?;
            let id = KernelId(state.loaded.len() as u32);
            state.loaded.push(loaded);
            state.kernels.insert(source.to_owned(), id);
        }
        Ok(sources.iter().map(|source| state.kernels[source]).collect())
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        let state = self.enter()?;
        self.start(&state, launch)
    }

    fn launch_timed(&self, launches: &[Launch<'_>]) -> Result<Option<Vec<(u64, u64)>>, BackendError> {
        let state = self.enter()?;
        let mut events = Events::new();
        // Events count from each other only, and in f32: the host's clock says when the first of a step was.
        let began = self.opened.elapsed().as_nanos() as u64;
        events.record(self.stream)?;
        for launch in launches {
            self.start(&state, launch)?;
            events.record(self.stream)?;
        }
        self.wait()?;
        Ok(Some(events.since_first()?.windows(2).map(|pair| (began + pair[0], began + pair[1])).collect()))
    }

    fn capture(&self, launches: &[Launch<'_>]) -> Result<Option<GraphId>, BackendError> {
        let mut state = self.enter()?;
        let graph = self.record(&state, launches)?;
        state.graphs.push(Some(graph));
        Ok(Some(GraphId(state.graphs.len() as u32 - 1)))
    }

    fn replay(&self, graph: GraphId) -> Result<(), BackendError> {
        let state = self.enter()?;
        let graph = state.graphs[graph.0 as usize].expect("a graph that was not forgotten");
        // SAFETY: captured on this stream, and not destroyed yet.
        check("launching a graph", unsafe { result::graph::launch(graph, self.stream) })
    }

    fn forget(&self, graph: GraphId) {
        if let Ok(mut state) = self.enter()
            && let Some(graph) = state.graphs[graph.0 as usize].take()
        {
            // SAFETY: it is not in the list any more. Nothing is left to do where that fails.
            let _ = unsafe { result::graph::exec_destroy(graph) };
        }
    }

    fn synchronize(&self) -> Result<(), BackendError> {
        let _state = self.enter()?;
        self.wait()
    }
}

impl CudaDevice {
    /// Copies within the device's memory.
    pub(super) fn copy(&self, from: u64, to: u64, bytes: u64) -> Result<(), BackendError> {
        let _state = self.enter()?;
        // SAFETY: both ranges are of buffers that the caller holds.
        check("a copy", unsafe { result::memcpy_dtod_async(to, from, bytes as usize, self.stream) })
    }

    /// `nvrtc 13.0`.
    fn compiler_name(&self) -> String {
        self.compiler.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        let Ok(mut state) = self.enter() else { return };
        let _ = self.wait();
        // SAFETY: the last owner is gone, so that nothing of this is used any more. Failures mean that the device is lost.
        unsafe {
            for graph in state.graphs.drain(..).flatten() {
                let _ = result::graph::exec_destroy(graph);
            }
            for kernel in state.loaded.drain(..) {
                let _ = result::module::unload(kernel.module);
            }
            state.staging.free();
            state.landings = Landings::default();
            let _ = result::stream::destroy(self.stream);
        }
        drop(state);
        // SAFETY: retained once, in `open`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
