//! Work that may take too long or nest too deep: on threads of its own, a few at a time, with a deadline.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Threads at work at the same time, at most. One that is overdue keeps its seat until it is done.
const SEATS: usize = 4;
/// Stack of each, in bytes; memory is taken as it is used. The rules of a grammar are compiled by recursion, one inside
/// the other, so that a long chain of them takes a stack as long.
const STACK_BYTES: usize = 256 << 20;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoResult {
    /// No seat became free in time, or the system gives no thread.
    Busy,
    /// It took too long; it goes on for nobody.
    Overdue,
    /// It panicked.
    Panicked,
}

/// The seats.
#[derive(Debug)]
pub(super) struct Workshop {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Default for Workshop {
    fn default() -> Self {
        Self { free: Mutex::new(SEATS), freed: Condvar::new() }
    }
}

impl Workshop {
    /// Does `work`, and waits for it until `limit` has passed.
    ///
    /// # Errors
    /// When there is nothing to wait for any more.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let deadline = Instant::now() + limit;
        let seat = self.sit_down(limit).ok_or(NoResult::Busy)?;
        let (sender, receiver) = sync_channel(1);
        let worker = thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES).spawn(move || {
            let _seat = seat;
            // Whoever asked may have gone.
            let _ = sender.send(work());
        });
        worker.map_err(|_| NoResult::Busy)?;
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| match error {
            RecvTimeoutError::Timeout => NoResult::Overdue,
            RecvTimeoutError::Disconnected => NoResult::Panicked,
        })
    }

    fn sit_down(self: &Arc<Self>, limit: Duration) -> Option<Seat> {
        let waited = self.freed.wait_timeout_while(self.free(), limit, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Seat(self.clone()))
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat that is taken; it is free again when this is dropped.
struct Seat(Arc<Workshop>);

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn work_that_is_overdue_keeps_its_seat_until_it_is_done() {
        let workshop = Arc::new(Workshop::default());
        let mut ends = Vec::new();
        for _ in 0..SEATS {
            let (end, ended) = channel::<()>();
            assert_eq!(workshop.run(SOON, move || ended.recv().is_ok()), Err(NoResult::Overdue));
            ends.push(end);
        }
        assert_eq!(workshop.run(SOON, || 1), Err(NoResult::Busy));
        ends.pop();
        assert_eq!(workshop.run(LONG, || 2), Ok(2));
        drop(ends);
    }

    #[test]
    fn a_panic_frees_the_seat() {
        let workshop = Arc::new(Workshop::default());
        for _ in 0..2 * SEATS {
            assert_eq!(workshop.run::<()>(LONG, || panic!("as a test of panics wants it")), Err(NoResult::Panicked));
        }
        assert_eq!(workshop.run(LONG, || 3), Ok(3));
    }

    #[test]
    fn the_stack_is_deep() {
        fn depth(levels: u32) -> u32 {
            let frame = std::hint::black_box([levels; 64]);
            if levels == 0 { 0 } else { 1 + depth(frame[63] - 1) }
        }
        assert_eq!(Arc::new(Workshop::default()).run(LONG, || depth(100_000)), Ok(100_000));
    }
}
