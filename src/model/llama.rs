//! The Llama family's forward pass as a program of fused kernels.

use super::LoadError;
use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::roles::{LayerRole, Linear, TensorRole};
use super::rope::rope_table;
use crate::backend::{ActId, Activation, Backend, HeadNorm, HostWeight, Op, Program, Rows, WeightId};

/// How far an upload is; given after each weight.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress<'a> {
    /// The weight that was uploaded last.
    pub name: &'a str,
    /// Bytes uploaded.
    pub done_bytes: u64,
    /// Bytes in all; reached with the last weight.
    pub total_bytes: u64,
}

/// What [`Llama::load`] gives.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// The forward pass, to be given to [`Backend::prepare`].
    pub program: Program,
    /// Bytes of all weights as they were uploaded.
    pub weight_bytes: u64,
}

/// The Llama family: RMSNorm, RoPE, grouped-query attention, SwiGLU (Touvron et al. 2023, arXiv:2302.13971), with the
/// biases of Qwen2 and the norms of Qwen3.
#[derive(Debug)]
pub struct Llama;

impl Llama {
    /// Uploads every weight and writes the program.
    ///
    /// `max_positions` is the longest sequence that will be run, in tokens; the RoPE table has that many rows, and at
    /// most `max_position_embeddings`.
    ///
    /// # Errors
    /// [`LoadError::Backend`] when the device refuses a weight; everything else was checked by [`Checkpoint::open`].
    pub fn load(
        checkpoint: &Checkpoint,
        backend: &mut dyn Backend,
        max_positions: u32,
        progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<LoadedModel, LoadError> {
        let total_bytes = checkpoint.weight_bytes();
        let mut uploader = Uploader { checkpoint, backend, progress, done_bytes: 0, total_bytes };
        let embedding = uploader.matrix("token embedding", &[TensorRole::TokenEmbedding])?;
        let config = checkpoint.config();
        let mut layers = Vec::with_capacity(config.num_layers as usize);
        for layer in 0..config.num_layers {
            layers.push(uploader.layer(layer)?);
        }
        let output_norm = uploader.vector("output norm", &[TensorRole::OutputNorm])?;
        let output_head = match config.tie_word_embeddings {
            true => embedding,
            false => uploader.matrix("output head", &[TensorRole::OutputHead])?,
        };
        let weights = Weights { embedding, layers, output_norm, output_head };
        Ok(LoadedModel { program: program(config, &weights, max_positions), weight_bytes: total_bytes })
    }
}

/// A linear map on the device.
#[derive(Debug, Clone, Copy)]
struct LinearIds {
    weight: WeightId,
    bias: Option<WeightId>,
}

#[derive(Debug)]
struct LayerIds {
    attention_norm: WeightId,
    qkv: LinearIds,
    /// Of q and of k, one after the other.
    head_norms: Option<WeightId>,
    attention_output: LinearIds,
    mlp_norm: WeightId,
    gate_up: LinearIds,
    down: LinearIds,
}

#[derive(Debug)]
struct Weights {
    embedding: WeightId,
    layers: Vec<LayerIds>,
    output_norm: WeightId,
    output_head: WeightId,
}

struct Uploader<'a> {
    checkpoint: &'a Checkpoint,
    backend: &'a mut dyn Backend,
    progress: &'a mut dyn FnMut(LoadProgress<'_>),
    done_bytes: u64,
    total_bytes: u64,
}

impl Uploader<'_> {
    fn upload(&mut self, weight: &HostWeight<'_>) -> Result<WeightId, LoadError> {
        let id = self.backend.upload_weight(weight)?;
        self.done_bytes += weight.parts.iter().map(|part| part.data.len() as u64).sum::<u64>();
        let &mut Self { done_bytes, total_bytes, .. } = self;
        (self.progress)(LoadProgress { name: &weight.name, done_bytes, total_bytes });
        Ok(id)
    }

    fn matrix(&mut self, name: &str, roles: &[TensorRole]) -> Result<WeightId, LoadError> {
        self.upload(&self.checkpoint.matrix(name, roles))
    }

    fn vector(&mut self, name: &str, roles: &[TensorRole]) -> Result<WeightId, LoadError> {
        self.upload(&self.checkpoint.vector(name, roles))
    }

    /// Linear maps of one input, stacked by rows, and their biases one after the other.
    fn linear(&mut self, layer: u32, name: &str, maps: &[Linear]) -> Result<LinearIds, LoadError> {
        let roles = |role: fn(Linear) -> LayerRole| -> Vec<TensorRole> {
            maps.iter().map(|&map| TensorRole::Layer(layer, role(map))).collect()
        };
        let weight = self.matrix(&format!("layer {layer} {name}"), &roles(LayerRole::Weight))?;
        let bias = match maps[0].has_bias(self.checkpoint.config()) {
            true => Some(self.vector(&format!("layer {layer} {name} bias"), &roles(LayerRole::Bias))?),
            false => None,
        };
        Ok(LinearIds { weight, bias })
    }

    fn layer(&mut self, layer: u32) -> Result<LayerIds, LoadError> {
        let norm = |role| [TensorRole::Layer(layer, role)];
        let head_norms = match self.checkpoint.config().has_head_norms() {
            true => {
                let roles = [LayerRole::QNorm, LayerRole::KNorm].map(|role| TensorRole::Layer(layer, role));
                Some(self.vector(&format!("layer {layer} head norms"), &roles)?)
            }
            false => None,
        };
        Ok(LayerIds {
            attention_norm: self.vector(&format!("layer {layer} attention norm"), &norm(LayerRole::AttentionNorm))?,
            qkv: self.linear(layer, "qkv", &[Linear::Q, Linear::K, Linear::V])?,
            head_norms,
            attention_output: self.linear(layer, "attention output", &[Linear::AttentionOutput])?,
            mlp_norm: self.vector(&format!("layer {layer} mlp norm"), &norm(LayerRole::MlpNorm))?,
            gate_up: self.linear(layer, "gate and up", &[Linear::Gate, Linear::Up])?,
            down: self.linear(layer, "down", &[Linear::Down])?,
        })
    }
}

/// The activations of the program, by their index in [`activations`].
mod act {
    use super::ActId;

    pub(super) const HIDDEN: ActId = ActId(0);
    pub(super) const NORMED: ActId = ActId(1);
    pub(super) const QKV: ActId = ActId(2);
    pub(super) const Q: ActId = ActId(3);
    pub(super) const ATTENTION: ActId = ActId(4);
    pub(super) const GATE_UP: ActId = ActId(5);
    pub(super) const MLP: ActId = ActId(6);
    pub(super) const LAST: ActId = ActId(7);
    pub(super) const LAST_NORMED: ActId = ActId(8);
    pub(super) const LOGITS: ActId = ActId(9);
}

fn activations(config: &ModelConfig) -> Vec<Activation> {
    let tokens = |name, cols| Activation { name, rows: Rows::Tokens, cols };
    let logits = |name, cols| Activation { name, rows: Rows::Logits, cols };
    vec![
        tokens("hidden", config.hidden_size),
        tokens("normed", config.hidden_size),
        tokens("qkv", config.q_size() + 2 * config.kv_size()),
        tokens("q", config.q_size()),
        tokens("attention", config.q_size()),
        tokens("gate_up", 2 * config.intermediate_size),
        tokens("mlp", config.intermediate_size),
        logits("last", config.hidden_size),
        logits("last_normed", config.hidden_size),
        logits("logits", config.vocab_size),
    ]
}

/// Every op reads and writes different activations, as WebGPU's binding rules ask.
fn program(config: &ModelConfig, weights: &Weights, max_positions: u32) -> Program {
    use act::{ATTENTION, GATE_UP, HIDDEN, LAST, LAST_NORMED, LOGITS, MLP, NORMED, Q, QKV};
    let eps = config.rms_norm_eps;
    let linear = |x, map: LinearIds, out| Op::MatMul { x, weight: map.weight, bias: map.bias, out, accumulate: false };
    let residual = |x, map: LinearIds, out| Op::MatMul { x, weight: map.weight, bias: map.bias, out, accumulate: true };
    let mut ops = vec![Op::Embed { table: weights.embedding, out: HIDDEN }];
    for (layer, ids) in (0..).zip(&weights.layers) {
        ops.extend([
            Op::RmsNorm { x: HIDDEN, weight: ids.attention_norm, eps, out: NORMED },
            linear(NORMED, ids.qkv, QKV),
            Op::RopeAndCache {
                layer,
                qkv: QKV,
                q: Q,
                pairing: config.rope_pairing,
                norm: ids.head_norms.map(|weight| HeadNorm { weight, eps }),
            },
            Op::PagedAttention { layer, q: Q, out: ATTENTION },
            residual(ATTENTION, ids.attention_output, HIDDEN),
            Op::RmsNorm { x: HIDDEN, weight: ids.mlp_norm, eps, out: NORMED },
            linear(NORMED, ids.gate_up, GATE_UP),
            Op::SiluMul { gate_up: GATE_UP, out: MLP },
            residual(MLP, ids.down, HIDDEN),
        ]);
    }
    ops.extend([
        Op::SelectLogitsRows { x: HIDDEN, out: LAST },
        Op::RmsNorm { x: LAST, weight: weights.output_norm, eps, out: LAST_NORMED },
        linear(LAST_NORMED, LinearIds { weight: weights.output_head, bias: None }, LOGITS),
    ]);
    let positions = max_positions.min(config.max_position_embeddings);
    Program {
        activations: activations(config),
        ops,
        attention: config.attention_shape(),
        rope: rope_table(&config.rope, config.head_dim, positions),
        logits: Some(LOGITS),
    }
}
