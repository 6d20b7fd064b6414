//! What the backend asks of a device: memory, kernels, launches, and graphs of launches.
//!
//! The real one is [`CudaDevice`](super::CudaDevice); [`EmulatedDevice`](super::EmulatedDevice) runs the same kernels on the
//! processor, so that all that the host does is tested without a GPU.

use super::super::{BackendError, DeviceMemory};
use super::kernel::Kernel;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A kernel that a driver has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelId(pub u32);

/// Launches that a driver has captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphId(pub u32);

/// A read that a driver has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadId(pub u32);

/// What decides between variants of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceTraits {
    /// Compute capability, ten times the major number plus the minor one: 90 is an H100's.
    pub compute_capability: u32,
    /// Multiprocessors: how many workgroups run side by side, at least.
    pub multiprocessors: u32,
    /// Most workgroup memory that a kernel may ask for, in bytes.
    pub max_shared_bytes: u32,
}

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch<'a> {
    /// Which.
    pub kernel: KernelId,
    /// Workgroups in x and y; none of them 0.
    pub grid: (u32, u32),
    /// Device addresses of its buffers, in the order of its arguments: the step's metadata first.
    pub buffers: &'a [u64],
    /// Its last argument, a struct by value; empty for a kernel without one.
    pub params: Cow<'a, [u8]>,
}

/// A device. Everything it is told to do happens in that order.
pub trait Driver: Send + Sync {
    /// One line that names device and driver.
    fn description(&self) -> String;

    /// Its memory.
    fn memory(&self) -> DeviceMemory;

    /// What decides between variants of kernels.
    fn traits(&self) -> DeviceTraits;

    /// Device memory, zeroed, aligned to 256 bytes at least. `what` is for messages.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`]
    fn alloc(&self, what: &str, bytes: u64) -> Result<u64, BackendError>;

    /// Gives memory back that [`alloc`](Self::alloc) returned.
    fn free(&self, address: u64);

    /// Copies to the device. `bytes` may be dropped as soon as this returns.
    ///
    /// # Errors
    /// [`BackendError::Device`]
    fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), BackendError>;

    /// Copies ranges of device memory to the host, `(address, bytes)`, one after the other, once all that was asked before
    /// is done.
    ///
    /// # Errors
    /// [`BackendError::Device`], also for what went wrong in a launch before.
    fn read(&self, ranges: &[(u64, u64)]) -> Result<Vec<u8>, BackendError>;

    /// The same without waiting: what is asked afterwards changes nothing of what is read.
    ///
    /// # Errors
    /// [`BackendError::Device`]
    fn begin_read(&self, ranges: &[(u64, u64)]) -> Result<ReadId, BackendError>;

    /// Waits for a read, once; what was asked after it may go on.
    ///
    /// # Errors
    /// [`BackendError::Device`], also for what went wrong in a launch before.
    fn finish_read(&self, read: ReadId) -> Result<Vec<u8>, BackendError>;

    /// Compiles kernels, side by side; the same text gives the same id.
    ///
    /// # Errors
    /// [`BackendError::Device`] with the compiler's log.
    fn load(&self, kernels: &[&Kernel]) -> Result<Vec<KernelId>, BackendError>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// [`BackendError::Device`]
    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError>;

    /// Runs launches, and tells when each began and ended: nanoseconds since an arbitrary moment that is always the same.
    /// `None` where the device does not tell.
    ///
    /// # Errors
    /// [`BackendError::Device`]
    fn launch_timed(&self, launches: &[Launch<'_>]) -> Result<Option<Vec<(u64, u64)>>, BackendError> {
        launches.iter().try_for_each(|launch| self.launch(launch))?;
        Ok(None)
    }

    /// Captures launches, to be repeated in one call by [`replay`](Self::replay); none of them runs yet. Each kernel must
    /// have been launched before. `None` where the driver does not capture.
    ///
    /// # Errors
    /// [`BackendError::Device`]
    fn capture(&self, launches: &[Launch<'_>]) -> Result<Option<GraphId>, BackendError>;

    /// Runs captured launches.
    ///
    /// # Errors
    /// [`BackendError::Device`]
    fn replay(&self, graph: GraphId) -> Result<(), BackendError>;

    /// Forgets captured launches.
    fn forget(&self, graph: GraphId);

    /// Waits until all that was asked is done.
    ///
    /// # Errors
    /// [`BackendError::Device`], also for what went wrong in a launch before.
    fn synchronize(&self) -> Result<(), BackendError>;
}

/// Those kernels whose text is not known yet, each once, with their text.
pub(super) fn new_kernels<'a>(
    sources: &'a [String],
    kernels: &[&'a Kernel],
    is_known: impl Fn(&str) -> bool,
) -> Vec<(&'a str, &'a Kernel)> {
    let by_source: BTreeMap<&str, &Kernel> = sources.iter().map(String::as_str).zip(kernels.iter().copied()).collect();
    by_source.into_iter().filter(|(source, _)| !is_known(source)).collect()
}

/// Device memory that goes back when it is dropped.
pub(super) struct Buffer {
    driver: Arc<dyn Driver>,
    address: u64,
    bytes: u64,
}

impl Buffer {
    /// `bytes` bytes of zeros, and at least 16.
    pub(super) fn new(driver: &Arc<dyn Driver>, what: &str, bytes: u64) -> Result<Self, BackendError> {
        let bytes = bytes.max(16).next_multiple_of(16);
        Ok(Self { driver: driver.clone(), address: driver.alloc(what, bytes)?, bytes })
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Bytes from `at` on, as [`Driver::read`] takes them.
    ///
    /// # Panics
    /// If they end beyond the buffer.
    pub(super) fn range(&self, at: u64, bytes: u64) -> (u64, u64) {
        assert!(at + bytes <= self.bytes, "{bytes} bytes at {at} of a buffer of {}", self.bytes);
        (self.address + at, bytes)
    }

    /// Writes `data` from byte `at` on.
    pub(super) fn write(&self, at: u64, data: &[u8]) -> Result<(), BackendError> {
        let (address, _) = self.range(at, data.len() as u64);
        self.driver.upload(address, data)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.driver.free(self.address);
    }
}
