//! Pinned host memory, through which everything goes to the device and comes from it: the device copies from and to it by
//! itself, at the full rate of its bus.

use super::super::BackendError;
use super::library::check;
use cudarc::driver::{result, sys};
use std::ffi::c_void;

const BYTES: usize = 32 << 20;
/// Most bytes of one copy to the device, so that filling one part overlaps with copying another.
const UPLOAD_BYTES: usize = 4 << 20;

/// The memory, and how much of it copies to the device may still be reading.
pub(super) struct Staging {
    memory: *mut c_void,
    used: usize,
}

impl Staging {
    /// In the context that is current.
    pub(super) fn new() -> Result<Self, BackendError> {
        // SAFETY: it is freed by `free`, and written before it is read.
        let memory = check("pinned host memory", unsafe { result::malloc_host(BYTES, 0) })?;
        Ok(Self { memory, used: 0 })
    }

    fn at(&mut self, at: usize, bytes: usize) -> &mut [u8] {
        assert!(at + bytes <= BYTES);
        // SAFETY: within the memory, which lives until `free`, and `self` is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.memory.cast::<u8>().add(at), bytes) }
    }

    fn wait(&mut self, stream: sys::CUstream) -> Result<(), BackendError> {
        // SAFETY: the caller's stream is alive.
        check("waiting for the device", unsafe { result::stream::synchronize(stream) })?;
        self.used = 0;
        Ok(())
    }

    /// Copies `bytes` to the device, in the stream's order.
    pub(super) fn upload(&mut self, stream: sys::CUstream, to: u64, bytes: &[u8]) -> Result<(), BackendError> {
        for (index, part) in bytes.chunks(UPLOAD_BYTES).enumerate() {
            if self.used + part.len() > BYTES {
                self.wait(stream)?;
            }
            let at = self.used;
            let staged = self.at(at, part.len());
            staged.copy_from_slice(part);
            let to = to + (index * UPLOAD_BYTES) as u64;
            // SAFETY: nobody writes to the staged bytes before `wait` has seen the copy done; the caller's range is one of
            // device memory.
            check("a copy to the device", unsafe { result::memcpy_htod_async(to, staged, stream) })?;
            self.used = (at + part.len()).next_multiple_of(256);
        }
        Ok(())
    }

    /// Copies `ranges` of device memory to the host, once everything before in the stream is done.
    pub(super) fn read(&mut self, stream: sys::CUstream, ranges: &[(u64, u64)]) -> Result<Vec<u8>, BackendError> {
        let mut all = Vec::with_capacity(ranges.iter().map(|&(_, bytes)| bytes as usize).sum());
        // What copies to the device still read must not be overwritten.
        let mut begin = self.used;
        let mut end = begin;
        for &(address, bytes) in ranges {
            let mut done = 0;
            while done < bytes {
                if end >= BYTES {
                    self.wait(stream)?;
                    all.extend_from_slice(self.at(begin, end - begin));
                    (begin, end) = (0, 0);
                }
                let part = (bytes - done).min((BYTES - end) as u64) as usize;
                let staged = self.at(end, part);
                // SAFETY: the staged bytes are read after `wait` only; the caller's range is one of device memory.
                check("a copy from the device", unsafe { result::memcpy_dtoh_async(staged, address + done, stream) })?;
                done += part as u64;
                end += part;
            }
        }
        self.wait(stream)?;
        all.extend_from_slice(self.at(begin, end - begin));
        Ok(all)
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// Nothing may be using it, and nothing of `self` may be used afterwards.
    pub(super) unsafe fn free(&mut self) {
        // SAFETY: by this function's contract. Where it fails the device is lost, and the memory with it.
        let _ = unsafe { result::free_host(self.memory) };
    }
}
