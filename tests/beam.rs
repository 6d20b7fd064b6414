//! Beam search end to end: SmolLM2 against transformers, and a tiny random model against a plain beam search of our own.

#![cfg(feature = "webgpu")]

#[path = "beam/oracle.rs"]
mod oracle;
