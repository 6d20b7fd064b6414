//! Reads that the host does not wait for: each has pinned host memory of its own, and an event behind its copies.

use super::super::BackendError;
use super::events::Event;
use super::library::check;
use cudarc::driver::{result, sys};
use std::ffi::c_void;

/// Smallest memory of a read, in bytes; a larger one is the next power of two.
const LEAST_BYTES: usize = 4096;

/// Pinned memory for one read at a time.
struct Landing {
    memory: *mut c_void,
    room_bytes: usize,
    /// Of the read that is under way.
    used_bytes: usize,
    event: Event,
}

impl Landing {
    /// In the context that is current.
    fn new(bytes: usize) -> Result<Self, BackendError> {
        let room_bytes = bytes.next_power_of_two().max(LEAST_BYTES);
        let event = Event::new()?;
        // SAFETY: it is freed by `drop`, and written by the device before it is read.
        let memory = check("pinned host memory", unsafe { result::malloc_host(room_bytes, 0) })?;
        Ok(Self { memory, room_bytes, used_bytes: 0, event })
    }

    fn begin(&mut self, stream: sys::CUstream, ranges: &[(u64, u64)]) -> Result<(), BackendError> {
        self.used_bytes = 0;
        for &(address, bytes) in ranges.iter().filter(|(_, bytes)| *bytes > 0) {
            assert!(self.used_bytes + bytes as usize <= self.room_bytes);
            // SAFETY: within the memory, which nobody reads before `finish`; the caller's range is one of device memory.
            let to = unsafe {
                std::slice::from_raw_parts_mut(self.memory.cast::<u8>().add(self.used_bytes), bytes as usize)
            };
            // SAFETY: as above.
            check("a copy from the device", unsafe { result::memcpy_dtoh_async(to, address, stream) })?;
            self.used_bytes += bytes as usize;
        }
        self.event.record(stream)
    }

    fn finish(&self) -> Result<Vec<u8>, BackendError> {
        self.event.wait()?;
        // SAFETY: the device has written them, and nothing else does before `begin`.
        Ok(unsafe { std::slice::from_raw_parts(self.memory.cast::<u8>(), self.used_bytes) }.to_vec())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // SAFETY: made by `new`; the owner has waited for the stream. Where it fails the device is lost.
        let _ = unsafe { result::free_host(self.memory) };
    }
}

/// All of them; they are used again and again.
#[derive(Default)]
pub(super) struct Landings {
    all: Vec<Landing>,
    idle: Vec<u32>,
}

impl Landings {
    /// Begins a read behind everything in the stream, and returns its number.
    pub(super) fn begin(&mut self, stream: sys::CUstream, ranges: &[(u64, u64)]) -> Result<u32, BackendError> {
        let bytes = ranges.iter().map(|&(_, bytes)| bytes as usize).sum();
        let fits = |&index: &u32| self.all[index as usize].room_bytes >= bytes;
        let index = match self.idle.iter().position(fits) {
            Some(at) => self.idle.swap_remove(at),
            None => {
                self.all.push(Landing::new(bytes)?);
                self.all.len() as u32 - 1
            }
        };
        self.all[index as usize].begin(stream, ranges)?;
        Ok(index)
    }

    /// Waits for a read that was begun and not finished.
    pub(super) fn finish(&mut self, index: u32) -> Result<Vec<u8>, BackendError> {
        let bytes = self.all[index as usize].finish()?;
        self.idle.push(index);
        Ok(bytes)
    }
}
