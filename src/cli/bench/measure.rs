//! One iteration of a benchmark.

use anyhow::Result;
use bindery::engine::{DEFAULT_BLOCK_SIZE, RequestId, TokenId};
use bindery::llm::{Event, Llm};
use bindery::sampling::SamplingParams;
use std::collections::BTreeMap;
use std::time::Instant;

/// What one iteration gave. Times are in seconds from its start.
#[derive(Debug, Clone, Default)]
pub(super) struct Iteration {
    /// The whole of it.
    pub(super) elapsed_s: f64,
    /// Until the last request had its first token.
    pub(super) prefill_s: f64,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    /// Completion tokens after `prefill_s`.
    pub(super) decode_tokens: u64,
    /// Steps after `prefill_s`.
    pub(super) decode_steps: u64,
    /// Tokens whose keys and values were read, over the steps after `prefill_s`.
    pub(super) decode_kv_tokens: u64,
    /// Of each request.
    pub(super) ttft_s: Vec<f64>,
    /// Between one token and the next of the same request that came in a later step, over all requests.
    pub(super) itl_s: Vec<f64>,
    /// KV blocks in use when most were.
    pub(super) peak_blocks: u32,
    /// Slots in them that held no token then.
    pub(super) peak_unused_slots: u64,
    /// Slots of all blocks in use, summed over the steps.
    slot_steps: u64,
    /// Those that held no token, summed over the steps.
    unused_slot_steps: u64,
    pub(super) steps: u64,
    pub(super) draft_tokens: u64,
    /// Those of them that were right.
    pub(super) accepted_draft_tokens: u64,
    pub(super) preemptions: u64,
    /// Those of them by swap to the host.
    pub(super) swaps: u64,
    /// Blocks handed out by the pool.
    pub(super) blocks_allocated: u64,
    /// Blocks shared instead: prefix hits and forks.
    pub(super) blocks_shared: u64,
    /// Blocks copied on write.
    pub(super) blocks_copied: u64,
    /// Blocks copied to the host.
    pub(super) blocks_swapped: u64,
    /// Prompt tokens found in the prefix cache.
    pub(super) cached_tokens: u64,
}

impl Iteration {
    /// Tokens per second until every request had its first token.
    pub(super) fn prefill_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill_s
    }

    /// Tokens per second after that; NaN when there were none.
    pub(super) fn decode_rate(&self) -> f64 {
        self.decode_tokens as f64 / self.decode_s()
    }

    /// Share of the slots in use that held no token, over all steps, 0 to 1.
    pub(super) fn unused_share(&self) -> f64 {
        self.unused_slot_steps as f64 / self.slot_steps as f64
    }

    /// Seconds after every request had its first token.
    pub(super) fn decode_s(&self) -> f64 {
        self.elapsed_s - self.prefill_s
    }
}

/// Greedy, of exactly `output_len` tokens: the benchmark wants no text.
fn params(output_len: u32) -> SamplingParams {
    SamplingParams { ignore_eos: true, detokenize: false, ..SamplingParams::greedy(output_len) }
}

/// Runs all prompts together; `on_step` gets the tokens generated so far.
pub(super) fn run_iteration(
    llm: &mut Llm,
    prompts: Vec<Vec<TokenId>>,
    output_len: u32,
    on_step: &mut dyn FnMut(u64),
) -> Result<Iteration> {
    let mut result = Iteration::default();
    let before = llm.stats();
    let start = Instant::now();
    // When each request's last token came.
    let mut last: BTreeMap<RequestId, Option<f64>> = BTreeMap::new();
    for prompt in prompts {
        result.prompt_tokens += prompt.len() as u64;
        last.insert(llm.add(prompt, params(output_len))?, None);
    }
    let mut waiting = last.len();
    let mut events = Vec::new();
    while !llm.is_idle() {
        llm.step(&mut events)?;
        let now = start.elapsed().as_secs_f64();
        let is_decode = waiting == 0;
        if is_decode {
            result.decode_steps += 1;
            result.decode_kv_tokens +=
                llm.scheduler().ended_batch().seq_lens.iter().map(|&len| u64::from(len)).sum::<u64>();
        }
        for event in events.drain(..) {
            if let Event::Done { accounting, .. } = &event {
                result.blocks_shared += accounting.blocks_shared;
                result.cached_tokens += accounting.cached_tokens;
            }
            let Event::Token(update) = event else { continue };
            result.completion_tokens += 1;
            result.decode_tokens += u64::from(is_decode);
            match last.get_mut(&update.request).expect("every request is one of ours").replace(now) {
                Some(previous) => result.itl_s.extend((previous < now).then_some(now - previous)),
                None => {
                    result.ttft_s.push(now);
                    waiting -= 1;
                    result.prefill_s = now;
                }
            }
        }
        let stats = llm.stats();
        result.slot_steps += u64::from(stats.used_blocks) * u64::from(DEFAULT_BLOCK_SIZE);
        result.unused_slot_steps += stats.unused_slots;
        if stats.used_blocks > result.peak_blocks {
            (result.peak_blocks, result.peak_unused_slots) = (stats.used_blocks, stats.unused_slots);
        }
        on_step(result.completion_tokens);
    }
    result.elapsed_s = start.elapsed().as_secs_f64();
    let after = llm.stats();
    result.steps = after.steps - before.steps;
    result.draft_tokens = after.draft_tokens - before.draft_tokens;
    result.accepted_draft_tokens = after.accepted_draft_tokens - before.accepted_draft_tokens;
    result.preemptions = after.preemptions - before.preemptions;
    result.swaps = after.swaps - before.swaps;
    result.blocks_allocated = after.blocks_allocated - before.blocks_allocated;
    result.blocks_copied = after.cow_copies - before.cow_copies;
    result.blocks_swapped = after.swapped_blocks - before.swapped_blocks;
    Ok(result)
}

/// The most memory that this process has had resident at once, where the system tells.
pub(super) fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
