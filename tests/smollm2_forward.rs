//! The whole model on the reference backend, against transformers' log-probabilities for the same GGUF file
//! (dequantised to f32).
#![cfg(feature = "runtime")]

use std::path::Path;

use bindery::backend::cpu::CpuBackend;
use bindery::backend::{Backend, KvDtype, StepLimits, StepOutput};
use bindery::engine::Batch;
use bindery::model::{Checkpoint, Llama, LoadFormat, ModelRunner, WantedRows};

#[path = "support/models.rs"]
mod models;

/// "The capital of France is"
const PROMPT: [u32; 5] = [504, 3575, 282, 4649, 314];

/// Token and log-probability of the ten likeliest next tokens, from transformers 5.23.
const WANT: [(u32, f64); 10] = [
    (7042, -0.25807),
    (260, -2.74074),
    (4528, -4.38436),
    (2250, -4.61987),
    (1315, -4.67782),
    (5145, -4.72439),
    (216, -4.91603),
    (441, -4.93148),
    (3692, -5.04563),
    (3575, -5.50705),
];

fn runner(path: &Path) -> ModelRunner {
    let checkpoint = Checkpoint::open(path, LoadFormat::Auto).unwrap();
    let mut backend = CpuBackend::new();
    let mut done = 0;
    let model = Llama::load(&checkpoint, &mut backend, 64, &mut |progress| {
        assert!(progress.done_bytes > done && progress.done_bytes <= progress.total_bytes, "{}", progress.name);
        done = progress.done_bytes;
    });
    let model = model.unwrap();
    assert_eq!(done, model.weight_bytes);
    let kv = checkpoint.config().kv_layout(4, 16, KvDtype::F32);
    let limits = StepLimits {
        max_tokens: 16,
        max_seqs: 2,
        max_logits_rows: 4,
        max_block_table_entries: 4,
        max_block_copies: 1,
        max_draws: 0,
        max_adjustments: 0,
        batch_invariant: false,
        quantize_activations: false,
        cascade_attention: true,
    };
    backend.prepare(model.program, kv, limits).unwrap();
    ModelRunner::new(Box::new(backend), checkpoint.config().clone(), checkpoint.identity())
}

/// One sequence in blocks 2, 0: `query` after `context_len` tokens, logits of its last token.
fn batch(query: &[u32], context_len: u32) -> Batch {
    let len = query.len() as u32;
    let positions: Vec<u32> = (context_len..context_len + len).collect();
    Batch {
        step: 1,
        token_ids: query.to_vec(),
        slot_mapping: positions.iter().map(|position| if *position < 16 { 32 + position } else { *position }).collect(),
        positions,
        query_start_loc: vec![0, len],
        seq_lens: vec![context_len + len],
        block_tables: vec![2, 0],
        block_table_start: vec![0, 2],
        logits_indices: vec![len - 1],
        ..Batch::default()
    }
}

/// Runs one step; the logits of its last token come back if wanted.
fn forward(runner: &mut ModelRunner, batch: &Batch, rows: &[u32]) -> StepOutput {
    let mut output = StepOutput::default();
    runner.submit(batch, WantedRows::whole(rows)).unwrap();
    runner.collect(&mut output).unwrap();
    output
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

fn check(output: &StepOutput, tolerance: f64) {
    assert_eq!(output.argmax, [WANT[0].0]);
    let got = log_softmax(&output.logits);
    for (token, want) in WANT {
        let got = got[token as usize];
        assert!((got - want).abs() < tolerance, "token {token}: {got}, transformers {want}");
    }
}

#[test]
fn first_token_agrees_with_transformers_and_chunking_changes_nothing() {
    let mut runner = runner(&models::smollm2_gguf());
    let whole = forward(&mut runner, &batch(&PROMPT, 0), &[0]);
    check(&whole, 1e-4);
    forward(&mut runner, &batch(&PROMPT[..3], 0), &[]);
    let chunked = forward(&mut runner, &batch(&PROMPT[3..], 3), &[0]);
    let largest = whole.logits.iter().zip(&chunked.logits).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(largest < 1e-4, "chunking moved a logit by {largest}");
}

/// The folder's weights are the GGUF's rounded to f16 (which moves logits by up to 0.04 in transformers as well), its q
/// and k rows in the other order.
#[test]
fn first_token_of_the_hugging_face_folder_agrees_as_well() {
    let output = forward(&mut runner(&models::smollm2_hf()), &batch(&PROMPT, 0), &[0]);
    check(&output, 0.04);
}
