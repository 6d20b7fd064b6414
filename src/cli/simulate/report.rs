//! Tables and JSON.

use bindery::simulate::{Clock, Report, Setup, Suite, Workload};
use serde_json::{Value, json};

use super::super::table::table;
use super::super::units::bytes;

/// All tables.
pub(super) fn text(workload: &Workload, setup: &Setup, suite: &Suite) -> String {
    let mut parts = vec![heading(workload, setup)];
    if suite.policies().next().is_some() {
        parts.push(policies(workload, suite));
    }
    if let Some(report) = suite.paged.first() {
        parts.push(counts(report));
    }
    if suite.paged.len() > 1 {
        parts.push(block_sizes(suite));
    }
    if !suite.sharing.is_empty() {
        parts.push(sharing(suite));
    }
    parts.join("\n\n")
}

/// All numbers.
pub(super) fn json(workload: &Workload, setup: &Setup, suite: &Suite) -> Value {
    let (prompt, output) = workload.mean_lengths();
    json!({
        "workload": {
            "name": workload.name,
            "requests": workload.arrivals.len(),
            "clock": match workload.clock { Clock::Seconds => "seconds", Clock::Steps => "steps" },
            "mean_prompt_tokens": prompt,
            "mean_output_tokens": output,
        },
        "setup": {
            "model": setup.cost.model.name,
            "kv_slots": setup.num_slots,
            "kv_bytes_per_token": setup.cost.model.kv_bytes_per_token(),
            "max_num_seqs": setup.max_num_seqs,
            "max_num_batched_tokens": setup.max_num_batched_tokens,
            "max_model_len": setup.max_model_len,
            "enable_prefix_caching": setup.enable_prefix_caching,
            "contiguous_layout": format!("{:?}", setup.layout),
            "n": setup.n,
            "beam_width": setup.beam_width,
            "beam_replacement": setup.beam_replacement,
            "bandwidth_bytes_per_s": setup.cost.bandwidth_bytes_per_s,
            "flops_per_s": setup.cost.flops_per_s,
            "seed": setup.seed,
        },
        "runs": suite,
    })
}

/// What was simulated, in one line.
pub(super) fn heading(workload: &Workload, setup: &Setup) -> String {
    let (prompt, output) = workload.mean_lengths();
    let kv_bytes = setup.num_slots * setup.cost.model.kv_bytes_per_token();
    format!(
        "{} requests ({}), {prompt:.0} tokens in and {output:.0} out on average, n {}, beam width {}; \
         {} slots of KV memory ({} for {})",
        workload.arrivals.len(),
        workload.name,
        setup.n,
        setup.beam_width,
        setup.num_slots,
        bytes(kv_bytes),
        setup.cost.model.name,
    )
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

fn policies(workload: &Workload, suite: &Suite) -> String {
    let unit = if workload.clock == Clock::Seconds { "s" } else { "step" };
    let (per_time, latency) = (format!("tokens/{unit}"), format!("{unit}/token"));
    let head = [
        "policy",
        "in flight",
        "peak",
        "seqs",
        "tokens",
        "reserved",
        "internal",
        "external",
        "waste",
        &per_time,
        &latency,
        "refused",
    ];
    let row = |report: &Report| {
        let share = |slots: f64| percent(slots / report.num_slots as f64);
        let name = match report.block_size {
            Some(block_size) => format!("{} ({block_size})", report.policy),
            None => report.policy.clone(),
        };
        vec![
            name,
            format!("{:.1}", report.loaded.running_requests),
            report.peak_running_requests.to_string(),
            format!("{:.1}", report.loaded.running_seqs),
            share(report.loaded.token_slots),
            share(report.loaded.reserved_slots),
            share(report.loaded.internal_slots),
            share(report.loaded.external_slots),
            percent(report.waste),
            format!("{:.1}", report.output_tokens_per_s),
            format!("{:.3}", report.normalized_latency_s),
            report.refused_requests.to_string(),
        ]
    };
    let rows: Vec<_> = suite.policies().map(row).collect();
    format!("While requests wait for room (all time, if none does):\n{}", table(&head, &rows))
}

fn counts(report: &Report) -> String {
    let Some(paged) = &report.paged else { return String::new() };
    let hit = |hit: u64, query: u64| {
        let share = if query > 0 { hit as f64 / query as f64 } else { 0.0 };
        format!("{hit} of {query} tokens ({})", percent(share))
    };
    let rows = [
        ("requests finished", format!("{} in {:.1}", report.finished_requests, report.duration)),
        ("steps", report.steps.to_string()),
        ("tokens computed", report.computed_tokens.to_string()),
        ("blocks allocated", paged.blocks_allocated.to_string()),
        (
            "blocks used",
            format!("{:.1} mean, {} peak, of {}", report.means.used_blocks, paged.peak_used_blocks, {
                paged.num_blocks
            }),
        ),
        (
            "requests running",
            format!("{:.1} mean, {} peak", report.means.running_requests, { report.peak_running_requests }),
        ),
        (
            "unused slots",
            format!("{:.2} for each sequence, {:.2}% of its blocks", paged.unused_slots_per_seq, {
                100.0 * report.means.waste()
            }),
        ),
        ("prefix hits", hit(paged.prefix_hit_tokens, paged.prefix_query_tokens)),
        ("hits after preemption", hit(paged.resumed_hit_tokens, paged.resumed_query_tokens)),
        ("preemptions", paged.preemptions.to_string()),
        ("copies on write", paged.cow_copies.to_string()),
        ("saved by sharing", percent(paged.saved_by_sharing)),
    ];
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<22} {value}")).collect();
    format!("Paged, blocks of {} tokens, all time:\n{}", report.block_size.unwrap_or_default(), lines.join("\n"))
}

fn block_sizes(suite: &Suite) -> String {
    let mut reports: Vec<&Report> = suite.paged.iter().collect();
    reports.sort_by_key(|report| report.block_size);
    let row = |report: &&Report| {
        let paged = report.paged.expect("paged");
        vec![
            report.block_size.unwrap_or_default().to_string(),
            percent(report.waste),
            format!("{:.1}", report.loaded.running_requests),
            paged.preemptions.to_string(),
            paged.prefix_hit_tokens.to_string(),
            percent(paged.saved_by_sharing),
            format!("{:.1}", report.output_tokens_per_s),
        ]
    };
    let head = ["block size", "waste", "in flight", "preemptions", "hit tokens", "saved", "tokens/s"];
    let rows: Vec<_> = reports.iter().map(row).collect();
    format!("Block sizes:\n{}", table(&head, &rows))
}

fn sharing(suite: &Suite) -> String {
    let row = |sharing: &bindery::simulate::Sharing| {
        let paged = sharing.report.paged.expect("paged");
        vec![
            format!("{} = {}", sharing.kind, sharing.num_seqs),
            percent(paged.saved_by_sharing),
            paged.cow_copies.to_string(),
            format!("{:.1}", sharing.report.loaded.running_requests),
            paged.preemptions.to_string(),
        ]
    };
    let rows: Vec<_> = suite.sharing.iter().map(row).collect();
    let head = ["sharing", "blocks saved", "copies", "in flight", "preemptions"];
    format!("Sequences of one request, {} requests:\n{}", suite.sharing[0].report.requests, table(&head, &rows))
}
