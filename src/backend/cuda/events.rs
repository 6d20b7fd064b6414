//! Marks in a stream: when the device has come so far, and what passed from one to the next by its clock.

use super::super::BackendError;
use super::library::check;
use cudarc::driver::{result, sys};

/// A mark.
pub(super) struct Event(sys::CUevent);

impl Event {
    /// In no stream yet.
    pub(super) fn new() -> Result<Self, BackendError> {
        check("an event", result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)).map(Self)
    }

    /// Puts it behind everything in the stream so far.
    pub(super) fn record(&self, stream: sys::CUstream) -> Result<(), BackendError> {
        // SAFETY: the event lives as long as `self`, and the caller's stream is alive.
        check("an event", unsafe { result::event::record(self.0, stream) })
    }

    /// Waits until the stream has passed it.
    pub(super) fn wait(&self) -> Result<(), BackendError> {
        // SAFETY: the event lives as long as `self`.
        check("waiting for the device", unsafe { sys::cuEventSynchronize(self.0) }.result())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and not used any more. Where it fails the device is lost.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// Events in the order in which they were recorded.
pub(super) struct Events(Vec<Event>);

impl Events {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Puts one behind everything in the stream so far.
    pub(super) fn record(&mut self, stream: sys::CUstream) -> Result<(), BackendError> {
        let event = Event::new()?;
        event.record(stream)?;
        self.0.push(event);
        Ok(())
    }

    /// Nanoseconds from the first event to each, once the stream has passed them all.
    pub(super) fn since_first(&self) -> Result<Vec<u64>, BackendError> {
        let Some(first) = self.0.first() else { return Ok(Vec::new()) };
        let since = |event: &Event| {
            // SAFETY: both were recorded, and neither is destroyed before `self` is dropped.
            let ms = check("an event", unsafe { result::event::elapsed(first.0, event.0) })?;
            Ok((f64::from(ms) * 1e6) as u64)
        };
        self.0.iter().map(since).collect()
    }
}
