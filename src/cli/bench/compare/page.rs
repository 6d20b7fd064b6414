//! The page: how many times as fast B is, and the rates of both, in one HTML file that needs nothing else.

use super::super::super::charts::{self, Bars, Rgb};
use super::super::target::OpenTarget;
use super::Comparison;
use anyhow::{Context as _, Result};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde::Serialize;

const A: Rgb = (154, 160, 166);
const B: Rgb = (42, 127, 98);
const SLOWER: Rgb = (193, 68, 61);
/// Bars of one plot, at most.
const BARS: usize = 8;

#[derive(Serialize)]
struct Section {
    title: &'static str,
    charts: Vec<Chart>,
}

#[derive(Serialize)]
struct Chart {
    caption: String,
    svg: String,
}

pub(super) fn html(
    heading: &str,
    targets: &[OpenTarget; 2],
    kernels: &[Comparison],
    rates: &[Comparison],
    tables: &str,
) -> Result<String> {
    let mut sections = Vec::new();
    if !rates.is_empty() {
        sections.push(Section { title: "End to end, tokens per second", charts: rate_charts(rates)? });
    }
    if !kernels.is_empty() {
        let title = "How many times as fast B is, kernel by kernel";
        sections.push(Section { title, charts: ratio_charts(kernels)? });
    }
    let mut environment = Environment::new();
    environment.add_template("page.html", include_str!("page.html")).context("the page's template")?;
    Ok(environment.get_template("page.html")?.render(context! {
        heading, tables,
        a => &targets[0].description,
        b => &targets[1].description,
        sections => Value::from(Serde(&sections)),
    })?)
}

fn rate_charts(rates: &[Comparison]) -> Result<Vec<Chart>> {
    let chart = |rate: &Comparison| {
        let [a, b] = rate.medians();
        let bars = vec![("A".to_owned(), a, A), ("B".to_owned(), b, B)];
        Ok(Chart { caption: rate.name.clone(), svg: charts::bars(&Bars { bars })? })
    };
    rates.iter().map(chart).collect()
}

/// One plot for some programs of one op; the bars bear the numbers of the steps.
fn ratio_charts(kernels: &[Comparison]) -> Result<Vec<Chart>> {
    let split = |comparison: &Comparison| {
        let (what, step) = comparison.name.rsplit_once(", ").unwrap_or((&comparison.name, ""));
        (what.to_owned(), step.to_owned())
    };
    let mut charts = Vec::new();
    for group in kernels.chunk_by(|a, b| split(a).0 == split(b).0) {
        for part in group.chunks(BARS) {
            let bar = |comparison: &Comparison| {
                let speed = comparison.speed_of_b();
                (split(comparison).1, speed, if speed < 1.0 { SLOWER } else { B })
            };
            let svg = charts::bars(&Bars { bars: part.iter().map(bar).collect() })?;
            charts.push(Chart { caption: split(&part[0]).0, svg });
        }
    }
    Ok(charts)
}
