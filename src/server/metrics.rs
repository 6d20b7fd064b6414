//! `/metrics`: Prometheus text under vLLM's names, labels and buckets, so that its dashboards and routers work here.

use super::profile_metrics::ProfileMetrics;
use super::registered::registered;
use super::request_times::RequestTimes;
use super::snapshot::{StepObserver, StepReport};
use crate::engine::{SchedulerConfig, Stats};
use crate::llm::{Event, Llm};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// vLLM's buckets, in seconds.
const TTFT_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const TOKEN_LATENCY_BUCKETS: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const REQUEST_LATENCY_BUCKETS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
/// vLLM's buckets, in tokens, sequences and times.
const ITERATION_BUCKETS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
const N_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
const PREEMPTION_BUCKETS: &[f64] = &[0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0];
/// Ours, for steps.
const STEP_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All of them, and the registry that prints them.
pub(super) struct Metrics {
    registry: Registry,
    running: IntGauge,
    waiting: IntGauge,
    waiting_by_reason: GaugeVec,
    kv_cache_usage: Gauge,
    prefix_queries: IntCounter,
    prefix_hits: IntCounter,
    preemptions: IntCounter,
    drafts: IntCounter,
    draft_tokens: IntCounter,
    accepted_draft_tokens: IntCounter,
    prompt_tokens: IntCounter,
    prompt_tokens_cached: IntCounter,
    generation_tokens: IntCounter,
    success: IntCounterVec,
    rejections: IntCounter,
    ttft: Histogram,
    itl: Histogram,
    time_per_output_token: Histogram,
    e2e: Histogram,
    queue_time: Histogram,
    inference_time: Histogram,
    prefill_time: Histogram,
    decode_time: Histogram,
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
    request_n: Histogram,
    request_max_tokens: Histogram,
    request_preemptions: Histogram,
    request_prefill_tokens: Histogram,
    iteration_tokens: Histogram,
    step_duration: Histogram,
    used_blocks: IntGauge,
    cached_blocks: IntGauge,
    free_blocks: IntGauge,
    blocks_saved: IntGauge,
    host_blocks_used: IntGauge,
    cow_copies: IntCounter,
    swapped_blocks: IntCounter,
    swaps: IntCounter,
    profile: ProfileMetrics,
}

/// 1, 2, 5, 10, 20, 50, ... up to `most`.
fn buckets_1_2_5(most: u32) -> Vec<f64> {
    let decades = (0..10).flat_map(|exponent| [1, 2, 5].map(|digit| f64::from(digit) * 10_f64.powi(exponent)));
    decades.take_while(|&bucket| bucket <= f64::from(most)).collect()
}

impl Metrics {
    pub(super) fn new(model_name: &str, config: &SchedulerConfig) -> Self {
        let labels = [("model_name", model_name), ("engine", "0")];
        let labels = HashMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let registry = Registry::new_custom(None, Some(labels)).expect("the labels are valid");
        let r = &registry;
        let gauge = |name: &str, help: &str| registered(r, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| registered(r, IntCounter::new(name, help));
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            registered(r, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
        };
        let tokens = &buckets_1_2_5(config.max_model_len)[..];
        cache_config_info(r, config);
        Self {
            running: gauge("vllm:num_requests_running", "Requests being served."),
            waiting: gauge("vllm:num_requests_waiting", "Requests waiting to be served, the preempted ones included."),
            waiting_by_reason: registered(
                r,
                GaugeVec::new(
                    Opts::new("vllm:num_requests_waiting_by_reason", "Requests waiting, by what they wait for."),
                    &["reason"],
                ),
            ),
            kv_cache_usage: registered(
                r,
                Gauge::new("vllm:kv_cache_usage_perc", "Share of the KV blocks in use, 0 to 1."),
            ),
            prefix_queries: counter("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache."),
            prefix_hits: counter("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache."),
            preemptions: counter("vllm:num_preemptions_total", "Times that a request was preempted."),
            drafts: counter("vllm:spec_decode_num_drafts_total", "Times that tokens of a sequence were drafted."),
            draft_tokens: counter("vllm:spec_decode_num_draft_tokens_total", "Tokens drafted."),
            accepted_draft_tokens: counter(
                "vllm:spec_decode_num_accepted_tokens_total",
                "Tokens drafted that were right.",
            ),
            prompt_tokens: counter("vllm:prompt_tokens_total", "Prompt tokens of requests that got their first token."),
            prompt_tokens_cached: counter(
                "vllm:prompt_tokens_cached_total",
                "Prompt tokens that came from the prefix cache.",
            ),
            generation_tokens: counter("vllm:generation_tokens_total", "Tokens generated."),
            success: registered(
                r,
                IntCounterVec::new(
                    Opts::new("vllm:request_success_total", "Requests that have ended, by why."),
                    &["finished_reason"],
                ),
            ),
            rejections: counter("vllm:admission_rejections_total", "Requests refused because the queue was full."),
            ttft: histogram("vllm:time_to_first_token_seconds", "Time to first token.", TTFT_BUCKETS),
            itl: histogram(
                "vllm:inter_token_latency_seconds",
                "Time from one token of a sequence to its next that came in a later step.",
                TOKEN_LATENCY_BUCKETS,
            ),
            time_per_output_token: histogram(
                "vllm:request_time_per_output_token_seconds",
                "Mean time per token after the first, by request.",
                TOKEN_LATENCY_BUCKETS,
            ),
            e2e: histogram(
                "vllm:e2e_request_latency_seconds",
                "Time from arrival to the last token.",
                REQUEST_LATENCY_BUCKETS,
            ),
            queue_time: histogram(
                "vllm:request_queue_time_seconds",
                "Time from arrival to the first step.",
                REQUEST_LATENCY_BUCKETS,
            ),
            inference_time: histogram(
                "vllm:request_inference_time_seconds",
                "Time from the first step to the last token.",
                REQUEST_LATENCY_BUCKETS,
            ),
            prefill_time: histogram(
                "vllm:request_prefill_time_seconds",
                "Time from the first step to the first token.",
                REQUEST_LATENCY_BUCKETS,
            ),
            decode_time: histogram(
                "vllm:request_decode_time_seconds",
                "Time from the first token to the last.",
                REQUEST_LATENCY_BUCKETS,
            ),
            request_prompt_tokens: histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", tokens),
            request_generation_tokens: histogram(
                "vllm:request_generation_tokens",
                "Tokens generated for a request.",
                tokens,
            ),
            request_n: histogram("vllm:request_params_n", "`n` of a request.", N_BUCKETS),
            request_max_tokens: histogram("vllm:request_params_max_tokens", "`max_tokens` of a request.", tokens),
            request_preemptions: histogram(
                "vllm:request_num_preemptions",
                "Times that a request was preempted.",
                PREEMPTION_BUCKETS,
            ),
            request_prefill_tokens: histogram(
                "vllm:request_prefill_kv_computed_tokens",
                "Prompt tokens computed for a request, those from the prefix cache left out.",
                tokens,
            ),
            iteration_tokens: histogram("vllm:iteration_tokens_total", "Tokens computed in a step.", ITERATION_BUCKETS),
            step_duration: histogram("bindery_step_duration_seconds", "How long a step took.", STEP_BUCKETS),
            used_blocks: gauge("bindery_used_blocks", "KV blocks in some block table."),
            cached_blocks: gauge("bindery_cached_blocks", "KV blocks that the prefix cache can find, used or free."),
            free_blocks: gauge("bindery_free_blocks", "KV blocks that nobody references."),
            blocks_saved: gauge("bindery_shared_blocks", "Block table entries beyond one for each used KV block."),
            host_blocks_used: gauge("bindery_host_blocks_used", "KV blocks of preempted requests on the host."),
            cow_copies: counter("bindery_copy_on_write_copies_total", "KV blocks copied on write."),
            swapped_blocks: counter("bindery_swapped_blocks_total", "KV blocks copied to the host."),
            swaps: counter("bindery_swapped_requests_total", "Preemptions by swap to the host."),
            profile: ProfileMetrics::new(r),
            registry,
        }
    }

    /// Prometheus' text format, version 0.0.4.
    pub(super) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("metrics are text")
    }

    /// Sum and count of times to first token and of inter-token latencies, in seconds; and tokens generated.
    pub(super) fn totals(&self) -> ([(f64, u64); 2], u64) {
        let of = |histogram: &Histogram| (histogram.get_sample_sum(), histogram.get_sample_count());
        ([of(&self.ttft), of(&self.itl)], self.generation_tokens.get())
    }

    fn gauges(&self, stats: &Stats) {
        self.running.set(i64::from(stats.running_requests));
        self.waiting.set(i64::from(stats.waiting_requests));
        self.waiting_by_reason.with_label_values(&["capacity"]).set(f64::from(stats.waiting_requests));
        self.waiting_by_reason.with_label_values(&["deferred"]).set(0.0);
        self.kv_cache_usage.set(f64::from(stats.used_blocks) / f64::from(stats.num_blocks));
        self.used_blocks.set(i64::from(stats.used_blocks));
        self.cached_blocks.set(i64::from(stats.cached_blocks));
        self.free_blocks.set(i64::from(stats.free_blocks));
        let entries = stats.block_table_entries as i64;
        self.blocks_saved.set((entries - i64::from(stats.used_blocks)).max(0));
        self.host_blocks_used.set(i64::from(stats.used_host_blocks));
    }

    fn counters(&self, before: &Stats, now: &Stats) {
        self.prefix_queries.inc_by(now.prefix_query_tokens - before.prefix_query_tokens);
        self.prefix_hits.inc_by(now.prefix_hit_tokens - before.prefix_hit_tokens);
        self.prompt_tokens_cached.inc_by(now.prefix_hit_tokens - before.prefix_hit_tokens);
        self.preemptions.inc_by(now.preemptions - before.preemptions);
        self.drafts.inc_by(now.drafts - before.drafts);
        self.draft_tokens.inc_by(now.draft_tokens - before.draft_tokens);
        self.accepted_draft_tokens.inc_by(now.accepted_draft_tokens - before.accepted_draft_tokens);
        self.cow_copies.inc_by(now.cow_copies - before.cow_copies);
        self.swapped_blocks.inc_by(now.swapped_blocks - before.swapped_blocks);
        self.swaps.inc_by(now.swaps - before.swaps);
    }
}

/// A constant 1 whose labels are the sizes of the KV cache.
fn cache_config_info(registry: &Registry, config: &SchedulerConfig) {
    let labels = [
        ("block_size", config.block_size.to_string()),
        ("num_gpu_blocks", config.num_blocks.to_string()),
        ("num_cpu_blocks", config.num_host_blocks.to_string()),
        ("enable_prefix_caching", config.enable_prefix_caching.to_string()),
    ];
    let labels: HashMap<String, String> = labels.map(|(name, value)| (name.to_owned(), value)).into();
    let opts = Opts::new("vllm:cache_config_info", "Sizes of the KV cache, as labels.").const_labels(labels);
    registered(registry, Gauge::with_opts(opts)).set(1.0);
}

/// Feeds [`Metrics`] on the engine's thread.
pub(super) struct MetricsObserver {
    metrics: Arc<Metrics>,
    before: Stats,
    requests: RequestTimes,
}

impl MetricsObserver {
    pub(super) fn new(metrics: Arc<Metrics>, stats: Stats) -> Self {
        metrics.gauges(&stats);
        Self { metrics, before: stats, requests: RequestTimes::default() }
    }

    fn token(&mut self, event: &Event, report: &StepReport<'_>) {
        let m = &self.metrics;
        let Event::Token(update) = event else { return };
        let Some(request) = self.requests.get_mut(update.request) else { return };
        if let Some(finish) = &update.finish {
            request.finish_reason = Some(finish.reason());
        }
        if update.token.is_none() {
            return;
        }
        m.generation_tokens.inc();
        let now = report.snapshot.at;
        if request.first_token.is_none() {
            m.prompt_tokens.inc_by(u64::from(request.arrival.prompt_tokens));
            m.ttft.observe((now - request.arrival.submitted).as_secs_f64());
        }
        if let Some(latency) = request.token(update.index, now) {
            m.itl.observe(latency.as_secs_f64());
        }
    }

    fn done(&mut self, event: &Event) {
        let m = &self.metrics;
        let Event::Done { request, accounting } = event else { return };
        let Some(times) = self.requests.remove(*request) else { return };
        m.success.with_label_values(&[times.finish_reason.unwrap_or("stop")]).inc();
        let arrival = &times.arrival;
        m.request_prompt_tokens.observe(f64::from(arrival.prompt_tokens));
        m.request_generation_tokens.observe(f64::from(times.tokens));
        m.request_n.observe(f64::from(arrival.n));
        m.request_max_tokens.observe(f64::from(arrival.max_tokens.unwrap_or_default()));
        m.request_preemptions.observe(accounting.preemptions as f64);
        let computed = u64::from(arrival.prompt_tokens).saturating_sub(accounting.cached_tokens);
        m.request_prefill_tokens.observe(computed as f64);
        let (Some(started), Some(first), Some(last)) = (times.started, times.first_token, times.last_token) else {
            return;
        };
        let observe = |histogram: &Histogram, time: Duration| histogram.observe(time.as_secs_f64());
        observe(&m.e2e, last - arrival.submitted);
        observe(&m.queue_time, started.saturating_duration_since(arrival.submitted));
        observe(&m.inference_time, last - started);
        observe(&m.prefill_time, first - started);
        observe(&m.decode_time, last - first);
        let per_sequence = times.tokens.div_ceil(arrival.num_sequences.max(1));
        // A beam search tells all its tokens at once.
        if per_sequence > 1 && first < last {
            m.time_per_output_token.observe((last - first).as_secs_f64() / f64::from(per_sequence - 1));
        }
    }
}

impl StepObserver for MetricsObserver {
    fn after_step(&mut self, llm: &mut Llm, report: &StepReport<'_>) {
        report.arrived.iter().for_each(|arrival| self.requests.arrive(*arrival));
        if let Some(began) = report.began {
            let batch = llm.scheduler().ended_batch();
            self.metrics.iteration_tokens.observe(batch.token_ids.len() as f64);
            self.metrics.step_duration.observe(report.duration.as_secs_f64());
            batch.seqs.iter().for_each(|seq| self.requests.start(seq.seq.request, began));
        }
        for event in report.events {
            self.token(event, report);
            self.done(event);
        }
        for &request in report.aborted {
            if self.requests.remove(request).is_some() {
                self.metrics.success.with_label_values(&["abort"]).inc();
            }
        }
        self.metrics.rejections.inc_by(report.rejected);
        self.metrics.gauges(&report.snapshot.stats);
        self.metrics.counters(&self.before, &report.snapshot.stats);
        self.before = report.snapshot.stats;
        if let Some(profile) = llm.profile() {
            self.metrics.profile.set(profile);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_the_longest_sequence() {
        assert_eq!(buckets_1_2_5(100), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(buckets_1_2_5(4), [1.0, 2.0]);
    }
}
