//! A device that is the processor: the kernels' own text, compiled as C++ on a header that stands for what CUDA adds
//! (`shaders/cuda/emulation/device.h`), each workgroup's invocations run in lock-step. It is for tests: slow, and exact.

use super::super::gpu::side_by_side::side_by_side;
use super::super::{BackendError, DeviceMemory};
use super::driver::{DeviceTraits, Driver, GraphId, KernelId, Launch, ReadId, new_kernels};
use super::kernel::Kernel;
use libloading::Library;
use sha2::{Digest, Sha256};
use std::alloc::Layout;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What stands for `include/device.cuh`.
const DEVICE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/cuda/emulation/device.h"));

/// Fortified `longjmp` refuses to leave a stack for another.
const OPTIONS: [&str; 6] = ["-std=c++17", "-O2", "-shared", "-fPIC", "-w", "-U_FORTIFY_SOURCE"];

/// As many as make kernels both for wide weights and for narrow ones of small models.
const MULTIPROCESSORS: u32 = 8;

/// Bytes around each buffer that no kernel may write to; as floats and halves they are NaN.
const GUARD_BYTES: usize = 256;
const GUARD: u8 = 0xff;

/// `launch` of the header: workgroups of so many invocations in a grid of so many, and pointers to the arguments. 0 where a
/// workgroup never comes to its end.
type LaunchFn = unsafe extern "C" fn(u32, u32, u32, *const *const c_void) -> i32;

/// A compiled kernel. Its state lies in static variables, so that it runs one launch at a time in the whole process.
type Compiled = Arc<Mutex<Library>>;

/// The processor as a CUDA device; needs a C++ compiler (`c++`, or what `CXX` names).
pub struct EmulatedDevice {
    compiler: String,
    compiler_version: String,
    folder: PathBuf,
    compute_capability: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Layouts by the address of the first byte after the guard, with the bytes asked for.
    allocations: BTreeMap<u64, (Layout, usize)>,
    ids: HashMap<String, KernelId>,
    kernels: Vec<Arc<Loaded>>,
    graphs: Vec<Vec<OwnedLaunch>>,
    /// What was read and not asked for yet.
    reads: HashMap<u32, Vec<u8>>,
    num_reads: u32,
}

struct Loaded {
    kernel: Kernel,
    library: Compiled,
}

struct OwnedLaunch {
    kernel: KernelId,
    grid: (u32, u32),
    buffers: Vec<u64>,
    params: Vec<u8>,
}

impl EmulatedDevice {
    /// A device that keeps compiled kernels in `folder`, and says that it has tensor cores.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] without a C++ compiler.
    pub fn open(folder: &Path) -> Result<Arc<Self>, BackendError> {
        Self::open_as(folder, 80)
    }

    /// The same with this compute capability, times ten.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as(folder: &Path, compute_capability: u32) -> Result<Arc<Self>, BackendError> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let compiler_version = match Command::new(&compiler).arg("--version").output() {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            _ => {
                return Err(BackendError::NoDevice(format!(
                    "emulating CUDA needs a C++ compiler, and {compiler:?} does not run: install g++ or set CXX"
                )));
            }
        };
        let failed = |error| BackendError::NoDevice(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.to_owned();
        Ok(Arc::new(Self { compiler, compiler_version, folder, compute_capability, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel as a library: from the folder, else compiled into it.
    fn library(&self, kernel: &Kernel, source: &str) -> Result<Compiled, BackendError> {
        static LOADED: OnceLock<Mutex<HashMap<PathBuf, Compiled>>> = OnceLock::new();
        let path = self.folder.join(format!("{}.so", self.key(source)));
        let loaded = LOADED.get_or_init(Mutex::default);
        let known = || loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = known().get(&path) {
            return Ok(library.clone());
        }
        if !path.is_file() {
            self.compile(kernel, source, &path)?;
        }
        // SAFETY: it was compiled from a kernel's text, and has no initialisers of its own.
        let library = unsafe { Library::new(&path) }
            .map_err(|error| BackendError::Device(format!("kernel {}: {error}", kernel.name)))?;
        Ok(known().entry(path).or_insert_with(|| Arc::new(Mutex::new(library))).clone())
    }

    fn key(&self, source: &str) -> String {
        let parts = [&self.compiler_version, &OPTIONS.join(" "), source];
        let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0]));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn compile(&self, kernel: &Kernel, source: &str, path: &Path) -> Result<(), BackendError> {
        let failed = |what: &dyn std::fmt::Display| BackendError::Device(format!("kernel {}: {what}", kernel.name));
        // Other threads and processes may be at the same: the library gets its name when it is whole.
        let unique = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let (text, partial) = (path.with_extension(format!("{unique}.cpp")), path.with_extension(unique));
        std::fs::write(&text, source).map_err(|error| failed(&error))?;
        let output = Command::new(&self.compiler).args(OPTIONS).arg("-o").arg(&partial).arg(&text).output();
        let output = output.map_err(|error| failed(&error))?;
        let _ = std::fs::remove_file(&text);
        if !output.status.success() {
            return Err(failed(&format!("does not compile:\n{}", String::from_utf8_lossy(&output.stderr))));
        }
        std::fs::rename(&partial, path).map_err(|error| failed(&error))
    }

    fn run(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        let loaded = self.state().kernels[launch.kernel.0 as usize].clone();
        let kernel = &loaded.kernel;
        assert_eq!(launch.buffers.len(), kernel.buffers as usize, "kernel {}: buffers", kernel.name);
        assert_eq!(launch.params.len(), kernel.params_bytes as usize, "kernel {}: parameters", kernel.name);
        let mut params = vec![0_u32; launch.params.len() / 4];
        bytemuck::cast_slice_mut(&mut params).copy_from_slice(&launch.params);
        let mut arguments: Vec<*const c_void> =
            launch.buffers.iter().map(|address| std::ptr::from_ref(address).cast()).collect();
        arguments.push(params.as_ptr().cast());
        let library = loaded.library.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the library exports it with this type.
        let function = unsafe { library.get::<LaunchFn>(b"launch\0") };
        let function = function.map_err(|error| BackendError::Device(format!("kernel {}: {error}", kernel.name)))?;
        let (width, height) = launch.grid;
        // SAFETY: the arguments are as many and as large as the kernel declares, and the buffers are alive; whether the
        // kernel stays within them is what the tests are about, and the guards show.
        if unsafe { function(kernel.threads, width, height, arguments.as_ptr()) } == 0 {
            return Err(BackendError::Device(format!(
                "kernel {}: invocations wait for ever at a barrier or shuffle that others do not come to",
                kernel.name
            )));
        }
        drop(library);
        match launch.buffers.iter().position(|&address| !self.is_guarded(address)) {
            Some(index) => Err(BackendError::Device(format!("kernel {} wrote beyond buffer {index}", kernel.name))),
            None => Ok(()),
        }
    }

    /// Whether the guards around a buffer are whole.
    fn is_guarded(&self, address: u64) -> bool {
        let state = self.state();
        let Some(&(layout, _)) = state.allocations.get(&address) else { return false };
        let after = layout.size() - 2 * GUARD_BYTES;
        [0, GUARD_BYTES + after].into_iter().all(|at| {
            // SAFETY: both guards lie in the allocation.
            let guard = unsafe { bytes_at(address - GUARD_BYTES as u64 + at as u64, GUARD_BYTES) };
            guard.iter().all(|&byte| byte == GUARD)
        })
    }

    /// # Panics
    /// If the range is not within one allocation.
    fn check_range(&self, address: u64, bytes: usize) {
        let state = self.state();
        let (start, (_, size)) = state.allocations.range(..=address).next_back().expect("an address of this device");
        assert!(address + bytes as u64 <= start + *size as u64, "{bytes} bytes beyond a buffer's end");
    }
}

/// # Safety
/// The bytes must be of one live allocation that nothing writes to meanwhile.
unsafe fn bytes_at<'a>(address: u64, bytes: usize) -> &'a [u8] {
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }
}

impl Driver for EmulatedDevice {
    fn description(&self) -> String {
        let version = self.compiler_version.lines().next().unwrap_or_default();
        format!("CUDA emulated on the processor ({version})")
    }

    fn memory(&self) -> DeviceMemory {
        DeviceMemory { total_bytes: None, is_software: true, max_buffer_bytes: 1 << 40 }
    }

    fn traits(&self) -> DeviceTraits {
        let compute_capability = self.compute_capability;
        DeviceTraits { compute_capability, multiprocessors: MULTIPROCESSORS, max_shared_bytes: 96 << 10 }
    }

    fn alloc(&self, what: &str, bytes: u64) -> Result<u64, BackendError> {
        let size = (bytes as usize).next_multiple_of(16);
        let layout = Layout::from_size_align(size + 2 * GUARD_BYTES, 256).expect("sizes are those of buffers");
        // SAFETY: the size is not 0.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        if base.is_null() {
            let hint = "the emulated device has the machine's memory".to_owned();
            return Err(BackendError::OutOfMemory { what: what.to_owned(), bytes, hint });
        }
        for at in [0, GUARD_BYTES + size] {
            // SAFETY: both guards lie in the allocation.
            unsafe { base.add(at).write_bytes(GUARD, GUARD_BYTES) };
        }
        let address = base as u64 + GUARD_BYTES as u64;
        self.state().allocations.insert(address, (layout, bytes as usize));
        Ok(address)
    }

    fn free(&self, address: u64) {
        let (layout, _) = self.state().allocations.remove(&address).expect("alloc() returned the address");
        // SAFETY: allocated with this layout, and not freed before.
        unsafe { std::alloc::dealloc((address - GUARD_BYTES as u64) as *mut u8, layout) };
    }

    fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.check_range(address, bytes.len());
        // SAFETY: just checked; launches end before they return, so that nothing else uses the memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&self, ranges: &[(u64, u64)]) -> Result<Vec<u8>, BackendError> {
        let mut out = Vec::new();
        for &(address, bytes) in ranges {
            self.check_range(address, bytes as usize);
            // SAFETY: just checked, as in `upload`.
            out.extend_from_slice(unsafe { bytes_at(address, bytes as usize) });
        }
        Ok(out)
    }

    fn begin_read(&self, ranges: &[(u64, u64)]) -> Result<ReadId, BackendError> {
        let bytes = self.read(ranges)?;
        let mut state = self.state();
        state.num_reads += 1;
        let id = state.num_reads;
        state.reads.insert(id, bytes);
        Ok(ReadId(id))
    }

    fn finish_read(&self, read: ReadId) -> Result<Vec<u8>, BackendError> {
        Ok(self.state().reads.remove(&read.0).expect("begin_read() returned it, and nobody has finished it"))
    }

    fn load(&self, kernels: &[&Kernel]) -> Result<Vec<KernelId>, BackendError> {
        let source = |kernel: &Kernel| format!("{}EXPORT_KERNEL({})\n", kernel.source_on(DEVICE), kernel.name);
        let sources: Vec<String> = kernels.iter().map(|kernel| source(kernel)).collect();
        let new = new_kernels(&sources, kernels, |source| self.state().ids.contains_key(source));
        let libraries = side_by_side(&new, |&(source, kernel)| self.library(kernel, source));

        let mut state = self.state();
        for ((source, kernel), library) in new.into_iter().zip(libraries) {
            state.kernels.push(Arc::new(Loaded { kernel: kernel.clone(), library: library? }));
            let id = KernelId(state.kernels.len() as u32 - 1);
            state.ids.insert(source.to_owned(), id);
        }
        Ok(sources.iter().map(|source| state.ids[source]).collect())
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        self.run(launch)
    }

    fn capture(&self, launches: &[Launch<'_>]) -> Result<Option<GraphId>, BackendError> {
        let owned = |launch: &Launch<'_>| OwnedLaunch {
            kernel: launch.kernel,
            grid: launch.grid,
            buffers: launch.buffers.to_vec(),
            params: launch.params.to_vec(),
        };
        let mut state = self.state();
        state.graphs.push(launches.iter().map(owned).collect());
        Ok(Some(GraphId(state.graphs.len() as u32 - 1)))
    }

    fn replay(&self, graph: GraphId) -> Result<(), BackendError> {
        let launches = std::mem::take(&mut self.state().graphs[graph.0 as usize]);
        let done = launches.iter().try_for_each(|launch| {
            let OwnedLaunch { kernel, grid, buffers, params } = launch;
            self.run(&Launch { kernel: *kernel, grid: *grid, buffers, params: params.into() })
        });
        self.state().graphs[graph.0 as usize] = launches;
        done
    }

    fn forget(&self, graph: GraphId) {
        self.state().graphs[graph.0 as usize].clear();
    }

    fn synchronize(&self) -> Result<(), BackendError> {
        Ok(())
    }
}
