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

fn dispatch(kernel: &Kernel, bindings: &[Binding], immediates: Vec<u32>, grid: [u32; 3]) -> Result<(), String> {
    let most = wgpu::Limits::default().max_compute_workgroups_per_dimension;
    if grid.iter().any(|&workgroups| workgroups > most) {
        return Err(format!("{}: {grid:?} workgroups, at most {most} in a dimension", kernel.name()));
    }
    let mut sorted: Vec<&Binding> = bindings.iter().collect();
    sorted.sort_by_key(|binding| (Arc::as_ptr(&binding.buffer), binding.words.start));
    let of_buffers: Vec<&[&Binding]> = sorted.chunk_by(|a, b| Arc::ptr_eq(&a.buffer, &b.buffer)).collect();
    let mut locked: Vec<_> = of_buffers.iter().map(|bindings| lock(&bindings[0].buffer)).collect();
    let mut buffers = Vec::new();
    for (bindings, words) in of_buffers.iter().zip(&mut locked) {
        let variables = bindings.iter().map(|binding| kernel.variable_at(binding.number));
        let variables = variables.collect::<Result<Vec<_>, String>>()?;
        match &variables[..] {
            [(name, true)] => {
                let Binding { number, words: bound, .. } = bindings[0];
                buffers.push((*number, Shared::written(name.clone(), &mut words[bound.clone()])));
            }
            several if several.iter().any(|&(_, writes)| writes) => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!("{}: one buffer is bound as {}", kernel.name(), names.join(", ")));
            }
            constants => {
                for ((name, _), Binding { number, words: bound, .. }) in constants.iter().zip(*bindings) {
                    buffers.push((*number, Shared::constant(name.clone(), &words[bound.clone()])));
                }
            }
        }
    }
    machine::dispatch(kernel, Bound { buffers, immediates: &immediates }, grid)
}
