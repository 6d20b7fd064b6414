//! Decoding allocates nothing: not per token, not per step, however many sequences run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use bindery::engine::{
    Policy, Request, RequestId, RequestParams, SampledToken, Scheduler, SchedulerConfig, TokenEvent,
};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NUM_SEQS: u32 = 1000;
const PROMPT_TOKENS: u32 = 40;
const MAX_TOKENS: u32 = 600;

fn scheduler(enable_prefix_caching: bool, num_samples: u32) -> Scheduler {
    let config = SchedulerConfig {
        num_blocks: NUM_SEQS * (PROMPT_TOKENS + MAX_TOKENS).div_ceil(16),
        num_host_blocks: 0,
        block_size: 16,
        max_num_seqs: NUM_SEQS,
        max_num_batched_tokens: 8192,
        max_model_len: 4096,
        max_num_logits_rows: NUM_SEQS,
        enable_prefix_caching,
        long_prefill_token_threshold: 0,
        policy: Policy::Fcfs,
        drafts: None,
    };
    let limits = config.limits();
    let mut scheduler = Scheduler::new(config, b"allocations");
    for id in 0..NUM_SEQS / num_samples {
        let prompt = (0..PROMPT_TOKENS).map(|at| id * 1000 + at).collect();
        let params = RequestParams { max_tokens: Some(MAX_TOKENS), num_samples, ..RequestParams::default() };
        scheduler.add(Request::new(RequestId(u64::from(id)), prompt, params, &limits).expect("it fits"));
    }
    scheduler
}

fn step(scheduler: &mut Scheduler, sampled: &mut Vec<SampledToken>, events: &mut Vec<TokenEvent>) {
    let batch = scheduler.schedule().expect("there is work");
    let token = batch.step as u32;
    sampled.clear();
    sampled.extend(batch.sample_rows.iter().map(|row| SampledToken { seq: row.seq, token: token + row.seq.index }));
    events.clear();
    scheduler.update(sampled, events);
}

/// Allocations of 500 steps in which all sequences decode, each filling 31 blocks.
fn allocations_of_decoding(mut scheduler: Scheduler) -> u64 {
    let (mut sampled, mut events) = (Vec::new(), Vec::new());
    while scheduler.batch().seqs.len() < NUM_SEQS as usize {
        step(&mut scheduler, &mut sampled, &mut events);
    }
    // Arrays of the batch reach their size when the last sequence has decoded once.
    step(&mut scheduler, &mut sampled, &mut events);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..500 {
        step(&mut scheduler, &mut sampled, &mut events);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(scheduler.batch().seqs.len(), NUM_SEQS as usize, "all sequences decode to the end");
    allocations
}

/// One test, as the counter sees every thread.
#[test]
fn decoding_allocates_nothing() {
    for (enable_prefix_caching, num_samples) in [(false, 1), (true, 1), (true, 4)] {
        let scheduler = scheduler(enable_prefix_caching, num_samples);
        let what = format!("prefix caching {enable_prefix_caching}, {num_samples} samples of each prompt");
        assert_eq!(allocations_of_decoding(scheduler), 0, "{what}");
    }
}
