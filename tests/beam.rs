//! Beam search end to end: SmolLM2 against transformers, and a tiny random model against a plain beam search; and the
//! ranking of parallel samples.

#![cfg(feature = "webgpu")]

#[path = "beam/oracle.rs"]
mod oracle;
#[path = "beam/plain.rs"]
mod plain;
#[path = "beam/tiny.rs"]
mod tiny;
