//! A loaded model, ready to be measured.

use super::super::load::{UploadBar, bar, open_device};
use super::super::notices::Notices;
use super::args::CommonArgs;
use super::json_file::JsonFile;
use super::measure::{Iteration, run_iteration};
use anyhow::{Result, bail};
use bindery::backend::DevicePeaks;
use bindery::backend::kernel_cases::SplitMix64;
use bindery::engine::TokenId;
use bindery::llm::{Llm, LlmOptions};
use bindery::model::Checkpoint;

/// Loads the model; with it, what the device reaches at best.
pub(super) fn open_model(options: &LlmOptions) -> Result<(Llm, DevicePeaks, Checkpoint)> {
    let checkpoint = options.open_checkpoint()?;
    let device = open_device(options, &checkpoint, Notices::Lines)?;
    // Before the model takes the memory that the copies need.
    let peaks = device.measure_peaks()?;
    let upload = UploadBar::new();
    let llm = Llm::with_backend(&checkpoint, device.backend(), options, &mut |progress| upload.show(progress));
    upload.0.finish_and_clear();
    Ok((llm?, peaks, checkpoint))
}

/// A loaded model and what it is measured against.
pub(super) struct Bench {
    pub(super) llm: Llm,
    pub(super) options: LlmOptions,
    /// Requests of one iteration.
    pub(super) requests: u32,
    pub(super) input_len: u32,
    pub(super) output_len: u32,
    pub(super) num_iters: u32,
    pub(super) num_iters_warmup: u32,
    pub(super) weight_bytes: u64,
    pub(super) weight_bytes_per_step: u64,
    pub(super) peaks: DevicePeaks,
    pub(super) json: JsonFile,
}

impl Bench {
    pub(super) fn open(args: &CommonArgs, options: LlmOptions, requests: u32) -> Result<Self> {
        let &CommonArgs { input_len, output_len, num_iters, num_iters_warmup, .. } = args;
        if input_len == 0 || output_len == 0 {
            bail!("--input-len and --output-len must be at least 1");
        }
        let json = JsonFile::create(args.output_json.as_deref())?;
        let (llm, peaks, checkpoint) = open_model(&options)?;
        if u64::from(input_len) + u64::from(output_len) > u64::from(llm.max_model_len()) {
            bail!(
                "--input-len {input_len} and --output-len {output_len}: together more than the longest sequence, {} \
                 tokens",
                llm.max_model_len()
            );
        }
        Ok(Self {
            weight_bytes: checkpoint.weight_bytes(),
            weight_bytes_per_step: checkpoint.weight_bytes_per_step(),
            llm,
            options,
            requests,
            input_len,
            output_len,
            num_iters,
            num_iters_warmup,
            peaks,
            json,
        })
    }

    /// All iterations that count.
    pub(super) fn iterate(&mut self) -> Result<Vec<Iteration>> {
        let tokens = u64::from(self.requests) * u64::from(self.output_len);
        let total = self.num_iters_warmup + self.num_iters;
        let progress = bar(tokens * u64::from(total), "[{bar:40}] {msg} {pos}/{len} tokens {elapsed}");
        let mut iterations = Vec::new();
        for index in 0..total {
            let counts = index >= self.num_iters_warmup;
            if index == self.num_iters_warmup {
                self.llm.reset_profile();
            }
            progress.set_message(if counts { "measuring" } else { "warming up" });
            let prompts = self.prompts(index);
            let before = tokens * u64::from(index);
            let on_step = &mut |done| progress.set_position(before + done);
            let iteration = run_iteration(&mut self.llm, prompts, self.output_len, on_step)?;
            if counts {
                iterations.push(iteration);
            }
        }
        progress.finish_and_clear();
        Ok(iterations)
    }

    /// Random prompts: other ones in each iteration, the same in each run of the same seed.
    fn prompts(&self, iteration: u32) -> Vec<Vec<TokenId>> {
        let mut random = SplitMix64::from_name(&format!("bench {} {iteration}", self.options.seed));
        let vocab_size = self.llm.model_config().vocab_size;
        let mut prompt = || (0..self.input_len).map(|_| random.below(vocab_size)).collect();
        (0..self.requests).map(|_| prompt()).collect()
    }
}
