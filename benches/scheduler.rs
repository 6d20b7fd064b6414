//! The scheduler alone: one step (`schedule` and `update`) of 1,000 running sequences, with no device.
//!
//! `cargo bench --bench scheduler`. The target is 300 microseconds a step.

use std::hint::black_box;

use bindery::engine::{
    Policy, Request, RequestId, RequestParams, SampledToken, Scheduler, SchedulerConfig, TokenEvent,
};
use criterion::{Criterion, criterion_group, criterion_main};

/// Sequences that run.
const NUM_SEQS: u32 = 1000;

/// Tokens of each prompt; the longest completion fills the rest of `MAX_MODEL_LEN`.
const PROMPT_TOKENS: u32 = 512;

/// Long enough that no sequence ends soon.
const MAX_MODEL_LEN: u32 = 4096;

/// A scheduler that decodes `NUM_SEQS` sequences, and what its steps need.
struct Decode {
    scheduler: Scheduler,
    next_id: u64,
    sampled: Vec<SampledToken>,
    events: Vec<TokenEvent>,
}

impl Decode {
    fn new(enable_prefix_caching: bool) -> Self {
        let scheduler = Scheduler::new(
            SchedulerConfig {
                num_blocks: NUM_SEQS * MAX_MODEL_LEN / 16,
                num_host_blocks: 0,
                block_size: 16,
                max_num_seqs: NUM_SEQS,
                max_num_batched_tokens: 8192,
                max_model_len: MAX_MODEL_LEN,
                max_num_logits_rows: NUM_SEQS,
                enable_prefix_caching,
                long_prefill_token_threshold: 0,
                policy: Policy::Fcfs,
                drafts: None,
            },
            b"bench",
        );
        let mut decode = Decode { scheduler, next_id: 0, sampled: Vec::new(), events: Vec::new() };
        decode.refill();
        while decode.scheduler.batch().seqs.len() < NUM_SEQS as usize {
            decode.step();
        }
        decode
    }

    /// Replaces the sequences that have ended.
    fn refill(&mut self) {
        let limits = self.scheduler.config().limits();
        while self.next_id < u64::from(NUM_SEQS) {
            let token = |at| (self.next_id as u32).wrapping_mul(7919) ^ at;
            let prompt = (0..PROMPT_TOKENS).map(token).collect();
            let request = Request::new(RequestId(self.next_id), prompt, RequestParams::default(), &limits);
            self.scheduler.add(request.expect("a request that fits"));
            self.next_id += 1;
        }
    }

    /// One step; the tokens drawn are made up.
    fn step(&mut self) {
        if self.scheduler.schedule().is_none() {
            self.next_id = 0;
            self.refill();
            self.scheduler.schedule().expect("there are requests again");
        }
        let step = self.scheduler.batch().step as u32;
        let rows = &self.scheduler.batch().sample_rows;
        self.sampled.clear();
        self.sampled.extend(
            rows.iter().map(|row| SampledToken { seq: row.seq, token: step ^ (row.seq.request.0 as u32) << 12 }),
        );
        self.events.clear();
        self.scheduler.update(black_box(&self.sampled), &mut self.events);
    }
}

fn decode_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler/1000 sequences decode, a step");
    for (name, enable_prefix_caching) in [("no prefix caching", false), ("prefix caching", true)] {
        let mut decode = Decode::new(enable_prefix_caching);
        group.bench_function(name, |bencher| bencher.iter(|| decode.step()));
    }
    group.finish();
}

criterion_group!(benches, decode_step);
criterion_main!(benches);
