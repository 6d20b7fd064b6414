//! From logits to the next token: parameters, the host sampler, logprobs.
//!
//! - [`SamplingParams`]: what a request may ask for, under vLLM's names; [`SamplingParams::validate`] is the border.
//! - [`Sampler`]: one row of logits to one token; the order of processing is that of vLLM's v1 sampler.
//! - [`uniform`]: random numbers as a function of (seed, sample index, position), so that a token depends on nothing
//!   else (invariant I12).
//! - [`BeamSearch`]: candidates of every beam to the beams of the next step.
//! - [`token_logprobs`]: log probabilities of the raw logits, for sampled and for prompt tokens.
//!
//! Few requests need logits on the host ([`SamplingParams::needs_logits`]). Tokens of a greedy one that asks for nothing else
//! are their argmax; those of the others are drawn on the device ([`DrawList`]) by the numbers that the host gives. Log
//! probabilities come from the device, too.

mod beam;
mod beam_params;
mod draw_list;
mod logprobs;
mod params;
mod processors;
mod rng;
mod sampler;
mod validate;

pub use beam::{BeamSearch, Continuation, Hypothesis};
pub use beam_params::EarlyStopping;
pub use draw_list::DrawList;
pub use logprobs::{TokenLogprob, TokenLogprobs, ranked, token_logprobs};
pub use params::SamplingParams;
pub use rng::{philox4x32, uniform};
pub use sampler::{Draw, History, SampleError, SampledToken, Sampler};
pub use validate::{ParamCaps, ParamError};
