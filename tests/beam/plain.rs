//! A tiny random model, and a beam search over it as the textbook has it: no blocks to share, no batch, each beam computed
//! from its first token in every step, every token of the vocabulary a candidate.

use bindery::backend::cpu::CpuBackend;
use bindery::backend::{Backend, KvDtype, StepInput, StepLimits, StepOutput, WeightFormat};
use bindery::model::{Checkpoint, DummyWeights, Llama, LoadFormat};
use bindery::sampling::{EarlyStopping, SamplingParams};
use std::path::PathBuf;

/// Tokens that the tiny model's sequences end with, unless told otherwise.
pub const EOS: u32 = 2;
const MAX_LEN: u32 = 96;
const VOCAB: u32 = 97;

/// Where the tiny model's configuration is; its weights are made up.
pub fn tiny_model(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("bindery-beam-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the model");
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": MAX_LEN,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false, "eos_token_id": EOS,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("the configuration is written");
    folder
}

/// How its weights are made up.
pub const WEIGHTS: LoadFormat = LoadFormat::Dummy(DummyWeights { format: WeightFormat::F32, seed: 5 });

/// The tiny model on the reference backend, one sequence at a time.
pub struct PlainModel(CpuBackend);

impl PlainModel {
    pub fn new(checkpoint: &Checkpoint) -> Self {
        let mut backend = CpuBackend::new();
        let model = Llama::load(checkpoint, &mut backend, MAX_LEN, &mut |_| {}).expect("it loads");
        let num_blocks = MAX_LEN.div_ceil(16);
        let limits = StepLimits {
            max_tokens: MAX_LEN,
            max_seqs: 1,
            max_logits_rows: 1,
            max_block_table_entries: num_blocks,
            max_block_copies: 0,
            max_draws: 0,
            max_adjustments: 0,
            batch_invariant: false,
            quantize_activations: false,
            cascade_attention: true,
        };
        let kv = checkpoint.config().kv_layout(num_blocks, 16, KvDtype::F32);
        backend.prepare(model.program, kv, limits).expect("it fits");
        Self(backend)
    }

    /// Log probability of every token after `tokens`.
    fn logprobs(&mut self, tokens: &[u32]) -> Vec<f64> {
        let len = tokens.len() as u32;
        let positions: Vec<u32> = (0..len).collect();
        let blocks: Vec<u32> = (0..len.div_ceil(16)).collect();
        let input = StepInput {
            token_ids: tokens,
            fed_tokens: &[],
            positions: &positions,
            slot_mapping: &positions,
            query_start_loc: &[0, len],
            seq_lens: &[len],
            block_tables: &blocks,
            block_table_start: &[0, blocks.len() as u32],
            logits_indices: &[len - 1],
            block_copies: &[],
            read_logits_rows: &[0],
            top_k_rows: &[],
            top_k: 0,
            draws: &[],
            adjustments: &[],
            scored: &[],
        };
        let mut output = StepOutput::default();
        self.0.forward(&input, &mut output).expect("the reference runs everything");
        let logits = output.logits;
        let total = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
        logits.iter().map(|&logit| f64::from(logit) - total).collect()
    }

    /// The `n` best completions with their scores.
    pub fn search(&mut self, prompt: &[u32], params: &SamplingParams) -> Vec<(Vec<u32>, f64)> {
        let width = params.beam_width.unwrap_or(params.n) as usize;
        let max_tokens = params.max_tokens.expect("a stated length");
        let mut stops = params.stop_token_ids.clone();
        if !params.ignore_eos {
            stops.push(EOS);
        }
        let penalised = |sum: f64, len: u32| sum / f64::from(len).powf(params.length_penalty);
        let mut beams: Vec<(Vec<u32>, f64)> = vec![(Vec::new(), 0.0)];
        let mut finished: Vec<(Vec<u32>, f64)> = Vec::new();
        for len in 1..=max_tokens {
            let mut candidates = Vec::new();
            for (tokens, sum) in &beams {
                let logprobs = self.logprobs(&[prompt, tokens].concat());
                for (token, logprob) in (0..).zip(logprobs) {
                    if len > params.min_tokens || !stops.contains(&token) {
                        candidates.push(([&tokens[..], &[token]].concat(), sum + logprob));
                    }
                }
            }
            candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
            candidates.truncate(2.max(1 + stops.len()) * width);
            let ends = |tokens: &[u32]| len == max_tokens || stops.contains(tokens.last().expect("not empty"));
            let done = candidates[..width].iter().filter(|(tokens, _)| ends(tokens));
            finished.extend(done.map(|(tokens, sum)| (tokens.clone(), penalised(*sum, len))));
            finished.sort_by(|a, b| b.1.total_cmp(&a.1));
            finished.truncate(width);
            beams = candidates.into_iter().filter(|(tokens, _)| !ends(tokens)).take(width).collect();
            if finished.len() == width && !beams.is_empty() {
                let worst = finished[width - 1].1;
                let never = params.early_stopping == EarlyStopping::Never && params.length_penalty > 0.0;
                let attainable = penalised(beams[0].1, if never { max_tokens } else { len });
                if params.early_stopping == EarlyStopping::Immediate || attainable <= worst {
                    break;
                }
            }
        }
        finished.truncate(params.n as usize);
        finished
    }
}
