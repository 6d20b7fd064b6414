//! The whole engine on both targets: prefill, decode, both in the same steps.

use super::super::super::load::{UploadBar, bar};
use super::super::measure::{Iteration, run_iteration};
use super::super::target::OpenTarget;
use super::{CompareArgs, Comparison, Unit};
use anyhow::{Result, bail};
use bindery::backend::kernel_cases::SplitMix64;
use bindery::engine::TokenId;
use bindery::llm::{Llm, LlmOptions};
use bindery::model::Checkpoint;

/// Prompt tokens of what only decodes.
const SHORT_PROMPT: u32 = 16;
/// Requests of the mixed case.
const MIXED_REQUESTS: u32 = 8;

/// A workload and its figure.
struct Case {
    name: String,
    prompt_lens: Vec<u32>,
    output_len: u32,
    rate: fn(&Iteration) -> f64,
}

fn cases(args: &CompareArgs) -> Vec<Case> {
    let mut cases = vec![Case {
        name: format!("prefill, {} tokens", args.input_len),
        prompt_lens: vec![args.input_len],
        output_len: 1,
        rate: Iteration::prefill_rate,
    }];
    for &size in &args.batch_sizes {
        cases.push(Case {
            name: format!("decode, {size} sequences"),
            prompt_lens: vec![SHORT_PROMPT; size as usize],
            output_len: args.output_len,
            rate: Iteration::decode_rate,
        });
    }
    cases.push(Case {
        name: format!("mixed, {MIXED_REQUESTS} prompts of up to {} tokens", args.input_len),
        prompt_lens: (1..=MIXED_REQUESTS).map(|i| (args.input_len * i / MIXED_REQUESTS).max(1)).collect(),
        output_len: args.output_len,
        rate: |i| (i.prompt_tokens + i.completion_tokens) as f64 / i.elapsed_s,
    });
    cases
}

/// Every case, run in turns.
pub(super) fn compare(
    args: &CompareArgs,
    options: &LlmOptions,
    checkpoint: &Checkpoint,
    targets: &[OpenTarget; 2],
) -> Result<Vec<Comparison>> {
    let load = |target: &OpenTarget| {
        let upload = UploadBar::new();
        let llm = Llm::with_backend(checkpoint, target.backend(), options, &mut |progress| upload.show(progress));
        upload.0.finish_and_clear();
        llm
    };
    let mut llms = [load(&targets[0])?, load(&targets[1])?];
    let longest = args.input_len.max(SHORT_PROMPT) + args.output_len;
    if longest > llms[0].max_model_len() {
        bail!("--input-len and --output-len: together more than {} tokens", llms[0].max_model_len());
    }
    let cases = cases(args);
    let total = cases.len() as u64 * u64::from(args.num_iters + 1);
    let progress = bar(total, "[{bar:40}] {pos}/{len} {msg} {elapsed}");
    let mut comparisons = Vec::new();
    for case in &cases {
        progress.set_message(case.name.clone());
        let mut runs: [Vec<f64>; 2] = Default::default();
        for iteration in 0..=args.num_iters {
            let prompts = prompts(case, iteration, llms[0].model_config().vocab_size);
            for turn in 0..2 {
                let which = (turn + iteration as usize) % 2;
                let done = run_iteration(&mut llms[which], prompts.clone(), case.output_len, &mut |_| {})?;
                if iteration > 0 {
                    runs[which].push((case.rate)(&done));
                }
            }
            progress.inc(1);
        }
        comparisons.push(Comparison { name: case.name.clone(), kernels: None, unit: Unit::TokensPerSecond, runs });
    }
    progress.finish_and_clear();
    Ok(comparisons)
}

/// Random prompts: the same on both targets, other ones in each iteration, so that no prefix is cached.
fn prompts(case: &Case, iteration: u32, vocab_size: u32) -> Vec<Vec<TokenId>> {
    let mut random = SplitMix64::from_name(&format!("{} {iteration}", case.name));
    case.prompt_lens.iter().map(|&len| (0..len).map(|_| random.below(vocab_size)).collect()).collect()
}
