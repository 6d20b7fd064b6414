//! What a device reaches at best, and the least that a model's steps must do, whatever the kernels.

use bindery::backend::DevicePeaks;
use bindery::model::ModelConfig;

/// The peaks in words.
pub(super) fn peaks_text(peaks: &DevicePeaks) -> String {
    let DevicePeaks { copy_bytes_per_s, fma_flops_per_s } = peaks;
    let [copies, flops] = [copy_bytes_per_s, fma_flops_per_s].map(|rate| rate / 1e9);
    format!("copies {copies:.2} GB/s, read and written; f32 multiply-adds {flops:.1} GFLOP/s")
}

/// Floating point operations of prompts of `input_len` tokens each, up to the first logits of each: two for each weight
/// of a matrix and token, two for each product of the causal attention. Norms, RoPE and activations are left out.
pub(super) fn prefill_flops(config: &ModelConfig, input_len: u32, requests: u32) -> f64 {
    let [hidden, intermediate, vocab, q, kv] =
        [config.hidden_size, config.intermediate_size, config.vocab_size, config.q_size(), config.kv_size()]
            .map(f64::from);
    let (layers, tokens) = (f64::from(config.num_layers), f64::from(input_len));
    let layer_weights = hidden * (q + 2.0 * kv) + q * hidden + 3.0 * hidden * intermediate;
    // Token i attends to i keys: a product with each key, and one with each value.
    let pairs = tokens * (tokens + 1.0) / 2.0;
    let per_request = layers * (2.0 * layer_weights * tokens + 4.0 * q * pairs) + 2.0 * hidden * vocab;
    f64::from(requests) * per_request
}

#[cfg(test)]
mod tests {
    use super::*;
    use bindery::backend::RopePairing;
    use bindery::model::{Architecture, GenerationConfig, RopeConfig, RopeScaling};

    #[test]
    fn two_operations_for_each_weight_and_product() {
        let config = ModelConfig {
            architecture: Architecture::Llama,
            num_layers: 3,
            hidden_size: 8,
            intermediate_size: 16,
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 8,
            vocab_size: 10,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope: RopeConfig { theta: 1e4, scaling: RopeScaling::None },
            rope_pairing: RopePairing::Halves,
            tie_word_embeddings: true,
            attention_bias: false,
            attention_output_bias: false,
            mlp_bias: false,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            generation: GenerationConfig::default(),
        };
        // qkv 8x32, output 16x8, gate, up and down 8x16 each; q has 16 elements.
        let layer = f64::from(8 * 32 + 16 * 8 + 3 * 8 * 16);
        let one = 3.0 * (2.0 * layer * 2.0 + 4.0 * 16.0 * 3.0) + 2.0 * 80.0;
        assert_eq!(prefill_flops(&config, 2, 5), 5.0 * one);
    }
}
