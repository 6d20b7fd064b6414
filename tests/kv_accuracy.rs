//! What a KV pool of bytes costs in accuracy, on a real model and text.

#![cfg(feature = "webgpu")]

use bindery::backend::KvDtype;
use bindery::llm::Perplexity;

#[path = "support/llm.rs"]
mod llm;
#[path = "support/models.rs"]
mod models;

/// The first 1,100 tokens of the text that `bindery bench perplexity` is documented with, in windows of 300.
fn perplexity(dtype: KvDtype) -> Perplexity {
    let mut llm = llm::smollm2(&models::smollm2_gguf(), |options| options.kv_cache_dtype = dtype);
    let text = include_str!("data/public_domain.txt");
    let tokens = llm.tokenizer().expect("the model has one").encode(text, true).expect("plain text");
    Perplexity::measure(&mut llm, &tokens[..1100], 300, 250, &mut |_| {}).expect("it runs")
}

#[test]
fn int8_costs_less_than_one_percent() {
    let [f16, int8] = [KvDtype::F16, KvDtype::Int8].map(perplexity);
    assert_eq!((f16.predicted_tokens, int8.predicted_tokens), (1099, 1099));
    let (f16, int8) = (f16.value(), int8.value());
    eprintln!("perplexity: {f16:.4} with an f16 pool, {int8:.4} with an int8 pool");
    // A famous text: a model that predicts it at all does so well, one that has lost its past does not.
    assert!((1.0..30.0).contains(&f16), "{f16}");
    // 19.006 against 18.940 on lavapipe, 0.35 %; the whole text, which would take minutes here, costs 0.17 %.
    assert!((int8 / f16 - 1.0).abs() < 0.01, "{int8} with int8, {f16} with f16");
}
