//! Structured output: completions that follow a JSON schema, a regular expression, a list of choices or a grammar.
//!
//! A [`GrammarSpec`] says what a completion must look like. A [`GrammarCompiler`] makes a [`Grammar`] of it, within
//! bounds of time and memory; each sequence walks its own copy, which says before every token which ones may come
//! ([`Grammar::allowed`]) and is told which one did ([`Grammar::accept`]). The work is llguidance's.

mod compiler;
mod grammar;
mod spec;
mod vocabulary;
mod workshop;

pub use compiler::{GrammarCompiler, GrammarError};
pub use grammar::Grammar;
pub use spec::{GrammarSpec, ToolCalls};
