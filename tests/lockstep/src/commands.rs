//! What a device is told to do, and does.

use super::kernel::Kernel;
use super::machine::{self, Bound};
use super::shared::Shared;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A buffer's memory.
pub(crate) type Words = Arc<Mutex<Vec<u32>>>;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of a buffer, and the number by which a kernel knows it.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) number: u32,
    pub(crate) buffer: Words,
    pub(crate) words: Range<usize>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Copy { from: Words, to: Words, from_word: usize, to_word: usize, words: usize },
    Dispatch { kernel: Arc<Kernel>, bindings: Arc<Vec<Binding>>, immediates: Vec<u32>, grid: [u32; 3] },
}

impl Command {
    /// # Errors
    /// The first fault, in words.
    pub(crate) fn run(self) -> Result<(), String> {
        match self {
            Self::Copy { from, to, from_word, to_word, words } => {
                let copied = lock(&from)[from_word..][..words].to_vec();
                lock(&to)[to_word..][..words].copy_from_slice(&copied);
                Ok(())
            }
            Self::Dispatch { kernel, bindings, immediates, grid } => dispatch(&kernel, &bindings, immediates, grid),
        }
    }
}

fn dispatch(kernel: &Kernel, bindings: &[Binding], mut immediates: Vec<u32>, grid: [u32; 3]) -> Result<(), String> {
    let mut sorted: Vec<&Binding> = bindings.iter().collect();
    sorted.sort_by_key(|binding| (Arc::as_ptr(&binding.buffer), binding.words.start));
    let of_buffers: Vec<&[&Binding]> = sorted.chunk_by(|a, b| Arc::ptr_eq(&a.buffer, &b.buffer)).collect();
    let mut locked: Vec<_> = of_buffers.iter().map(|bindings| lock(&bindings[0].buffer)).collect();
    let mut buffers = Vec::new();
    for (bindings, words) in of_buffers.iter().zip(&mut locked) {
        let (mut rest, mut passed): (&mut [u32], usize) = (words, 0);
        for Binding { number, words, .. } in bindings.iter() {
            if words.start < passed {
                return Err(format!("{}: binding {number} overlaps another", kernel.name()));
            }
            let (bound, after) = rest.split_at_mut(words.end - passed);
            let bound = &mut bound[words.start - passed..];
            (rest, passed) = (after, words.end);
            let (name, writes) = kernel.variable_at(*number)?;
            let shared = if writes { Shared::written(name, bound) } else { Shared::read_only(name, bound) };
            buffers.push((*number, shared));
        }
    }
    machine::dispatch(kernel, Bound { buffers, immediates: &mut immediates }, grid)
}
