//! The page: the tables' numbers as plots, in one HTML file that needs nothing else.

use anyhow::{Context, Result};
use bindery::simulate::{Clock, Report, Setup, Suite, Workload};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde::Serialize;

use super::super::charts::{self, Bars, Line, Rgb};
use super::report;

/// What memory holds, from the bottom of the stack up.
const CONTENTS: [(&str, Rgb); 4] = [
    ("holds a token", (42, 127, 98)),
    ("reserved for tokens to come", (224, 176, 64)),
    ("internal fragmentation", (217, 115, 78)),
    ("external fragmentation", (154, 160, 166)),
];
const POLICY_COLORS: [Rgb; 4] = [(42, 127, 98), (193, 68, 61), (74, 108, 184), (148, 96, 168)];

#[derive(Serialize)]
struct Section {
    title: &'static str,
    text: String,
    key: Vec<Entry>,
    charts: Vec<Chart>,
}

/// One entry of a legend.
#[derive(Serialize)]
struct Entry {
    name: String,
    color: String,
}

#[derive(Serialize)]
struct Chart {
    caption: String,
    svg: String,
}

/// The whole page.
pub(super) fn html(workload: &Workload, setup: &Setup, suite: &Suite) -> Result<String> {
    let mut sections = Vec::new();
    if suite.policies().next().is_some() {
        sections.push(memory(workload, suite)?);
        sections.push(batch(workload, suite)?);
    }
    if suite.paged.len() > 1 {
        sections.push(block_sizes(suite)?);
    }
    if !suite.sharing.is_empty() {
        sections.push(sharing(suite)?);
    }
    let mut environment = Environment::new();
    environment.add_template("page.html", include_str!("page.html")).context("the page's template")?;
    let page = environment.get_template("page.html")?;
    Ok(page.render(context! {
        workload => &workload.name,
        heading => report::heading(workload, setup),
        sections => Value::from(Serde(&sections)),
        tables => report::text(workload, setup, suite),
    })?)
}

fn entry(name: &str, (r, g, b): Rgb) -> Entry {
    Entry { name: name.to_owned(), color: format!("rgb({r} {g} {b})") }
}

fn time_label(workload: &Workload) -> &'static str {
    if workload.clock == Clock::Seconds { "seconds" } else { "steps" }
}

fn memory(workload: &Workload, suite: &Suite) -> Result<Section> {
    let chart = |report: &Report| {
        let share = |slots: u64| 100.0 * slots as f64 / report.num_slots as f64;
        let moments = charts::thinned(&report.moments);
        let stack = moments.iter().map(|moment| {
            let parts = [moment.token_slots, moment.reserved_slots, moment.internal_slots, moment.external_slots];
            (moment.time, parts.map(share))
        });
        let svg = charts::stacked(&stack.collect::<Vec<_>>(), CONTENTS.map(|(_, color)| color), time_label(workload))?;
        Ok(Chart { caption: format!("{}: {:.1} % wasted under load", name(report), 100.0 * report.waste), svg })
    };
    Ok(Section {
        title: "KV memory over time",
        text: "Share of all slots, in percent. White is free and of use to whoever comes next.".to_owned(),
        key: CONTENTS.iter().map(|&(name, color)| entry(name, color)).collect(),
        charts: suite.policies().map(chart).collect::<Result<_>>()?,
    })
}

fn batch(workload: &Workload, suite: &Suite) -> Result<Section> {
    let lines: Vec<Line> = suite
        .policies()
        .zip(POLICY_COLORS)
        .map(|(report, color)| {
            let moments = charts::thinned(&report.moments);
            let points = moments.iter().map(|moment| (moment.time, f64::from(moment.running_requests))).collect();
            Line { points, color }
        })
        .collect();
    let of = |value: fn(&Report) -> f64| Bars {
        bars: suite.policies().zip(POLICY_COLORS).map(|(report, color)| (name(report), value(report), color)).collect(),
    };
    let mean = of(|report| report.loaded.running_requests);
    let rate = of(|report| report.output_tokens_per_s);
    let unit = if workload.clock == Clock::Seconds { "second" } else { "step" };
    let mut text = "The same requests in the same memory: what waste costs is requests that cannot run.".to_owned();
    if let Some(paged) = suite.paged.first() {
        for contiguous in &suite.contiguous {
            let ratio = paged.loaded.running_requests / contiguous.loaded.running_requests;
            text += &format!(" Paged keeps {ratio:.1} times as many in flight as {}.", contiguous.policy);
        }
    }
    Ok(Section {
        title: "Requests in flight",
        text,
        key: suite.policies().zip(POLICY_COLORS).map(|(report, color)| entry(&name(report), color)).collect(),
        charts: vec![
            Chart { caption: "Over time".to_owned(), svg: charts::lines(&lines, time_label(workload), false)? },
            Chart { caption: "Mean while requests wait".to_owned(), svg: charts::bars(&mean)? },
            Chart { caption: format!("Completion tokens a {unit}, by the cost model"), svg: charts::bars(&rate)? },
        ],
    })
}

fn block_sizes(suite: &Suite) -> Result<Section> {
    let mut by_size: Vec<&Report> = suite.paged.iter().collect();
    by_size.sort_by_key(|report| report.block_size);
    let over_size = |value: fn(&Report) -> f64| {
        let point = |report: &&Report| (f64::from(report.block_size.unwrap_or(1)), value(report));
        let points = by_size.iter().map(point).collect();
        charts::lines(&[Line { points, color: POLICY_COLORS[0] }], "tokens in a block", true)
    };
    Ok(Section {
        title: "Block size",
        text: "Small blocks waste less in the last block of a sequence, and share more of a prefix; large ones have \
               shorter tables."
            .to_owned(),
        key: Vec::new(),
        charts: vec![
            Chart { caption: "Waste under load, %".to_owned(), svg: over_size(|report| 100.0 * report.waste)? },
            Chart {
                caption: "Requests in flight".to_owned(),
                svg: over_size(|report| report.loaded.running_requests)?,
            },
        ],
    })
}

fn sharing(suite: &Suite) -> Result<Section> {
    let of_kind = |kind: &str, color: Rgb| {
        let of_kind = suite.sharing.iter().filter(|sharing| sharing.kind == kind);
        let saved = |report: &Report| report.paged.map_or(0.0, |paged| 100.0 * paged.saved_by_sharing);
        let bars = of_kind.map(|sharing| (sharing.num_seqs.to_string(), saved(&sharing.report), color)).collect();
        charts::bars(&Bars { bars })
    };
    Ok(Section {
        title: "Memory saved by sharing",
        text:
            "Blocks that would be used besides if the sequences of a request shared none, in percent of all that would."
                .to_owned(),
        key: Vec::new(),
        charts: vec![
            Chart { caption: "Parallel samples, by n".to_owned(), svg: of_kind("n", POLICY_COLORS[0])? },
            Chart { caption: "Beam search, by width".to_owned(), svg: of_kind("beam width", POLICY_COLORS[2])? },
        ],
    })
}

fn name(report: &Report) -> String {
    match report.block_size {
        Some(block_size) => format!("{}, blocks of {block_size}", report.policy),
        None => report.policy.clone(),
    }
}
