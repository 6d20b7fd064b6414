//! The step loop and the embedding API.
//!
//! [`Llm`] owns the model, the scheduler and the text side of every running request. [`Llm::step`] is the whole engine in
//! three calls: schedule, forward, update. [`Llm::generate`] drives it to the end for a list of prompts:
//!
//! ```
//! use bindery::llm::{Llm, LlmOptions};
//! use bindery::sampling::SamplingParams;
//!
//! let mut options = LlmOptions::new("models/SmolLM2-135M-Instruct.Q4_1.gguf");
//! options.max_model_len = Some(256);
//! let mut llm = Llm::load(&options, &mut |_| {})?;
//! let mut prompts = Vec::new();
//! for text in ["The capital of France is", "Rust is"] {
//!     prompts.push((llm.tokenizer()?.encode(text, true)?, SamplingParams::greedy(16)));
//! }
//! for output in llm.generate(prompts)? {
//!     println!("{}", output.completions[0].text);
//! }
//! # Ok::<(), bindery::llm::LlmError>(())
//! ```

mod beam;
#[cfg(any(feature = "webgpu", feature = "cuda"))]
mod device;
mod error;
mod event;
mod memory;
mod options;
mod output;
mod perplexity;
mod preemption;
mod profile;
mod request;
mod speculative;
mod step;

#[cfg(any(feature = "webgpu", feature = "cuda"))]
pub use device::ChosenDevice;
pub use error::LlmError;
pub use event::{Event, Finish, FinishCause, TokenUpdate};
pub use memory::KvMemory;
pub use options::LlmOptions;
pub use output::{Completion, RequestOutput};
pub use perplexity::Perplexity;
pub use preemption::PreemptionMode;
pub use profile::{HostTimes, KernelTimes, Profile};
pub use speculative::{SpeculativeConfig, SpeculativeMethod};

use crate::backend::{Backend, StepLimits};
use crate::engine::{BlockEvent, Request, RequestId, RequestParams, Scheduler, SchedulerConfig, Stats, TokenId};
use crate::model::{Checkpoint, GenerationConfig, Llama, LoadFormat, LoadProgress, ModelConfig, ModelRunner};
use crate::sampling::{DrawList, ParamCaps, Sampler, SamplingParams};
use crate::structured::{Grammar, GrammarCompiler};
use crate::text::{ChatTemplate, TextError, Tokenizer};
use beam::Beams;
use preemption::CostMeter;
use request::ActiveRequest;
use std::collections::BTreeMap;
use std::sync::Arc;
use step::StepMemory;

/// A loaded model and everything that is being generated with it.
pub struct Llm {
    runner: ModelRunner,
    scheduler: Scheduler,
    sampler: Sampler,
    /// A dummy model has no tokenizer: then only token ids go in and out.
    tokenizer: Result<Arc<Tokenizer>, TextError>,
    chat_template: Result<Arc<ChatTemplate>, TextError>,
    compiler: Arc<GrammarCompiler>,
    active: BTreeMap<RequestId, ActiveRequest>,
    /// `None` during a step.
    memory: Option<StepMemory>,
    /// Whether a step is begun before the tokens of the one before it are known.
    schedules_ahead: bool,
    times: HostTimes,
    kv_memory: KvMemory,
    /// Measures what preemption costs, unless its mode is given.
    costs: Option<CostMeter>,
    /// Kept when [`LlmOptions::profile`] asks for it.
    profile: Option<Profile>,
    max_logprobs: u32,
    eos_token_ids: Vec<TokenId>,
    next_request: u64,
    next_seed: u64,
}

/// What a request brings besides prompt and sampling parameters.
#[derive(Debug, Default)]
pub struct RequestOptions {
    /// Lower is served first, under [`crate::engine::Policy::Priority`].
    pub priority: i32,
    /// Prefixes are shared only among requests of one salt.
    pub cache_salt: Option<Vec<u8>>,
    /// [`SamplingParams::structured_outputs`], compiled already: it takes time that others would wait for.
    pub grammar: Option<Grammar>,
}

impl Llm {
    /// Opens the best device (or the one in `options`), loads the model onto it and allocates the KV pool.
    ///
    /// # Errors
    /// [`LlmError`] when there is no device, the checkpoint is not usable, or memory does not suffice.
    #[cfg(any(feature = "webgpu", feature = "cuda"))]
    pub fn load(options: &LlmOptions, progress: &mut dyn FnMut(LoadProgress<'_>)) -> Result<Self, LlmError> {
        // The checkpoint first: what is wrong with it shows before any device is touched.
        let checkpoint = options.open_checkpoint()?;
        let chosen = options.open_device(&checkpoint)?;
        Self::with_backend(&checkpoint, chosen.device.backend(), options, progress)
    }

    /// Loads a checkpoint ([`LlmOptions::open_checkpoint`]) onto a given backend.
    ///
    /// # Errors
    /// As [`Llm::load`].
    pub fn with_backend(
        checkpoint: &Checkpoint,
        mut backend: Box<dyn Backend>,
        options: &LlmOptions,
        progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Self, LlmError> {
        let drafts = options.validate()?;
        let config = checkpoint.config().clone();
        let tokenizer = options.tokenizer(checkpoint);
        if let (Err(_), false) = (&tokenizer, matches!(options.load_format, LoadFormat::Dummy(_))) {
            return Err(tokenizer.expect_err("just seen").into());
        }
        // A model without a usable template still completes texts; what the operator asks for must be there.
        let is_asked_for = options.chat_template.is_some() || !options.chat_template_variables.is_empty();
        let chat_template = match options.chat_template(checkpoint) {
            Err(error) if is_asked_for => return Err(error.into()),
            found => found.map(Arc::new),
        };
        let max_model_len = options.max_model_len(&config)?;
        options.check_quantize_activations(checkpoint.matrix_format())?;

        let loaded = Llama::load(checkpoint, &mut *backend, max_model_len, progress)?;
        let limits = options.step_limits(max_model_len, drafts.map_or(0, |drafts| drafts.max_rows()));
        let layout = memory::plan(&config, &*backend, options, max_model_len, &loaded.program, &limits)?;
        let kv_memory = KvMemory::new(&layout, max_model_len, memory::size_option(options, &backend.memory()));
        backend.prepare(loaded.program, layout, limits)?;
        let profile = match options.profile {
            true => Some(Profile::new(backend.start_profiling()?)),
            false => None,
        };

        let num_host_blocks = memory::num_host_blocks(&layout, options, max_model_len);
        let scheduler_config = SchedulerConfig {
            num_blocks: layout.num_blocks,
            num_host_blocks,
            block_size: layout.block_size,
            max_num_seqs: limits.max_seqs,
            max_num_batched_tokens: limits.max_tokens,
            max_model_len,
            max_num_logits_rows: limits.max_logits_rows,
            enable_prefix_caching: options.enable_prefix_caching,
            long_prefill_token_threshold: options.long_prefill_token_threshold,
            policy: options.policy,
            drafts,
        };
        let eos_token_ids = eos_token_ids(&config, tokenizer.as_deref().ok());
        let (vocab_size, most_adjustments) = (config.vocab_size, limits.max_adjustments / limits.max_draws);
        let draws = || DrawList::new(eos_token_ids.clone(), vocab_size, most_adjustments);
        let memory = Some(StepMemory::new(draws));
        // Times are those of a step alone.
        let schedules_ahead =
            !options.profile && options.async_scheduling.unwrap_or_else(|| backend.runs_beside_the_host());
        let identity = checkpoint.identity();
        let mut runner = ModelRunner::new(backend, config, identity);
        runner.reserve_host_blocks(num_host_blocks);
        Ok(Self {
            runner,
            scheduler: Scheduler::new(scheduler_config, &identity),
            sampler: Sampler::new(eos_token_ids.clone()),
            compiler: Arc::new(GrammarCompiler::new(tokenizer.as_ref().ok().cloned(), eos_token_ids.clone())),
            tokenizer,
            chat_template,
            active: BTreeMap::new(),
            memory,
            schedules_ahead,
            times: HostTimes::default(),
            kv_memory,
            costs: (options.preemption_mode == PreemptionMode::Auto && num_host_blocks > 0).then(CostMeter::default),
            profile,
            max_logprobs: options.max_logprobs,
            eos_token_ids,
            next_request: 0,
            next_seed: options.seed,
        })
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// When it has none, as a dummy model may.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, LlmError> {
        self.tokenizer.as_ref().map_err(|error| LlmError::NoTokenizer(error.to_string()))
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// When the model has none, or it is not valid.
    pub fn chat_template(&self) -> Result<&Arc<ChatTemplate>, LlmError> {
        self.chat_template.as_ref().map_err(|error| LlmError::ChatTemplate(error.to_string()))
    }

    /// What compiles grammars for this model, on any thread.
    pub fn grammar_compiler(&self) -> &Arc<GrammarCompiler> {
        &self.compiler
    }

    /// Sizes and constants of the model.
    pub fn model_config(&self) -> &ModelConfig {
        self.runner.config()
    }

    /// The sampling parameters of a request that leaves them out: OpenAI's defaults, but for what `generation` says.
    ///
    /// # Errors
    /// [`LlmError::Param`] when one is out of its range.
    pub fn default_params(&self, generation: &GenerationConfig) -> Result<SamplingParams, LlmError> {
        let params = generation.params();
        params.validate(self.model_config().vocab_size as usize, &ParamCaps::default())?;
        Ok(params)
    }

    /// One line that names backend, adapter and driver.
    pub fn device_description(&self) -> String {
        self.runner.backend().description()
    }

    /// Bytes allocated on the device: weights, activations, KV pool.
    pub fn device_bytes(&self) -> u64 {
        self.runner.backend().allocated_bytes()
    }

    /// Size of the KV pool.
    pub fn kv_memory(&self) -> KvMemory {
        self.kv_memory
    }

    /// Longest sequence, prompt and completion, in tokens.
    pub fn max_model_len(&self) -> u32 {
        self.scheduler.config().max_model_len
    }

    /// Where the host's time in the last [`Llm::step`] went.
    pub fn step_times(&self) -> HostTimes {
        self.times
    }

    /// The scheduler's counters.
    pub fn stats(&self) -> Stats {
        self.scheduler.stats()
    }

    /// The scheduler, for reading.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Forgets all cached prefixes; `false`, and nothing is done, while any block is in use.
    pub fn reset_prefix_cache(&mut self) -> bool {
        self.scheduler.reset_prefix_cache()
    }

    /// Records what the prefix cache gains and loses from now on, see [`Llm::take_block_events`].
    pub fn record_block_events(&mut self) {
        self.scheduler.record_block_events();
    }

    /// Moves the [`BlockEvent`]s since the last call to the end of `events`.
    pub fn take_block_events(&mut self, events: &mut Vec<BlockEvent>) {
        self.scheduler.take_block_events(events);
    }

    /// Where the time went so far, if [`LlmOptions::profile`] asked for it.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Forgets the times so far.
    pub fn reset_profile(&mut self) {
        self.profile = self.profile.as_ref().map(|profile| Profile::new(profile.clock));
    }

    /// Takes a request in; tokens come from [`Llm::step`].
    ///
    /// # Errors
    /// [`LlmError::Param`] or [`LlmError::Request`] when it asks for what can never be: nothing has been changed then.
    pub fn add(&mut self, prompt_token_ids: Vec<TokenId>, params: SamplingParams) -> Result<RequestId, LlmError> {
        self.add_with(prompt_token_ids, params, RequestOptions::default())
    }

    /// [`Llm::add`] with what a server knows besides.
    ///
    /// # Errors
    /// As [`Llm::add`].
    pub fn add_with(
        &mut self,
        prompt_token_ids: Vec<TokenId>,
        params: SamplingParams,
        options: RequestOptions,
    ) -> Result<RequestId, LlmError> {
        let RequestOptions { priority, cache_salt, grammar } = options;
        let vocab_size = self.runner.config().vocab_size;
        let caps = ParamCaps { max_logprobs: self.max_logprobs, ..ParamCaps::default() };
        params.validate(vocab_size as usize, &caps)?;
        if let Some(&token) = prompt_token_ids.iter().find(|&&token| token >= vocab_size) {
            return Err(LlmError::UnknownToken { token, vocab_size });
        }
        let id = RequestId(self.next_request);
        let mut stop_token_ids = params.stop_token_ids.clone();
        if !params.ignore_eos {
            stop_token_ids.extend(&self.eos_token_ids);
        }
        // The beams of a beam search are ended by the search, and by nobody else.
        let beam_width = params.beam_width();
        if beam_width.is_some() {
            stop_token_ids.sort_unstable();
            stop_token_ids.dedup();
            beam::check_candidates(&params, stop_token_ids.len(), vocab_size)?;
        }
        let beam_stop_token_ids = if beam_width.is_some() { std::mem::take(&mut stop_token_ids) } else { Vec::new() };
        let request_params = RequestParams {
            max_tokens: params.max_tokens,
            min_tokens: params.min_tokens,
            stop_token_ids,
            num_samples: if beam_width.is_some() { 1 } else { params.num_sequences() },
            max_sequences: beam_width.unwrap_or(0),
            prompt_logits: params.prompt_logprobs.is_some(),
            // To the scheduler a search with one beam is like any request.
            drafts: beam_width.is_none() && !params.has_penalties(),
            priority,
            cache_salt,
            ..RequestParams::default()
        };
        let limits = self.scheduler.config().limits();
        let request = Request::new(id, prompt_token_ids, request_params, &limits)?;
        let grammar = match &params.structured_outputs {
            Some(spec) => Some(grammar.map_or_else(|| self.compiler.compile(spec), Ok)?),
            None => None,
        };
        // Without a seed of its own a request gets the next of the engine's, so that a whole run can be repeated.
        let seed = params.seed.unwrap_or(self.next_seed);
        let beams = beam_width.map(|_| Beams::new(&params, request.max_tokens(), beam_stop_token_ids, vocab_size));
        let tokenizer = self.tokenizer.as_ref().ok();
        self.active.insert(id, ActiveRequest::new(request.prompt_token_ids(), params, seed, tokenizer, beams, grammar));
        self.scheduler.add(request);
        self.next_seed = self.next_seed.wrapping_add(1);
        self.next_request += 1;
        Ok(id)
    }

    /// Ends a request without further events; its blocks return at once, or when the step in flight is done. `false` if
    /// there is none of this id.
    pub fn abort(&mut self, id: RequestId) -> bool {
        self.active.remove(&id);
        self.scheduler.abort(id)
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Generates for all prompts together, in one continuous batch; results are in the order of the prompts.
    ///
    /// # Errors
    /// The first request that is refused (none is run then), or the device's failure.
    pub fn generate(&mut self, prompts: Vec<(Vec<TokenId>, SamplingParams)>) -> Result<Vec<RequestOutput>, LlmError> {
        let mut outputs: BTreeMap<RequestId, RequestOutput> = BTreeMap::new();
        for (prompt, params) in prompts {
            match self.add(prompt.clone(), params.clone()) {
                Ok(id) => {
                    outputs.insert(id, RequestOutput::new(id, prompt, &params));
                }
                Err(error) => {
                    for &id in outputs.keys() {
                        self.abort(id);
                    }
                    return Err(error);
                }
            }
        }
        let mut events = Vec::new();
        while !self.is_idle() {
            self.step(&mut events)?;
            for event in events.drain(..) {
                if let Some(output) = outputs.get_mut(&event.request()) {
                    output.push(event);
                }
            }
        }
        Ok(outputs.into_values().collect())
    }
}

/// Tokens that a draw may adjust, at most, as long as there are few draws; more are sampled on the host.
const MOST_ADJUSTMENTS_PER_DRAW: u32 = 4096;
/// The same for all draws of a step together (16 bytes each).
const MOST_ADJUSTMENTS: u32 = 1 << 20;

fn eos_token_ids(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Vec<TokenId> {
    let mut ids = config.eos_token_ids.clone();
    ids.extend(tokenizer.map_or(&[][..], Tokenizer::eos));
    ids.sort_unstable();
    ids.dedup();
    ids
}

impl LlmOptions {
    /// `draft_rows` are logits rows, and draws, beside those of the sequences.
    fn step_limits(&self, max_model_len: u32, draft_rows: u32) -> StepLimits {
        let rows = self.max_num_seqs.saturating_add(draft_rows);
        StepLimits {
            max_tokens: self.max_num_batched_tokens,
            max_seqs: self.max_num_seqs,
            max_logits_rows: rows,
            max_block_table_entries: self
                .max_num_seqs
                .saturating_mul(max_model_len.div_ceil(crate::engine::DEFAULT_BLOCK_SIZE)),
            max_block_copies: self.max_num_seqs,
            max_draws: rows,
            max_adjustments: rows.saturating_mul(MOST_ADJUSTMENTS_PER_DRAW).min(MOST_ADJUSTMENTS),
            batch_invariant: self.batch_invariant,
            quantize_activations: self.quantize_activations,
            cascade_attention: !self.disable_cascade_attn,
        }
    }
}
