//! NVRTC, NVIDIA's compiler as a library: the kernels' CUDA C++ into machine code. It needs no GPU.

use super::super::BackendError;
use cudarc::nvrtc::{result, sys};
use std::ffi::{CStr, CString, c_char};

/// What the kernels are compiled with, beside the architecture. No fast math: a kernel says itself where it is enough.
pub(super) const OPTIONS: [&str; 3] = ["--std=c++17", "--device-as-default-execution-space", "--ptxas-options=-v"];

/// A compiled kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code (CUBIN), or PTX ending in a zero where NVRTC is older than the device.
    pub image: Vec<u8>,
    /// The PTX that it was assembled from, ending in a zero.
    pub ptx: Vec<u8>,
    /// What the compiler said: registers, workgroup memory, spills, warnings.
    pub log: String,
}

/// Whether NVRTC is there; every other function here asks this first, as the bindings panic without it.
///
/// # Errors
/// [`BackendError::NoDevice`] with what to install.
pub fn require() -> Result<(), BackendError> {
    // SAFETY: loading NVRTC runs its initialisers only.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(BackendError::NoDevice(
        "NVRTC, CUDA's run-time compiler (libnvrtc.so.13 or .12), was not found; install the CUDA toolkit, or \
         `pip install nvidia-cuda-nvrtc` and name its lib folder in LD_LIBRARY_PATH"
            .to_owned(),
    ))
}

/// Its version, major and minor.
///
/// # Errors
/// [`BackendError::NoDevice`] when it is not there.
pub fn version() -> Result<(i32, i32), BackendError> {
    require()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both point to an integer of ours.
    check("its version", unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result())?;
    Ok((major, minor))
}

/// What `--gpu-architecture` says for a compute capability: the machine's own code where NVRTC knows it, else the newest
/// virtual architecture that NVRTC has and the device takes.
///
/// # Errors
/// As [`version`], or when NVRTC knows only newer devices.
pub fn architecture(compute_capability: u32) -> Result<String, BackendError> {
    require()?;
    let mut count = 0;
    // SAFETY: the pointer is to an integer of ours.
    check("its architectures", unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }.result())?;
    let mut known = vec![0; count as usize];
    // SAFETY: NVRTC writes `count` integers.
    check("its architectures", unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result())?;
    let wanted = compute_capability as i32;
    match known.iter().copied().filter(|&arch| arch <= wanted).max() {
        Some(arch) if arch == wanted => Ok(format!("sm_{arch}")),
        Some(arch) => Ok(format!("compute_{arch}")),
        None => Err(BackendError::Unsupported(format!(
            "this NVRTC compiles for compute capabilities {known:?}, not for the device's {wanted}"
        ))),
    }
}

/// Compiles one kernel's source for an architecture (`sm_90`, `compute_90`).
///
/// # Errors
/// [`BackendError::Device`] with the log where the source is wrong; [`BackendError::NoDevice`] without NVRTC.
pub fn compile(name: &str, source: &str, architecture: &str) -> Result<Compiled, BackendError> {
    require()?;
    let text = |text: &str| CString::new(text).map_err(|_| BackendError::Device(format!("kernel {name}: a zero byte")));
    let (source, file) = (text(source)?, text(&format!("{name}.cu"))?);
    let program = check("a program", result::create_program(&source, Some(&file)))?;
    let compiled = compile_program(program, name, architecture);
    // SAFETY: made above, and not used any more.
    check("a program", unsafe { result::destroy_program(program) })?;
    compiled
}

fn compile_program(program: sys::nvrtcProgram, name: &str, architecture: &str) -> Result<Compiled, BackendError> {
    let mut options: Vec<String> = vec![format!("--gpu-architecture={architecture}")];
    options.extend(OPTIONS.map(str::to_owned));
    // SAFETY: the program is alive until compile() destroys it.
    let outcome = unsafe { result::compile_program(program, &options) };
    // SAFETY: as above; NVRTC ends the log with a zero.
    let log = text_of(&check("a log", unsafe { result::get_program_log(program) })?);
    if outcome.is_err() {
        return Err(BackendError::Kernel { kernel: name.to_owned(), error: format!("for {architecture}:\n{log}") });
    }
    // SAFETY: as above.
    let ptx: Vec<u8> =
        check("PTX", unsafe { result::get_ptx(program) })?.into_iter().map(|c: c_char| c as u8).collect();
    let image = if architecture.starts_with("sm_") {
        let mut bytes = 0;
        // SAFETY: as above; NVRTC writes the size, and then that many bytes.
        unsafe {
            check("machine code", sys::nvrtcGetCUBINSize(program, &mut bytes).result())?;
            let mut image = vec![0u8; bytes];
            check("machine code", sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast::<c_char>()).result())?;
            image
        }
    } else {
        ptx.clone()
    };
    Ok(Compiled { image, ptx, log })
}

fn text_of(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|&c| c as u8).collect();
    let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    text.to_string_lossy().trim().to_owned()
}

fn check<T>(what: &str, result: Result<T, result::NvrtcError>) -> Result<T, BackendError> {
    result.map_err(|error| BackendError::Device(format!("NVRTC, {what}: {error}")))
}
