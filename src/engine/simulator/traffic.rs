//! Random sizes, and random requests.

use super::rng::Rng;
use crate::engine::{DraftConfig, Policy, RequestParams, SchedulerConfig, TokenId};

/// How one episode behaves. Rates are per mille of the steps.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    /// 2 more often than not, so that prefixes collide.
    pub vocab_size: u32,
    /// Requests alive at the same time, at most.
    pub max_alive: u32,
    pub arrival_rate: u32,
    pub abort_rate: u32,
    pub finish_rate: u32,
    /// How often a beam forks, and is dropped.
    pub fork_rate: u32,
    pub reset_rate: u32,
    /// Whether beams get their tokens all together, once each has its logits.
    pub lock_step: bool,
    /// Prompts start like one of these.
    prefixes: Vec<Vec<TokenId>>,
    max_prompt_len: u32,
}

/// Sizes of an episode: tiny, so that everything happens often.
pub(super) fn random_config(rng: &mut Rng) -> SchedulerConfig {
    let block_size = rng.pick(&[1, 2, 2, 3, 4, 4, 16]);
    let num_blocks = rng.between(3, 12);
    let slots = num_blocks * block_size;
    SchedulerConfig {
        num_blocks,
        num_host_blocks: 0,
        block_size,
        max_num_seqs: rng.pick(&[1, 2, 4, 4, 6, 8]),
        max_num_batched_tokens: rng.pick(&[1, 2, 3, 5, 8, 16, 64]),
        max_model_len: rng.between((slots / 2).clamp(2, 20), (slots + 2).min(60)),
        max_num_logits_rows: rng.between(1, 8),
        enable_prefix_caching: rng.chance(650),
        long_prefill_token_threshold: rng.pick(&[0, 0, 1, 3]),
        policy: rng.pick(&[Policy::Fcfs, Policy::Priority]),
        drafts: None,
    }
}

/// Drafts in two of three episodes, from next to nothing, so that many are wrong.
pub(super) fn random_drafts(rng: &mut Rng) -> Option<DraftConfig> {
    rng.chance(667).then(|| {
        let lookup_min = rng.between(1, 3);
        DraftConfig {
            num_tokens: rng.between(1, 9),
            max_num_seqs: rng.pick(&[1, 2, 4, 8]),
            lookup_min,
            lookup_max: rng.between(lookup_min, 5),
        }
    })
}

impl Traffic {
    pub fn random(rng: &mut Rng, config: &SchedulerConfig) -> Self {
        let vocab_size = rng.pick(&[2, 2, 2, 3, 7]);
        // Longer ones exist only to be refused, several samples of them above all.
        let max_prompt_len = (config.max_model_len - 1).min(config.num_blocks * config.block_size / 2);
        let prefixes = (0..3).map(|_| (0..max_prompt_len).map(|_| rng.below(vocab_size)).collect()).collect();
        Traffic {
            vocab_size,
            max_alive: rng.between(2, 10),
            arrival_rate: rng.pick(&[200, 500, 1000]),
            abort_rate: rng.pick(&[0, 0, 20, 100]),
            finish_rate: rng.pick(&[0, 0, 30]),
            fork_rate: rng.pick(&[0, 200, 500]),
            reset_rate: rng.pick(&[0, 10]),
            lock_step: rng.chance(500),
            prefixes,
            max_prompt_len,
        }
    }

    /// A prompt: the start of a shared prefix, and some tokens of its own.
    pub fn prompt(&self, rng: &mut Rng) -> Vec<TokenId> {
        let len = rng.between(1, self.max_prompt_len);
        let shared = rng.below(len + 1) as usize;
        let mut prompt = self.prefixes[rng.below(self.prefixes.len() as u32) as usize][..shared].to_vec();
        prompt.extend((shared..len as usize).map(|_| rng.below(self.vocab_size)));
        prompt
    }

    /// What a request asks for; some of it may be refused.
    pub fn params(&self, rng: &mut Rng) -> RequestParams {
        let max_tokens = rng.chance(800).then(|| rng.between(1, 16));
        let beams = rng.chance(150);
        let num_samples = if beams || rng.chance(700) { 1 } else { rng.between(2, 4) };
        // A vocabulary of 2 would stop at once if half of the tokens did.
        let stop_token_ids = if rng.chance(200) { vec![rng.below(self.vocab_size + 1)] } else { Vec::new() };
        RequestParams {
            max_tokens,
            min_tokens: if rng.chance(300) { rng.below(max_tokens.unwrap_or(4) + 1) } else { 0 },
            stop_token_ids,
            num_samples,
            max_sequences: if beams { rng.between(2, 4) } else { 0 },
            prompt_logits: rng.chance(120),
            drafts: true,
            priority: rng.below(3) as i32,
            cache_salt: rng.chance(200).then(|| vec![rng.below(2) as u8]),
            adapter: rng.chance(100).then(|| vec![0]),
        }
    }
}
