//! LLM inference with PagedAttention on every GPU, through WGSL compute shaders on `wgpu`.
//!
//! # Layout
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | requests, blocks, block tables, the scheduler and the [`engine::Batch`]: integers only, no I/O |
//! | [`backend`] | the seam: a [`backend::Program`] of ops over opaque buffers; `cpu`, `webgpu` and `cuda` run it, the latter two fused |
//! | [`model`] | checkpoints (GGUF, Hugging Face folders) and the Llama family written over the seam |
//! | [`sampling`] | [`sampling::SamplingParams`], the host sampler, logprobs |
//! | [`structured`] | completions that follow a schema, a regular expression or a grammar |
//! | [`text`] | tokenizer, chat template, incremental detokenizer, stop strings |
//! | [`llm`] | the step loop and the embedding API |
//! | [`openai`] | OpenAI's request and response bodies, with vLLM's extra fields |
//! | `server` | the OpenAI-compatible HTTP server: an engine thread, and routes that talk to it |
//! | [`simulate`] | the engine core on recorded or made-up requests, beside engines without paging |
//!
//! Data flows one way: text → [`engine::Scheduler`] → [`engine::Batch`] → model → backend → token ids → text.

pub mod engine;

#[cfg(feature = "runtime")]
pub mod backend;
#[cfg(feature = "runtime")]
pub mod llm;
#[cfg(feature = "runtime")]
pub mod model;
#[cfg(feature = "runtime")]
pub mod openai;
#[cfg(feature = "runtime")]
pub mod sampling;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "runtime")]
pub mod simulate;
#[cfg(feature = "runtime")]
pub mod structured;
#[cfg(feature = "runtime")]
pub mod text;

#[cfg(feature = "runtime")]
pub use llm::Llm;
