//! What a step costs: the longer of the time to move its bytes and the time to compute its products.

/// A model, as far as the cost of a step depends on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelShape {
    /// Its name.
    pub name: &'static str,
    /// Parameters that a token is multiplied with.
    pub parameters: f64,
    /// Layers.
    pub layers: u32,
    /// Query heads times the size of a head.
    pub attention_width: u32,
    /// Key and value heads times the size of a head.
    pub kv_width: u32,
}

/// Models to choose from, all with 16-bit weights and a 16-bit KV cache.
pub const MODELS: [ModelShape; 4] = [
    ModelShape { name: "smollm2-135m", parameters: 134.5e6, layers: 30, attention_width: 576, kv_width: 192 },
    ModelShape { name: "llama-3.2-1b", parameters: 1.236e9, layers: 16, attention_width: 2048, kv_width: 512 },
    ModelShape { name: "llama-3.1-8b", parameters: 8.03e9, layers: 32, attention_width: 4096, kv_width: 1024 },
    ModelShape { name: "opt-13b", parameters: 13.0e9, layers: 40, attention_width: 5120, kv_width: 5120 },
];

/// Bytes of a weight, and of a number in the KV cache.
const ELEMENT_BYTES: f64 = 2.0;

impl ModelShape {
    /// Bytes of the keys and values of one token, all layers together.
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * u64::from(self.layers) * u64::from(self.kv_width) * ELEMENT_BYTES as u64
    }
}

/// Model and device, as numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostModel {
    /// The model.
    pub model: ModelShape,
    /// Bytes that the device's memory moves in a second.
    pub bandwidth_bytes_per_s: f64,
    /// Floating-point operations that the device does in a second.
    pub flops_per_s: f64,
}

/// What one step computes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepWork {
    /// Tokens computed.
    pub tokens: u64,
    /// Tokens of all sequences whose keys and values are read: each sequence reads its own, shared or not.
    pub kv_tokens: u64,
    /// Pairs of a token computed and a token attended to.
    pub attended: u64,
}

impl StepWork {
    /// One more sequence: `query_len` tokens computed, the last of them as token number `seq_len`.
    pub fn add(&mut self, query_len: u32, seq_len: u32) {
        self.tokens += u64::from(query_len);
        self.kv_tokens += u64::from(seq_len);
        self.attended += u64::from(query_len) * u64::from(seq_len);
    }
}

impl CostModel {
    /// max(bytes moved / bandwidth, operations / peak). Bytes: all weights once, the keys and values of every sequence
    /// once, and those written. Operations: two per parameter and token, four per element of the attention and pair.
    /// Activations, sampling and the host cost nothing here.
    pub fn step_seconds(&self, work: StepWork) -> f64 {
        let model = &self.model;
        let kv_tokens = (work.kv_tokens + work.tokens) as f64;
        let bytes = model.parameters * ELEMENT_BYTES + kv_tokens * model.kv_bytes_per_token() as f64;
        let attention = 4.0 * f64::from(model.layers) * f64::from(model.attention_width);
        let flops = 2.0 * model.parameters * work.tokens as f64 + attention * work.attended as f64;
        (bytes / self.bandwidth_bytes_per_s).max(flops / self.flops_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_is_bound_by_bytes_and_prefill_by_operations() {
        let cost = CostModel { model: MODELS[3], bandwidth_bytes_per_s: 1.555e12, flops_per_s: 312e12 };
        // The paper: 800 KB of keys and values for a token of OPT-13B.
        assert_eq!(cost.model.kv_bytes_per_token(), 819_200);
        let mut decode = StepWork::default();
        decode.add(1, 1000);
        let bytes = 26e9 + 1001.0 * 819_200.0;
        assert!((cost.step_seconds(decode) / (bytes / 1.555e12) - 1.0).abs() < 1e-9);
        let mut prefill = StepWork::default();
        prefill.add(2048, 2048);
        assert!(cost.step_seconds(prefill) > 2048.0 * 26e9 / 312e12);
    }
}
