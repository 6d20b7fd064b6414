//! What a KV pool of bytes costs in accuracy, on a real model and text.

#![cfg(feature = "webgpu")]

use bindery::backend::KvDtype;
use bindery::llm::Perplexity;

#[path = "support/llm.rs"]
mod llm;
#[path = "support/models.rs"]
mod models;

/// The first 350 tokens of the text that `bindery bench perplexity` is documented with, in two windows.
fn perplexity(dtype: KvDtype) -> Perplexity {
    let mut llm = llm::smollm2(&models::smollm2_gguf(), |options| options.kv_cache_dtype = dtype);
    let text = include_str!("data/public_domain.txt");
    let tokens = llm.tokenizer().expect("the model has one").encode(text, true).expect("plain text");
    Perplexity::measure(&mut llm, &tokens[..350], 300, 250, &mut |_| {}).expect("it runs")
}

#[test]
fn int8_costs_no_more_than_was_measured() {
    let [f16, int8] = [KvDtype::F16, KvDtype::Int8].map(perplexity);
    assert_eq!((f16.predicted_tokens, int8.predicted_tokens), (349, 349));
    let (f16, int8) = (f16.value(), int8.value());
    eprintln!("perplexity: {f16:.4} with an f16 pool, {int8:.4} with an int8 pool");
    // A famous text: a model that predicts it at all does so well, one that has lost its past does not.
    assert!((1.0..20.0).contains(&f16), "{f16}");
    // The whole text, which would take minutes here, costs 0.25 % (10.752 against 10.725, `bindery bench perplexity`); so few
    // tokens move more: 9.943 against 9.756 on lavapipe, 1.9 %.
    assert!((int8 / f16 - 1.0).abs() < 0.025, "{int8} with int8, {f16} with f16");
}
