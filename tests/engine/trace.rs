//! A trace of 2,000 requests, decided as vLLM 0.33.0 decides it.
//!
//! The numbers below are what vLLM's own v1 scheduler and block pool did with the same trace (block size 16, chunked
//! prefill, 64 sequences, 512 tokens a step, synchronous scheduling, no model). Its pool has a null block, so a pool of
//! `n` blocks there is one of `n - 1` here.

use bindery::engine::{Request, RequestId, RequestParams, SampledToken, Scheduler, SchedulerConfig};

use super::config;

/// Lengths in tokens of the eight prefixes that prompts may start with.
const PREFIX_TOKENS: [u32; 8] = [374, 78, 255, 143, 363, 86, 239, 209];

/// What a run amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    blocks_allocated: u64,
    preemptions: u64,
    prefix_hit_tokens: u64,
    resumed_query_tokens: u64,
    resumed_hit_tokens: u64,
    computed_tokens: u64,
    peak_used_blocks: u32,
    peak_running: u32,
    /// Steps until the last request has ended, those with nothing to do included.
    steps: u64,
}

struct Arrival {
    step: u64,
    prompt: Vec<u32>,
    max_tokens: u32,
}

fn trace() -> Vec<Arrival> {
    let text = include_str!("../data/scheduler_trace.csv");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let arrival = |(i, line): (usize, &str)| {
        let fields: Vec<Option<u32>> = line.split(',').map(|field| field.parse().ok()).collect();
        let [Some(step), prefix, Some(prompt_tokens), Some(max_tokens)] = fields[..] else { panic!("line {line}") };
        // Only which tokens are equal matters: those of the prefix, and no others.
        let shared = prefix.map_or(0, |prefix| PREFIX_TOKENS[prefix as usize]);
        let token = |at| if at < shared { prefix.unwrap_or(0) } else { 100 + i as u32 };
        Arrival { step: u64::from(step), prompt: (0..prompt_tokens).map(token).collect(), max_tokens }
    };
    lines.enumerate().map(arrival).collect()
}

fn replay(num_blocks: u32, enable_prefix_caching: bool) -> Outcome {
    let mut scheduler = Scheduler::new(
        SchedulerConfig {
            num_blocks,
            num_host_blocks: 0,
            enable_prefix_caching,
            max_num_seqs: 64,
            max_num_batched_tokens: 512,
            max_model_len: 2048,
            ..config()
        },
        b"trace",
    );
    let limits = scheduler.config().limits();
    let mut arrivals = trace().into_iter().enumerate().peekable();
    let (mut steps, mut peak_used_blocks, mut peak_running) = (0, 0, 0);
    let (mut sampled, mut events) = (Vec::new(), Vec::new());
    while arrivals.peek().is_some() || !scheduler.is_idle() {
        while let Some((i, arrival)) = arrivals.next_if(|(_, arrival)| arrival.step <= steps) {
            let params = RequestParams { max_tokens: Some(arrival.max_tokens), ..RequestParams::default() };
            scheduler.add(Request::new(RequestId(i as u64), arrival.prompt, params, &limits).expect("it fits"));
        }
        steps += 1;
        if scheduler.schedule().is_none() {
            continue;
        }
        let stats = scheduler.stats();
        peak_used_blocks = stats.used_blocks.max(peak_used_blocks);
        peak_running = stats.running_requests.max(peak_running);
        sampled.clear();
        let token = |i: u64| 10_000 + i as u32;
        let rows = &scheduler.batch().sample_rows;
        sampled.extend(rows.iter().map(|row| SampledToken { seq: row.seq, token: token(row.seq.request.0) }));
        events.clear();
        scheduler.update(&sampled, &mut events);
    }
    let stats = scheduler.stats();
    assert_eq!(stats.used_blocks, 0);
    Outcome {
        blocks_allocated: stats.blocks_allocated,
        preemptions: stats.preemptions,
        prefix_hit_tokens: stats.prefix_hit_tokens,
        resumed_query_tokens: stats.resumed_query_tokens,
        resumed_hit_tokens: stats.resumed_hit_tokens,
        computed_tokens: stats.scheduled_tokens,
        peak_used_blocks,
        peak_running,
        steps,
    }
}

#[test]
fn with_room_for_all_it_allocates_as_vllm_does() {
    let vllm = Outcome {
        blocks_allocated: 51_256,
        preemptions: 0,
        prefix_hit_tokens: 0,
        resumed_query_tokens: 0,
        resumed_hit_tokens: 0,
        computed_tokens: 805_085,
        peak_used_blocks: 1_465,
        peak_running: 57,
        steps: 10_400,
    };
    assert_eq!(replay(4095, false), vllm);
}

#[test]
fn it_finds_the_prefixes_that_vllm_finds() {
    let vllm = Outcome {
        blocks_allocated: 43_594,
        preemptions: 0,
        prefix_hit_tokens: 122_592,
        resumed_query_tokens: 0,
        resumed_hit_tokens: 0,
        computed_tokens: 682_493,
        peak_used_blocks: 1_289,
        peak_running: 57,
        steps: 10_400,
    };
    assert_eq!(replay(4095, true), vllm);
}

#[test]
fn short_of_blocks_it_preempts_whom_vllm_preempts() {
    let vllm = Outcome {
        blocks_allocated: 66_170,
        preemptions: 1_024,
        prefix_hit_tokens: 0,
        resumed_query_tokens: 0,
        resumed_hit_tokens: 0,
        computed_tokens: 1_036_218,
        peak_used_blocks: 899,
        peak_running: 55,
        steps: 10_568,
    };
    assert_eq!(replay(899, false), vllm);
}

#[test]
fn short_of_blocks_it_evicts_what_vllm_evicts() {
    let vllm = Outcome {
        blocks_allocated: 49_806,
        preemptions: 642,
        prefix_hit_tokens: 96_336,
        resumed_query_tokens: 160_265,
        resumed_hit_tokens: 88_512,
        computed_tokens: 777_131,
        peak_used_blocks: 899,
        peak_running: 53,
        steps: 10_444,
    };
    assert_eq!(replay(899, true), vllm);
}
