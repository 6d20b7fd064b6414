//! Flags about the model, the device and the engine, with vLLM's names.

use super::units::{at_least, gibibytes, human_count, human_number};
use anyhow::{Result, bail};
use bindery::backend::webgpu::{Autotune, Variant};
use bindery::backend::{BackendKind, KvDtype};
use bindery::engine::{DEFAULT_BLOCK_SIZE, Policy};
use bindery::llm::{LlmOptions, PreemptionMode, SpeculativeConfig};
use bindery::model::{Dtype, LoadFormat};
use clap::{ArgAction, Args, ValueEnum};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The model that runs when none is named, in a checkout.
const DEFAULT_MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
/// The environment variable that names the model where no flag does.
const MODEL_VARIABLE: &str = "BINDERY_MODEL";

fn defaults() -> LlmOptions {
    LlmOptions::new("")
}

/// Which model on which device, and how much of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model and engine")]
pub(super) struct EngineArgs {
    /// GGUF file, Hugging Face folder, or (with `--load-format dummy`) config.json
    /// [default: $BINDERY_MODEL, or models/SmolLM2-135M-Instruct.Q4_1.gguf]
    #[arg(long, short = 'm', value_name = "PATH")]
    model: Option<PathBuf>,

    /// What PATH is: auto, gguf, safetensors, or dummy (weights made up from a config.json, for benchmarks, in f16;
    /// dummy:q4_0 and so on in other formats)
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    load_format: LoadFormat,

    /// Element type of weights that are not quantised; auto is the file's
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    dtype: WeightDtype,

    /// Folder with a tokenizer.json, instead of the model's own tokenizer
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    /// File with a Jinja chat template, instead of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,

    /// Variables of the chat template as a JSON object, such as '{"enable_thinking": false}', for requests without
    /// `chat_template_kwargs` that say otherwise
    #[arg(long, value_name = "JSON", visible_alias = "chat-template-kwargs", value_parser = json_object)]
    default_chat_template_kwargs: Option<Map<String, Value>>,

    /// Which backend: webgpu, cuda (in builds with the feature cuda), or auto (CUDA where there is a device for it)
    /// [default: webgpu]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<BackendKind>,

    /// Which of its devices: index or part of the name, as `bindery devices` lists them [default: the fastest kind]
    #[arg(long, value_name = "INDEX|NAME")]
    device: Option<String>,

    /// WebGPU kernel variant: cpu, matrix, subgroup or plain [default: the one that suits the adapter, or that was the fastest]
    #[arg(long, value_name = "VARIANT")]
    variant: Option<Variant>,

    /// Take the default kernels: neither time and compare them at the model's first start on a GPU nor use what was found then
    #[arg(long)]
    no_autotune: bool,

    /// Time the kernels now, on any adapter, and keep what is found
    #[arg(long, conflicts_with = "no_autotune")]
    retune: bool,

    /// Longest sequence, prompt and completion, in tokens [default: the model's context length]
    #[arg(long, value_name = "TOKENS", value_parser = human_count)]
    max_model_len: Option<u32>,

    /// Sequences that run at the same time, at most
    #[arg(long, value_name = "N", default_value_t = defaults().max_num_seqs)]
    max_num_seqs: u32,

    /// Tokens computed in one step, at most: longer prompts are computed in chunks
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value_t = defaults().max_num_batched_tokens)]
    max_num_batched_tokens: u32,

    /// Tokens of one sequence computed in one step, at most; 0 for no such limit
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value_t = 0)]
    long_prefill_token_threshold: u32,

    /// Blocks of the KV pool, whatever the memory
    #[arg(long, value_name = "BLOCKS", value_parser = human_count)]
    num_gpu_blocks_override: Option<u32>,

    /// Bytes of the KV pool; suffixes k M G are powers of 1000, Ki Mi Gi of 1024
    #[arg(long, value_name = "BYTES", value_parser = human_number)]
    kv_cache_memory_bytes: Option<u64>,

    /// Share of the device's memory for weights, activations and KV pool together, in (0, 1]
    #[arg(long, value_name = "FRACTION", default_value_t = defaults().gpu_memory_utilization)]
    gpu_memory_utilization: f64,

    /// Host memory for the KV blocks of preempted requests, in GiB; 0 to compute them again. Taken as it is used
    #[arg(long, value_name = "GIB", value_parser = gibibytes, default_value = "4")]
    swap_space: u64,

    /// How preempted requests come back: by computing again, by swap to host memory, or (auto) whichever is faster
    #[arg(long, value_name = "MODE", default_value_t = PreemptionMode::Auto)]
    preemption_mode: PreemptionMode,

    /// Make a request's output the same to the bit alone and in any batch, in any chunks, after preemption or a prefix
    /// hit; slower on GPUs
    #[arg(long)]
    batch_invariant: bool,

    /// Round activations to int8 where weights in Q8_0, Q4_0 or Q4_1 are multiplied with up to 8 tokens, so that integers are
    /// multiplied: less exact. Refused for other weights, by CUDA, and by the kernels for software adapters
    #[arg(long, conflicts_with = "batch_invariant")]
    quantize_activations: bool,

    /// Read the blocks that several sequences begin with, or a token and its drafts, once for each of them (by default once for
    /// all)
    #[arg(long)]
    disable_cascade_attn: bool,

    /// Begin each step before the tokens of the one before it have come back, where the device can (by default on GPUs); the
    /// tokens are the same
    #[arg(long, overrides_with = "no_async_scheduling")]
    async_scheduling: bool,

    /// Begin a step when the one before it has ended
    #[arg(long)]
    no_async_scheduling: bool,

    /// Draft tokens by prompt lookup, so that several of a sequence may be found in one step: '{"method": "ngram"}', with
    /// num_speculative_tokens (7), prompt_lookup_min (3), prompt_lookup_max (5) and disable_by_batch_size (8) if need be.
    /// For answers that repeat what came before, and for structured output, where what must come next is drafted. The tokens
    /// are the same but for rounding; steps wait for each other; requests with penalties or beams have none
    #[arg(long, value_name = "JSON", value_parser = speculative_config)]
    speculative_config: Option<SpeculativeConfig>,

    /// Element type of the KV pool; auto is f16, int8 has a scale for each token and head and takes about half of it
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    kv_cache_dtype: KvCacheDtype,

    /// Tokens in a KV block: the kernels are written for 16
    #[arg(long, value_name = "TOKENS", default_value_t = DEFAULT_BLOCK_SIZE)]
    block_size: u32,

    /// Share full KV blocks among requests with the same prefix (this is the default)
    #[arg(long, overrides_with = "no_enable_prefix_caching")]
    enable_prefix_caching: bool,

    /// Compute every prompt from its first token
    #[arg(long, action = ArgAction::SetTrue)]
    no_enable_prefix_caching: bool,

    /// In which order requests are served: first come first served, or by their `priority` (lower first)
    #[arg(long, value_name = "POLICY", default_value = "fcfs")]
    scheduling_policy: SchedulingPolicy,

    /// Seed of requests that bring none of their own
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = at_least(0_u64))]
    seed: u64,

    /// Most logprobs that a request may ask for
    #[arg(long, value_name = "N", default_value_t = defaults().max_logprobs)]
    max_logprobs: u32,

    /// Take the device's time for every kernel, and the host's for the parts of a step; slows steps down
    #[arg(long)]
    profile: bool,
}

/// [`EngineArgs`] where the model may stand without its flag, as in `vllm serve MODEL`.
#[derive(Debug, Args)]
pub(super) struct EngineArgsAfterModel {
    /// The model, as --model names it
    #[arg(value_name = "MODEL", conflicts_with = "model", help_heading = None)]
    positional_model: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineArgs,
}

impl EngineArgsAfterModel {
    /// As [`EngineArgs::options`].
    pub(super) fn options(&self) -> Result<LlmOptions> {
        self.engine.options_for(self.positional_model.as_ref().or(self.engine.model.as_ref()))
    }
}

/// Element type of unquantised weights, by vLLM's names.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WeightDtype {
    Auto,
    #[value(alias = "half", alias = "f16")]
    Float16,
    #[value(alias = "bf16")]
    Bfloat16,
    #[value(alias = "float", alias = "f32")]
    Float32,
}

/// Element type of the KV pool, by vLLM's names.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum KvCacheDtype {
    Auto,
    #[value(alias = "float16", alias = "half")]
    F16,
    #[value(alias = "float32", alias = "float")]
    F32,
    #[value(alias = "int8_per_token_head")]
    Int8,
}

impl KvCacheDtype {
    pub(super) fn dtype(self) -> KvDtype {
        match self {
            Self::Auto | Self::F16 => KvDtype::F16,
            Self::F32 => KvDtype::F32,
            Self::Int8 => KvDtype::Int8,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchedulingPolicy {
    Fcfs,
    Priority,
}

impl EngineArgs {
    /// The options that the engine is loaded with.
    ///
    /// # Errors
    /// When no model is named and the default one is not there, or a flag has a value that cannot be.
    pub(super) fn options(&self) -> Result<LlmOptions> {
        self.options_for(self.model.as_ref())
    }

    /// Whether a flag names backend, device or variant.
    pub(super) fn names_device(&self) -> bool {
        self.backend.is_some() || self.device.is_some() || self.variant.is_some()
    }

    fn options_for(&self, named_model: Option<&PathBuf>) -> Result<LlmOptions> {
        if self.block_size != DEFAULT_BLOCK_SIZE {
            bail!(
                "--block-size {}: the kernels are written for blocks of {DEFAULT_BLOCK_SIZE} tokens",
                self.block_size
            );
        }
        Ok(LlmOptions {
            load_format: self.load_format,
            dtype: match self.dtype {
                WeightDtype::Auto => Dtype::Auto,
                WeightDtype::Float16 => Dtype::F16,
                WeightDtype::Bfloat16 => Dtype::Bf16,
                WeightDtype::Float32 => Dtype::F32,
            },
            tokenizer: self.tokenizer.clone(),
            chat_template: self.chat_template.clone(),
            chat_template_variables: self.default_chat_template_kwargs.clone().unwrap_or_default(),
            backend: self.backend.unwrap_or_default(),
            device: self.device.clone(),
            variant: self.variant,
            autotune: match (self.no_autotune, self.retune) {
                (true, _) => Autotune::Off,
                (_, true) => Autotune::Retune,
                _ => Autotune::Auto,
            },
            kv_cache_dtype: self.kv_cache_dtype.dtype(),
            max_model_len: self.max_model_len,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            long_prefill_token_threshold: self.long_prefill_token_threshold,
            num_gpu_blocks_override: self.num_gpu_blocks_override,
            kv_cache_memory_bytes: self.kv_cache_memory_bytes,
            gpu_memory_utilization: self.gpu_memory_utilization,
            swap_space_bytes: self.swap_space,
            preemption_mode: self.preemption_mode,
            batch_invariant: self.batch_invariant,
            quantize_activations: self.quantize_activations,
            disable_cascade_attn: self.disable_cascade_attn,
            async_scheduling: (self.async_scheduling || self.no_async_scheduling).then_some(self.async_scheduling),
            speculative: self.speculative_config,
            enable_prefix_caching: self.enable_prefix_caching || !self.no_enable_prefix_caching,
            policy: match self.scheduling_policy {
                SchedulingPolicy::Fcfs => Policy::Fcfs,
                SchedulingPolicy::Priority => Policy::Priority,
            },
            max_logprobs: self.max_logprobs,
            seed: self.seed,
            profile: self.profile,
            ..LlmOptions::new(model(named_model, self.load_format)?)
        })
    }
}

fn speculative_config(text: &str) -> Result<SpeculativeConfig, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("not a speculative configuration, as {{\"method\": \"ngram\"}}: {error}"))
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

/// The model that a flag names, else the environment, else the default one. Weights are made up from a configuration
/// only, which a GGUF file, such as the default one, is not.
fn model(named: Option<&PathBuf>, load_format: LoadFormat) -> Result<PathBuf> {
    let variable = || std::env::var_os(MODEL_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let is_dummy = matches!(load_format, LoadFormat::Dummy(_));
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let named = named.cloned().or_else(variable);
    if is_dummy && named.as_deref().is_none_or(is_gguf) {
        bail!("--load-format dummy needs a config.json: give its folder with --model");
    }
    match named {
        Some(path) => Ok(path),
        None if Path::new(DEFAULT_MODEL).exists() => Ok(DEFAULT_MODEL.into()),
        None => bail!(
            "no model: give one with --model FILE.gguf (or {MODEL_VARIABLE}); in a checkout, `cargo xtask model` \
             fetches the default one, {DEFAULT_MODEL}"
        ),
    }
}
