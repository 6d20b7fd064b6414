//! Checkpoints and architectures.

mod error;
mod file_bytes;

pub mod gguf;

pub use error::LoadError;
