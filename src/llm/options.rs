//! How a model is loaded and run.

use super::{LlmError, PreemptionMode, SpeculativeConfig};
#[cfg(feature = "webgpu")]
use crate::backend::webgpu::{Autotune, Variant};
#[cfg(any(feature = "webgpu", feature = "cuda"))]
use crate::backend::{BackendKind, DeviceChoice, KernelVariant};
use crate::backend::{KvDtype, WeightFormat};
use crate::engine::{DraftConfig, Policy};
use crate::model::rope::rope_table_bytes;
use crate::model::{Checkpoint, Dtype, LoadError, LoadFormat, ModelConfig};
use crate::text::{ChatTemplate, TextError, Tokenizer};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of the table of RoPE's angles, at most: that of the longest model so far, 10 million tokens, has 5 GB.
const MAX_ROPE_BYTES: u64 = 8 << 30;

/// How a model is loaded and run; the names are vLLM's.
#[derive(Debug, Clone)]
pub struct LlmOptions {
    /// GGUF file, Hugging Face folder, or `config.json` with dummy weights.
    pub model: PathBuf,
    /// What `model` is.
    pub load_format: LoadFormat,
    /// Element type of matrices that are not quantised.
    pub dtype: Dtype,
    /// Folder with `tokenizer.json`, instead of the model's own tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// File with a Jinja chat template, instead of the model's own.
    pub chat_template: Option<PathBuf>,
    /// Variables of the chat template, for requests that do not give them.
    pub chat_template_variables: serde_json::Map<String, serde_json::Value>,
    /// Backend.
    #[cfg(any(feature = "webgpu", feature = "cuda"))]
    pub backend: BackendKind,
    /// Device: an index, or a part of its name. `None` for the best.
    pub device: Option<String>,
    /// Kernel variant; `None` for the one that suits the device best.
    #[cfg(feature = "webgpu")]
    pub variant: Option<Variant>,
    /// Whether kernels are timed before the model starts.
    #[cfg(feature = "webgpu")]
    pub autotune: Autotune,
    /// Element type of the KV pool.
    pub kv_cache_dtype: KvDtype,
    /// Longest sequence in tokens, prompt and completion; `None` for the model's.
    pub max_model_len: Option<u32>,
    /// Sequences that run at the same time, at most.
    pub max_num_seqs: u32,
    /// Tokens computed in one step, at most.
    pub max_num_batched_tokens: u32,
    /// Tokens of one sequence computed in one step, at most; 0 for no such limit.
    pub long_prefill_token_threshold: u32,
    /// Blocks of the KV pool, whatever the memory.
    pub num_gpu_blocks_override: Option<u32>,
    /// Bytes of the KV pool.
    pub kv_cache_memory_bytes: Option<u64>,
    /// Share of the device's memory that weights, activations and KV pool may take together, in (0, 1].
    pub gpu_memory_utilization: f64,
    /// Bytes of host memory for the blocks of preempted requests.
    pub swap_space_bytes: u64,
    /// What becomes of the blocks of a preempted request.
    pub preemption_mode: PreemptionMode,
    /// Whether a request's logits are the same to the bit alone and in any batch, in any chunks, after any preemption or
    /// prefix hit; slower.
    pub batch_invariant: bool,
    /// Whether products of weights in Q8_0, Q4_0 and Q4_1 with few rows round activations to int8, which is less exact.
    /// On WebGPU only; refused for other weights, by the kernels for software adapters, and with `batch_invariant`.
    pub quantize_activations: bool,
    /// Whether the attention reads blocks that several sequences begin with, or a token and its drafts, once for each of them,
    /// instead of together.
    pub disable_cascade_attn: bool,
    /// Whether a step is scheduled and submitted before the tokens of the one before it are known, where no request needs
    /// the host in between; `None` for on devices that compute beside the host. The tokens are the same.
    pub async_scheduling: Option<bool>,
    /// Whether tokens are drafted, so that several of a sequence are found in one step.
    pub speculative: Option<SpeculativeConfig>,
    /// Whether full blocks are shared among requests with the same prefix.
    pub enable_prefix_caching: bool,
    /// In which order requests are served.
    pub policy: Policy,
    /// Most logprobs that a request may ask for.
    pub max_logprobs: u32,
    /// Seed of requests that have none: the first gets this, the next one more.
    pub seed: u64,
    /// Whether the times of every kernel and of the host are kept, see [`Llm::profile`](super::Llm::profile); slower.
    pub profile: bool,
}

impl LlmOptions {
    /// The defaults for a model.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            load_format: LoadFormat::Auto,
            dtype: Dtype::Auto,
            tokenizer: None,
            chat_template: None,
            chat_template_variables: serde_json::Map::new(),
            #[cfg(any(feature = "webgpu", feature = "cuda"))]
            backend: BackendKind::default(),
            device: None,
            #[cfg(feature = "webgpu")]
            variant: None,
            #[cfg(feature = "webgpu")]
            autotune: Autotune::Auto,
            kv_cache_dtype: KvDtype::F16,
            max_model_len: None,
            max_num_seqs: 64,
            max_num_batched_tokens: 512,
            long_prefill_token_threshold: 0,
            num_gpu_blocks_override: None,
            kv_cache_memory_bytes: None,
            gpu_memory_utilization: 0.92,
            swap_space_bytes: 4 << 30,
            preemption_mode: PreemptionMode::Auto,
            batch_invariant: false,
            quantize_activations: false,
            disable_cascade_attn: false,
            async_scheduling: None,
            speculative: None,
            enable_prefix_caching: true,
            policy: Policy::Fcfs,
            max_logprobs: 20,
            seed: 0,
            profile: false,
        }
    }

    /// Opens the checkpoint that these options name, for [`Llm::with_backend`](super::Llm::with_backend).
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_checkpoint(&self) -> Result<Checkpoint, LoadError> {
        Ok(Checkpoint::open(&self.model, self.load_format)?.with_dtype(self.dtype))
    }

    /// The device that these options name.
    #[cfg(any(feature = "webgpu", feature = "cuda"))]
    pub fn device_choice(&self) -> DeviceChoice<'_> {
        DeviceChoice {
            backend: self.backend,
            device: self.device.as_deref(),
            variant: self.variant.map(KernelVariant::WebGpu),
        }
    }

    /// Checks what can be checked without the model. Returns how many drafts there are.
    pub(super) fn validate(&self) -> Result<Option<DraftConfig>, LlmError> {
        let refuse =
            |option, value: String, allowed: &str| Err(LlmError::Option { option, value, allowed: allowed.to_owned() });
        if self.max_num_seqs == 0 || self.max_num_seqs > 65_535 {
            return refuse("--max-num-seqs", self.max_num_seqs.to_string(), "must be 1 to 65535");
        }
        if self.max_num_batched_tokens == 0 || self.max_num_batched_tokens > 65_535 {
            return refuse("--max-num-batched-tokens", self.max_num_batched_tokens.to_string(), "must be 1 to 65535");
        }
        if self.num_gpu_blocks_override == Some(0) {
            return refuse("--num-gpu-blocks-override", "0".into(), "must be at least 1");
        }
        if !(self.gpu_memory_utilization > 0.0 && self.gpu_memory_utilization <= 1.0) {
            let value = self.gpu_memory_utilization.to_string();
            return refuse("--gpu-memory-utilization", value, "must be above 0 and at most 1");
        }
        self.speculative.map(|speculative| speculative.drafts(self.max_num_seqs)).transpose()
    }

    /// Whether activations can be rounded to int8, if they are to be.
    pub(super) fn check_quantize_activations(&self, matrices: WeightFormat) -> Result<(), LlmError> {
        match self.quantize_activations && !matrices.is_quantised() {
            true => Err(LlmError::Option {
                option: "--quantize-activations",
                value: format!("with weights in {}", matrices.name()),
                allowed: "only products of weights in q8_0, q4_0 or q4_1 take activations in int8".to_owned(),
            }),
            false => Ok(()),
        }
    }

    pub(super) fn max_model_len(&self, config: &ModelConfig) -> Result<u32, LlmError> {
        let longest = config.max_position_embeddings;
        let len = self.max_model_len.unwrap_or(longest);
        let refuse =
            |allowed: String| Err(LlmError::Option { option: "--max-model-len", value: len.to_string(), allowed });
        if !(2..=longest).contains(&len) {
            return refuse(format!("must be 2 to {longest}, the model's context length"));
        }
        let most = MAX_ROPE_BYTES / rope_table_bytes(config.head_dim, 1);
        match u64::from(len) <= most {
            true => Ok(len),
            false => refuse(format!("must be at most {most}: the table of RoPE's angles would take too much memory")),
        }
    }

    pub(super) fn tokenizer(&self, checkpoint: &Checkpoint) -> Result<Arc<Tokenizer>, TextError> {
        let tokenizer = match &self.tokenizer {
            Some(folder) => Tokenizer::from_dir(folder)?,
            None => Tokenizer::from_source(checkpoint.tokenizer_source())?,
        };
        Ok(Arc::new(tokenizer))
    }

    pub(super) fn chat_template(&self, checkpoint: &Checkpoint) -> Result<ChatTemplate, TextError> {
        let template = match &self.chat_template {
            None => ChatTemplate::from_source(checkpoint.tokenizer_source())?,
            Some(path) => {
                let source =
                    std::fs::read_to_string(path).map_err(|source| TextError::Read { path: path.clone(), source })?;
                ChatTemplate::new(&source)?
            }
        };
        template.with_variables(self.chat_template_variables.clone())
    }
}
