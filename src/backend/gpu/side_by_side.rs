//! Work on the machine's cores: compilers are slow, and kernels many.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// As much as the main thread has on most systems: drivers' compilers recurse.
const STACK_BYTES: usize = 8 << 20;

/// What `work` makes of each item, in their order.
pub(in super::super) fn side_by_side<T: Sync, R: Send + Sync>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
    let run = || {
        while let Some((item, result)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).zip(results.get(index))
        } {
            let _ = result.set(work(item));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 1..cores.min(items.len()) {
            // Where the system has no more threads, those that there are do it all.
            let _ = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run);
        }
        run();
    });
    results.into_iter().map(|result| result.into_inner().expect("every item was taken")).collect()
}

#[cfg(test)]
mod tests {
    use super::side_by_side;

    #[test]
    fn results_stand_where_their_items_do() {
        assert!(side_by_side(&[0_u32; 0], |&item| item).is_empty());
        let items: Vec<u32> = (0..1000).collect();
        assert_eq!(side_by_side(&items, |&item| item * item), items.iter().map(|item| item * item).collect::<Vec<_>>());
    }
}
