//! What the clients have seen, in numbers.

use super::super::super::charts::{self, Line};
use super::super::super::table::table;
use super::super::statistics::percentile;
use super::client::Answer;
use super::{Endpoint, ServeArgs, Served};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Percentiles that are told, as vLLM tells them.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 95.0, 99.0];

pub(super) struct Report<'a> {
    args: &'a ServeArgs,
    model: String,
    served: &'a [Served],
    duration: f64,
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a ServeArgs, model: String, served: &'a [Served], duration: f64) -> Self {
        Self { args, model, served, duration }
    }

    fn answers(&self) -> impl Iterator<Item = &'a Answer> {
        self.served.iter().filter_map(|served| served.answer.as_ref().ok())
    }

    /// Requests that were answered to their end.
    pub(super) fn completed(&self) -> usize {
        self.answers().count()
    }

    /// Why a request was not answered.
    pub(super) fn first_error(&self) -> String {
        self.served.iter().find_map(|served| served.answer.as_ref().err()).cloned().unwrap_or_default()
    }

    /// Latencies in milliseconds, by vLLM's names.
    fn latencies(&self) -> [(&'static str, Vec<f64>); 4] {
        let ms = |seconds: f64| 1e3 * seconds;
        let tpot = |answer: &Answer| {
            let later = answer.completion_tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
            Some(ms(answer.e2e_s - answer.ttft_s) / later as f64)
        };
        [
            ("ttft", self.answers().map(|answer| ms(answer.ttft_s)).collect()),
            ("tpot", self.answers().filter_map(tpot).collect()),
            ("itl", self.answers().flat_map(|answer| &answer.itl_s).map(|seconds| ms(*seconds)).collect()),
            ("e2el", self.answers().map(|answer| ms(answer.e2e_s)).collect()),
        ]
    }

    fn rates(&self) -> [(&'static str, f64); 3] {
        let sum = |part: fn(&Answer) -> u64| self.answers().map(part).sum::<u64>() as f64;
        let (prompt, completion) = (sum(|answer| answer.prompt_tokens), sum(|answer| answer.completion_tokens));
        [
            ("request_throughput", self.completed() as f64 / self.duration),
            ("output_throughput", completion / self.duration),
            ("total_token_throughput", (prompt + completion) / self.duration),
        ]
    }

    /// The most requests that were being answered at once.
    fn max_concurrent(&self) -> usize {
        let ends = self.served.iter().filter_map(|served| Some((served.sent_at, served.answer.as_ref().ok()?.e2e_s)));
        let mut changes: Vec<(f64, i64)> = ends.flat_map(|(at, took)| [(at, 1), (at + took, -1)]).collect();
        changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut now = 0;
        changes
            .iter()
            .map(|(_, change)| {
                now += change;
                now
            })
            .max()
            .unwrap_or(0) as usize
    }

    /// The most tokens that came in one second, counted from the start.
    fn max_output_tokens_per_s(&self) -> u64 {
        let mut in_second = BTreeMap::<u64, u64>::new();
        for served in self.served {
            let Ok(answer) = &served.answer else { continue };
            let mut at = served.sent_at + answer.ttft_s;
            *in_second.entry(at as u64).or_default() += 1;
            for seconds in &answer.itl_s {
                at += seconds;
                *in_second.entry(at as u64).or_default() += 1;
            }
        }
        in_second.into_values().max().unwrap_or(0)
    }

    pub(super) fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .latencies()
            .iter()
            // There is nothing between the tokens of an answer of one.
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, values)| {
                let of = |p: f64| format!("{:.1}", percentile(values.iter().copied(), p));
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let mut row = vec![name.to_uppercase(), format!("{mean:.1}")];
                row.extend(PERCENTILES.map(of));
                row
            })
            .collect();
        let [requests, output, total] = self.rates().map(|(_, rate)| rate);
        let mut text = format!(
            "{} at {}: {} of {} requests in {:.1} s, up to {} at once\n{requests:.2} requests/s, {output:.1} completion \
             tokens/s, {total:.1} tokens/s in all\n{}",
            self.model,
            self.args.base_url,
            self.completed(),
            self.served.len(),
            self.duration,
            self.max_concurrent(),
            table(&["ms", "mean", "p50", "p90", "p95", "p99"], &rows)
        );
        if self.completed() < self.served.len() {
            text +=
                &format!("\nfailed: {}, the first with: {}", self.served.len() - self.completed(), self.first_error());
        }
        text
    }

    /// vLLM's fields.
    pub(super) fn json(&self) -> Value {
        let of = |value: fn(&Answer) -> Value| {
            let all = self.served.iter().map(|served| served.answer.as_ref().map_or(Value::Null, value));
            Value::Array(all.collect())
        };
        let sum = |part: fn(&Answer) -> u64| self.answers().map(part).sum::<u64>();
        let mut json = Map::new();
        let mut put = |name: &str, value: Value| json.insert(name.to_owned(), value);
        put("backend", json!("openai"));
        put("endpoint", json!(if self.args.endpoint == Endpoint::Chat { "chat" } else { "completions" }));
        put("base_url", json!(self.args.base_url));
        put("model_id", json!(self.model));
        put("num_prompts", json!(self.args.num_prompts));
        put(
            "request_rate",
            if self.args.request_rate.is_finite() { json!(self.args.request_rate) } else { json!("inf") },
        );
        put("max_concurrency", json!(self.args.max_concurrency));
        put("seed", json!(self.args.seed));
        put("duration", json!(self.duration));
        put("completed", json!(self.completed()));
        put("failed", json!(self.served.len() - self.completed()));
        put("total_input_tokens", json!(sum(|answer| answer.prompt_tokens)));
        put("total_output_tokens", json!(sum(|answer| answer.completion_tokens)));
        self.rates().into_iter().for_each(|(name, rate)| {
            put(name, json!(rate));
        });
        // There is no goodput without a goal, and no flag that sets one.
        put("request_goodput", Value::Null);
        put("max_output_tokens_per_s", json!(self.max_output_tokens_per_s()));
        put("max_concurrent_requests", json!(self.max_concurrent()));
        for (name, values) in self.latencies() {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
            put(&format!("mean_{name}_ms"), json!(mean));
            put(&format!("median_{name}_ms"), json!(percentile(values.iter().copied(), 50.0)));
            put(&format!("std_{name}_ms"), json!(variance.sqrt()));
            for p in PERCENTILES {
                put(&format!("p{p:.0}_{name}_ms"), json!(percentile(values.iter().copied(), p)));
            }
        }
        put("input_lens", of(|answer| json!(answer.prompt_tokens)));
        put("output_lens", of(|answer| json!(answer.completion_tokens)));
        put("ttfts", of(|answer| json!(answer.ttft_s)));
        put("itls", of(|answer| json!(answer.itl_s)));
        put("latencies", of(|answer| json!(answer.e2e_s)));
        put("start_times", json!(self.served.iter().map(|served| served.sent_at).collect::<Vec<_>>()));
        put("planned_output_lens", json!(self.served.iter().map(|served| served.planned_output).collect::<Vec<_>>()));
        put("generated_texts", of(|answer| json!(answer.text)));
        let error = |served: &Served| served.answer.as_ref().err().cloned().unwrap_or_default();
        put("errors", json!(self.served.iter().map(error).collect::<Vec<_>>()));
        Value::Object(json)
    }

    /// Latencies over the time at which requests were sent.
    pub(super) fn html(&self) -> Result<String> {
        let over_time = |value: fn(&Answer) -> f64| {
            let point = |served: &Served| Some((served.sent_at, value(served.answer.as_ref().ok()?)));
            let mut points: Vec<(f64, f64)> = self.served.iter().filter_map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            charts::lines(&[Line { points, color: (42, 127, 98) }], "sent at, seconds", false)
        };
        let mean_itl = |answer: &Answer| 1e3 * answer.itl_s.iter().sum::<f64>() / answer.itl_s.len().max(1) as f64;
        let charts = [
            ("Time to first token, ms", over_time(|answer| 1e3 * answer.ttft_s)?),
            ("Mean inter-token latency, ms", over_time(mean_itl)?),
            ("Whole request, s", over_time(|answer| answer.e2e_s)?),
        ];
        let figures = charts.map(|(caption, svg)| format!("<h2>{caption}</h2>\n{svg}\n")).concat();
        let escaped = self.text().replace('&', "&amp;").replace('<', "&lt;");
        Ok(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>bindery bench serve</title>\n<style>body \
             {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }} h2 {{ \
             font-size: 1rem; margin-bottom: 0 }} svg {{ max-width: 100% }} pre {{ background: #f6f6f4; padding: 1rem; \
             overflow-x: auto }}</style></head>\n<body><h1>A server under load</h1>\n<pre>{escaped}</pre>\n{figures}</body></html>\n"
        ))
    }
}
