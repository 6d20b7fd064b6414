//! Small checkpoints built in memory: writers for GGUF and safetensors, and one tiny Llama in both forms.
#![allow(dead_code, reason = "each test binary uses its own part")]

use bindery::backend::{WeightFormat, quantize_row};

/// Writes a GGUF file; nothing is checked, so that wrong files can be written too.
pub struct GgufWriter {
    pub version: u32,
    pub alignment: usize,
    pairs: Vec<u8>,
    pub pair_count: u64,
    infos: Vec<u8>,
    pub tensor_count: u64,
    data: Vec<u8>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        let (pairs, infos, data) = (Vec::new(), Vec::new(), Vec::new());
        Self { version: 3, alignment: 32, pairs, pair_count: 0, infos, tensor_count: 0, data }
    }
}

pub fn gguf_string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl GgufWriter {
    /// A pair whose value is already encoded.
    pub fn raw(&mut self, key: &str, type_id: u32, value: &[u8]) -> &mut Self {
        self.pairs.extend(gguf_string(key));
        self.pairs.extend(type_id.to_le_bytes());
        self.pairs.extend(value);
        self.pair_count += 1;
        self
    }

    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, 8, &gguf_string(value))
    }

    pub fn strings(&mut self, key: &str, values: &[String]) -> &mut Self {
        let mut bytes = [8u32.to_le_bytes().as_slice(), &(values.len() as u64).to_le_bytes()].concat();
        values.iter().for_each(|value| bytes.extend(gguf_string(value)));
        self.raw(key, 9, &bytes)
    }

    /// `dims` with the contiguous one first.
    pub fn tensor(&mut self, name: &str, dims: &[u64], type_id: u32, data: &[u8]) -> &mut Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(data);
        self.tensor_at(name, dims, type_id, offset)
    }

    /// A tensor entry without data.
    pub fn tensor_at(&mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> &mut Self {
        self.infos.extend(gguf_string(name));
        self.infos.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| self.infos.extend(dim.to_le_bytes()));
        self.infos.extend(type_id.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    /// Bytes before the tensor data, padding left out.
    pub fn header_len(&self) -> usize {
        24 + self.pairs.len() + self.infos.len()
    }

    pub fn finish(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.pair_count.to_le_bytes());
        file.extend(&self.pairs);
        file.extend(&self.infos);
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(&self.data);
        file
    }
}

/// A safetensors file: `(name, dtype, shape, data)`.
pub fn safetensors(tensors: &[(String, &str, Vec<u64>, Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        header.insert(name.clone(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
    }
    let header = serde_json::to_string(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Numbers from a seed (SplitMix64).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// From -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A tiny Llama: 2 layers, hidden 32, 4 heads of 8 over 2 KV heads, 64 between gate and down, 96 tokens.
pub struct TinyLlama {
    pub qkv_bias: bool,
    pub tied: bool,
    pub head_norms: bool,
}

pub const LAYERS: u64 = 2;
pub const HIDDEN: u64 = 32;
pub const HEADS: u64 = 4;
pub const KV_HEADS: u64 = 2;
pub const HEAD_DIM: u64 = 8;
pub const INNER: u64 = 64;
pub const VOCAB: u64 = 96;

/// One tensor of the tiny model: both names, rows (0 for a vector), columns, heads for RoPE's row order.
struct Spec {
    gguf: String,
    hf: String,
    rows: u64,
    cols: u64,
    rope_heads: u64,
}

impl TinyLlama {
    fn specs(&self) -> Vec<Spec> {
        let spec = |gguf: String, hf: String, rows, cols, rope_heads| Spec { gguf, hf, rows, cols, rope_heads };
        let mut specs = vec![
            spec("token_embd.weight".into(), "model.embed_tokens.weight".into(), VOCAB, HIDDEN, 0),
            spec("output_norm.weight".into(), "model.norm.weight".into(), 0, HIDDEN, 0),
        ];
        if !self.tied {
            specs.push(spec("output.weight".into(), "lm_head.weight".into(), VOCAB, HIDDEN, 0));
        }
        for layer in 0..LAYERS {
            let mut add = |gguf: &str, hf: &str, rows, cols, rope_heads| {
                let (gguf, hf) = (format!("blk.{layer}.{gguf}"), format!("model.layers.{layer}.{hf}"));
                specs.push(spec(gguf, hf, rows, cols, rope_heads));
            };
            let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
            add("attn_norm.weight", "input_layernorm.weight", 0, HIDDEN, 0);
            add("ffn_norm.weight", "post_attention_layernorm.weight", 0, HIDDEN, 0);
            add("attn_q.weight", "self_attn.q_proj.weight", q, HIDDEN, HEADS);
            add("attn_k.weight", "self_attn.k_proj.weight", kv, HIDDEN, KV_HEADS);
            add("attn_v.weight", "self_attn.v_proj.weight", kv, HIDDEN, 0);
            add("attn_output.weight", "self_attn.o_proj.weight", HIDDEN, q, 0);
            add("ffn_gate.weight", "mlp.gate_proj.weight", INNER, HIDDEN, 0);
            add("ffn_up.weight", "mlp.up_proj.weight", INNER, HIDDEN, 0);
            add("ffn_down.weight", "mlp.down_proj.weight", HIDDEN, INNER, 0);
            if self.head_norms {
                add("attn_q_norm.weight", "self_attn.q_norm.weight", 0, HEAD_DIM, 0);
                add("attn_k_norm.weight", "self_attn.k_norm.weight", 0, HEAD_DIM, 0);
            }
            if self.qkv_bias {
                add("attn_q.bias", "self_attn.q_proj.bias", 0, q, HEADS);
                add("attn_k.bias", "self_attn.k_proj.bias", 0, kv, KV_HEADS);
                add("attn_v.bias", "self_attn.v_proj.bias", 0, kv, 0);
            }
        }
        specs
    }

    /// Values of one tensor in Hugging Face's order, the same for both forms.
    fn values(&self, spec: &Spec) -> Vec<f32> {
        let mut random =
            Random(spec.hf.bytes().fold(1, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte))));
        let norm = spec.hf.ends_with("norm.weight");
        let value = |random: &mut Random| if norm { 1.0 + 0.2 * random.unit() } else { 0.4 * random.unit() };
        (0..spec.rows.max(1) * spec.cols).map(|_| value(&mut random)).collect()
    }

    /// `architecture` is `llama` (rows of q and k interleaved, as its converter does), `qwen2` or `qwen3`;
    /// matrices in `format`.
    pub fn gguf_writer(&self, architecture: &str, format: WeightFormat) -> GgufWriter {
        let type_id = match format {
            WeightFormat::F32 => 0,
            WeightFormat::F16 => 1,
            WeightFormat::Q4_0 => 2,
            WeightFormat::Q4_1 => 3,
            WeightFormat::Q8_0 => 8,
            WeightFormat::Bf16 => 30,
        };
        self.gguf_writer_with(architecture, type_id, |row, data| quantize_row(format, row, data))
    }

    /// The same with matrices of another type, whose rows `encode` appends.
    pub fn gguf_writer_with(
        &self,
        architecture: &str,
        type_id: u32,
        encode: impl Fn(&[f32], &mut Vec<u8>),
    ) -> GgufWriter {
        let mut writer = GgufWriter::default();
        let key = |name: &str| format!("{architecture}.{name}");
        writer.string("general.architecture", architecture);
        writer.u32(&key("block_count"), LAYERS as u32).u32(&key("embedding_length"), HIDDEN as u32);
        writer.u32(&key("feed_forward_length"), INNER as u32).u32(&key("context_length"), 256);
        writer.u32(&key("attention.head_count"), HEADS as u32).u32(&key("attention.head_count_kv"), KV_HEADS as u32);
        writer.f32(&key("attention.layer_norm_rms_epsilon"), 1e-5).f32(&key("rope.freq_base"), 1e4);
        let tokens: Vec<String> = (0..VOCAB).map(|id| format!("t{id}")).collect();
        writer.strings("tokenizer.ggml.tokens", &tokens).u32("tokenizer.ggml.eos_token_id", 2);
        for spec in self.specs() {
            let mut values = self.values(&spec);
            if architecture == "llama" && spec.rope_heads > 0 {
                values = interleaved(&values, spec.rope_heads, if spec.rows == 0 { 1 } else { spec.cols });
            }
            let mut data = Vec::new();
            if spec.rows == 0 {
                quantize_row(WeightFormat::F32, &values, &mut data);
                writer.tensor(&spec.gguf, &[spec.cols], 0, &data);
            } else {
                values.chunks(spec.cols as usize).for_each(|row| encode(row, &mut data));
                writer.tensor(&spec.gguf, &[spec.cols, spec.rows], type_id, &data);
            }
        }
        writer
    }

    pub fn hf_config(&self) -> serde_json::Value {
        serde_json::json!({
            "model_type": match self {
                Self { head_norms: true, .. } => "qwen3",
                Self { qkv_bias: true, .. } => "qwen2",
                _ => "llama",
            },
            "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied, "eos_token_id": 2,
        })
    }

    /// Every tensor in `dtype` (`F32`, `F16` or `BF16`).
    pub fn hf_tensors(&self, dtype: &'static str) -> Vec<(String, &'static str, Vec<u64>, Vec<u8>)> {
        let format = match dtype {
            "F32" => WeightFormat::F32,
            "F16" => WeightFormat::F16,
            "BF16" => WeightFormat::Bf16,
            other => panic!("{other}"),
        };
        let tensor = |spec: Spec| {
            let mut data = Vec::new();
            quantize_row(format, &self.values(&spec), &mut data);
            let shape = if spec.rows == 0 { vec![spec.cols] } else { vec![spec.rows, spec.cols] };
            (spec.hf, dtype, shape, data)
        };
        self.specs().into_iter().map(tensor).collect()
    }
}

/// Row order of GGUF's llama: RoPE pairs `(2 i, 2 i + 1)` instead of `(i, i + head_dim / 2)`.
fn interleaved(values: &[f32], heads: u64, cols: u64) -> Vec<f32> {
    let (head_dim, half, cols) = (HEAD_DIM as usize, HEAD_DIM as usize / 2, cols as usize);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads as usize {
        for row in 0..head_dim {
            let from = head * head_dim + row / 2 + (row % 2) * half;
            out.extend(&values[from * cols..][..cols]);
        }
    }
    out
}
