//! The device's clock: events between launches, and what passed from one to the next.

use super::super::BackendError;
use super::library::check;
use cudarc::driver::{result, sys};

/// Events in the order in which they were recorded.
pub(super) struct Events(Vec<sys::CUevent>);

impl Events {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Puts one behind everything in the stream so far.
    pub(super) fn record(&mut self, stream: sys::CUstream) -> Result<(), BackendError> {
        let event = check("an event", result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
        self.0.push(event);
        // SAFETY: the event was just made, and the caller's stream is alive.
        check("an event", unsafe { result::event::record(event, stream) })
    }

    /// Nanoseconds from the first event to each, once the stream has passed them all.
    pub(super) fn since_first(&self) -> Result<Vec<u64>, BackendError> {
        let Some(&first) = self.0.first() else { return Ok(Vec::new()) };
        let since = |&event: &sys::CUevent| {
            // SAFETY: both were recorded, and neither is destroyed before `self` is dropped.
            let ms = check("an event", unsafe { result::event::elapsed(first, event) })?;
            Ok((f64::from(ms) * 1e6) as u64)
        };
        self.0.iter().map(since).collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for &event in &self.0 {
            // SAFETY: made by `record`, and not used any more. Where it fails the device is lost.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}
