//! What a benchmark tells.

use super::super::profile_report;
use super::super::units::bytes;
use super::measure::{Iteration, peak_resident_bytes};
use super::roofline::{peaks_text, prefill_flops};
use super::setup::Bench;
use super::statistics::{median, percentile};
use anyhow::Result;
use bindery::engine::{DEFAULT_BLOCK_SIZE, Policy};
use serde_json::{Value, json};
use std::io::Write;

/// Medians over the iterations.
struct Medians {
    elapsed_s: f64,
    prefill_rate: f64,
    decode_rate: f64,
    ttft_s: f64,
    itl_s: f64,
    itl_p99_s: f64,
    peak_blocks: u32,
    peak_unused_slots: u64,
    /// Share of the slots in use that held no token, over all steps, 0 to 1.
    unused_share: f64,
    /// Bytes that a decode step must read.
    decode_step_bytes: f64,
    /// Share of the copy bandwidth that decode steps reach, 0 to 1.
    bandwidth_share: f64,
    /// Seconds of a decode step.
    decode_step_s: f64,
    /// Floating point operations of all prompts.
    prefill_flops: f64,
    prefill_s: f64,
}

impl Bench {
    fn medians(&self, iterations: &[Iteration]) -> Medians {
        let of = |value: &dyn Fn(&Iteration) -> f64| median(iterations.iter().map(value));
        let all = |values: fn(&Iteration) -> &Vec<f64>| iterations.iter().flat_map(move |i| values(i).iter().copied());
        let kv_token_bytes = self.llm.kv_memory().block_bytes / u64::from(DEFAULT_BLOCK_SIZE);
        let moved =
            |i: &Iteration| (i.decode_steps * self.weight_bytes_per_step + i.decode_kv_tokens * kv_token_bytes) as f64;
        let peak = iterations.iter().max_by_key(|i| i.peak_blocks).expect("at least one iteration");
        Medians {
            elapsed_s: of(&|i| i.elapsed_s),
            prefill_rate: of(&Iteration::prefill_rate),
            decode_rate: of(&Iteration::decode_rate),
            ttft_s: median(all(|i| &i.ttft_s)),
            itl_s: median(all(|i| &i.itl_s)),
            itl_p99_s: percentile(all(|i| &i.itl_s), 99.0),
            peak_blocks: peak.peak_blocks,
            peak_unused_slots: peak.peak_unused_slots,
            unused_share: of(&Iteration::unused_share),
            decode_step_bytes: of(&|i| moved(i) / i.decode_steps as f64),
            bandwidth_share: of(&|i| moved(i) / i.decode_s()) / self.peaks.copy_bytes_per_s,
            decode_step_s: of(&|i| i.decode_s() / i.decode_steps as f64),
            prefill_flops: prefill_flops(self.llm.model_config(), self.input_len, self.requests),
            prefill_s: of(&|i| i.prefill_s),
        }
    }

    /// Prints the medians, and writes everything to `--output-json`; `own` are the fields of this kind of benchmark, and
    /// `requests_name` is its name for the number of requests.
    pub(super) fn report(
        &mut self,
        kind: &str,
        requests_name: &str,
        iterations: &[Iteration],
        own: Value,
    ) -> Result<()> {
        let medians = self.medians(iterations);
        let peak_bytes = peak_resident_bytes();
        writeln!(std::io::stdout(), "{}", self.text(kind, &medians, iterations, peak_bytes))?;
        if let Some(profile) = self.llm.profile() {
            writeln!(std::io::stdout(), "{}", profile_report::text(profile))?;
        }
        let json = self.json(kind, requests_name, &medians, iterations, own, peak_bytes);
        self.json.write(&json)
    }

    fn text(&self, kind: &str, medians: &Medians, iterations: &[Iteration], peak_bytes: Option<u64>) -> String {
        let kv = self.llm.kv_memory();
        let requests = f64::from(self.requests);
        let mut lines = vec![
            self.llm.device_description(),
            format!("{}: {} of weights", self.options.model.display(), bytes(self.weight_bytes)),
            kv.to_string(),
            format!(
                "{kind}: {} x ({} prompt + {} completion tokens), medians of {} iterations",
                self.requests, self.input_len, self.output_len, self.num_iters
            ),
        ];
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<24} {value}"));
        let whole = |tokens: u32| requests * f64::from(tokens) / medians.elapsed_s;
        if kind == "latency" {
            row("prefill", format!("{:.1} tokens/s", medians.prefill_rate));
            if self.output_len > 1 {
                row("decode", format!("{:.1} tokens/s", medians.decode_rate));
            }
        } else {
            row("requests", format!("{:.2} /s", requests / medians.elapsed_s));
            row("prompt tokens", format!("{:.1} /s", whole(self.input_len)));
            row("completion tokens", format!("{:.1} /s", whole(self.output_len)));
        }
        row("whole", format!("{:.3} s", medians.elapsed_s));
        row("TTFT", format!("{:.1} ms", 1e3 * medians.ttft_s));
        if self.output_len > 1 {
            row("ITL", format!("{:.1} ms, p99 {:.1} ms", 1e3 * medians.itl_s, 1e3 * medians.itl_p99_s));
        }
        row("KV blocks", format!("{} of {} in use at the peak", medians.peak_blocks, kv.num_blocks));
        row(
            "KV slots without a token",
            format!("{:.1} % over all steps, {} at the peak", 100.0 * medians.unused_share, medians.peak_unused_slots),
        );
        let sum = |count: fn(&Iteration) -> u64| iterations.iter().map(count).sum::<u64>();
        row(
            "in all iterations",
            format!(
                "{} blocks allocated, {} shared, {} copied; {} tokens from the prefix cache",
                sum(|i| i.blocks_allocated),
                sum(|i| i.blocks_shared),
                sum(|i| i.blocks_copied),
                sum(|i| i.cached_tokens)
            ),
        );
        if sum(|i| i.draft_tokens) > 0 {
            row("drafts", format!("{} of {} right", sum(|i| i.accepted_draft_tokens), sum(|i| i.draft_tokens)));
        }
        if sum(|i| i.preemptions) > 0 {
            let (preemptions, swaps) = (sum(|i| i.preemptions), sum(|i| i.swaps));
            row("preemptions", format!("{preemptions}, {swaps} of them swapped to the host"));
        }
        self.roofline(kind, medians).into_iter().for_each(|(name, value)| row(name, value));
        row("device memory", bytes(self.llm.device_bytes()));
        row("peak resident memory", peak_bytes.map_or_else(|| "unknown on this system".into(), bytes));
        lines.join("\n")
    }

    /// What the device reaches at best, and how near to it this came.
    fn roofline(&self, kind: &str, medians: &Medians) -> Vec<(&'static str, String)> {
        let peaks = &self.peaks;
        let mut rows = vec![("device at best", peaks_text(peaks))];
        // Where prompts and completions share steps there is no time of the one or the other.
        if kind == "latency" {
            let bound_s = medians.prefill_flops / peaks.fma_flops_per_s;
            rows.push((
                "roofline, prefill",
                format!(
                    "{:.2} GFLOP, {:.1} ms at best; it took {:.1} ms: {:.1} %",
                    medians.prefill_flops / 1e9,
                    1e3 * bound_s,
                    1e3 * medians.prefill_s,
                    100.0 * bound_s / medians.prefill_s
                ),
            ));
        }
        if medians.decode_step_bytes.is_finite() {
            rows.push((
                "roofline, decode",
                format!(
                    "{:.1} MB must move in a step, {:.2} ms at best; it took {:.2} ms: {:.1} %",
                    medians.decode_step_bytes / 1e6,
                    1e3 * medians.decode_step_bytes / peaks.copy_bytes_per_s,
                    1e3 * medians.decode_step_s,
                    100.0 * medians.bandwidth_share
                ),
            ));
        }
        rows
    }

    fn json(
        &self,
        kind: &str,
        requests_name: &str,
        medians: &Medians,
        iterations: &[Iteration],
        own: Value,
        peak_bytes: Option<u64>,
    ) -> Value {
        let kv = self.llm.kv_memory();
        let ms = |seconds: f64| 1e3 * seconds;
        let all = |values: fn(&Iteration) -> &Vec<f64>| iterations.iter().flat_map(move |i| values(i).iter().copied());
        let mut json = json!({
            "benchmark": kind,
            "version": env!("CARGO_PKG_VERSION"),
            "device": self.llm.device_description(),
            "settings": self.settings(requests_name),
            "prefill_tokens_per_s": medians.prefill_rate,
            "decode_tokens_per_s": medians.decode_rate,
            "median_elapsed_s": medians.elapsed_s,
            "median_ttft_ms": ms(medians.ttft_s),
            "p99_ttft_ms": ms(percentile(all(|i| &i.ttft_s), 99.0)),
            "median_itl_ms": ms(medians.itl_s),
            "p99_itl_ms": ms(medians.itl_p99_s),
            "output_throughput": median(iterations.iter().map(|i| i.completion_tokens as f64 / i.elapsed_s)),
            "total_token_throughput":
                median(iterations.iter().map(|i| (i.prompt_tokens + i.completion_tokens) as f64 / i.elapsed_s)),
            "kv_blocks_peak": medians.peak_blocks,
            "kv_unused_slots_at_peak": medians.peak_unused_slots,
            "kv_unused_slot_share": medians.unused_share,
            "kv_blocks": kv.num_blocks,
            "kv_block_bytes": kv.block_bytes,
            "weight_bytes": self.weight_bytes,
            "decode_step_bytes": medians.decode_step_bytes,
            "copy_bandwidth_bytes_per_s": self.peaks.copy_bytes_per_s,
            "fma_flops_per_s": self.peaks.fma_flops_per_s,
            "prefill_flops": medians.prefill_flops,
            "prefill_share_of_fma_peak": medians.prefill_flops / medians.prefill_s / self.peaks.fma_flops_per_s,
            "decode_step_s": medians.decode_step_s,
            "decode_share_of_copy_bandwidth": medians.bandwidth_share,
            "device_bytes": self.llm.device_bytes(),
            "peak_resident_bytes": peak_bytes,
            "iterations": iterations.iter().map(iteration_json).collect::<Vec<_>>(),
        });
        if let Some(profile) = self.llm.profile() {
            json["profile"] = profile_report::json(profile);
        }
        if let (Value::Object(json), Value::Object(own)) = (&mut json, own) {
            json.extend(own);
        }
        json
    }

    fn settings(&self, requests_name: &str) -> Value {
        let options = &self.options;
        let mut settings = json!({
            "model": options.model.display().to_string(),
            "load_format": format!("{:?}", options.load_format).to_lowercase(),
            "dtype": format!("{:?}", options.dtype).to_lowercase(),
            "input_len": self.input_len,
            "output_len": self.output_len,
            "num_iters": self.num_iters,
            "num_iters_warmup": self.num_iters_warmup,
            "max_model_len": self.llm.max_model_len(),
            "max_num_seqs": options.max_num_seqs,
            "max_num_batched_tokens": options.max_num_batched_tokens,
            "long_prefill_token_threshold": options.long_prefill_token_threshold,
            "block_size": DEFAULT_BLOCK_SIZE,
            "kv_cache_dtype": options.kv_cache_dtype.name(),
            "enable_prefix_caching": options.enable_prefix_caching,
            "scheduling_policy": match options.policy {
                Policy::Fcfs => "fcfs",
                Policy::Priority => "priority",
            },
            "seed": options.seed,
        });
        settings[requests_name] = json!(self.requests);
        settings
    }
}

fn iteration_json(iteration: &Iteration) -> Value {
    json!({
        "elapsed_s": iteration.elapsed_s,
        "prefill_s": iteration.prefill_s,
        "prefill_tokens_per_s": iteration.prefill_rate(),
        "decode_tokens_per_s": iteration.decode_rate(),
        "total_input_tokens": iteration.prompt_tokens,
        "total_output_tokens": iteration.completion_tokens,
        "ttfts": iteration.ttft_s,
        "itls": iteration.itl_s,
        "kv_blocks_peak": iteration.peak_blocks,
        "kv_unused_slots_at_peak": iteration.peak_unused_slots,
        "kv_unused_slot_share": iteration.unused_share(),
        "steps": iteration.steps,
        "draft_tokens": iteration.draft_tokens,
        "accepted_draft_tokens": iteration.accepted_draft_tokens,
        "preemptions": iteration.preemptions,
        "swaps": iteration.swaps,
        "blocks_allocated": iteration.blocks_allocated,
        "blocks_shared": iteration.blocks_shared,
        "blocks_copied": iteration.blocks_copied,
        "blocks_swapped": iteration.blocks_swapped,
        "cached_tokens": iteration.cached_tokens,
    })
}
