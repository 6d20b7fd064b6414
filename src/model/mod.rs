//! Checkpoints and the Llama family, written over the backend seam.
//!
//! | module | what it is |
//! |---|---|
//! | [`checkpoint`] | [`Checkpoint::open`]: configuration and weights of a GGUF file or a Hugging Face folder |
//! | [`config`] | [`ModelConfig`] and how it is read |
//! | [`gguf`], [`safetensors`] | the two file formats; both files are untrusted |
//! | [`dummy`] | made-up weights for a `config.json` |
//! | [`roles`] | which tensors the family has, their names and shapes |
//! | [`rope`] | RoPE's table |
//! | [`llama`] | the forward pass as a [`crate::backend::Program`] |
//! | [`runner`] | [`ModelRunner`]: a [`crate::engine::Batch`] in, logits out |

mod dtype;
mod encoding;
mod error;
mod file_bytes;
mod host_blocks;
mod identity;
mod locate;
mod upload;

pub mod checkpoint;
pub mod config;
pub mod dummy;
pub mod gguf;
pub mod llama;
pub mod roles;
pub mod rope;
pub mod runner;
pub mod safetensors;

pub use checkpoint::{Checkpoint, TokenizerSource};
pub use config::{Architecture, GenerationConfig, ModelConfig, RopeConfig, RopeScaling};
pub use dtype::Dtype;
pub use dummy::DummyWeights;
pub use encoding::Encoding;
pub use error::LoadError;
pub use llama::{Llama, LoadProgress, LoadedModel};
pub use locate::LoadFormat;
pub use runner::{ModelRunner, WantedRows};
