//! The report, written anew after every stage: what is there is whole, whatever happens next.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::goals::goals;
use super::machine::Machine;
use super::parity::{self, Agreement, Run};
use super::plan::{Backend, Golden, Scale, TOKEN_RUNS};
use super::stage::{Outcome, Stage};

/// A stage that has had its turn.
#[derive(Debug)]
pub struct Record {
    pub name: String,
    pub outcome: Outcome,
    pub took: Duration,
    /// What it wrote.
    pub figures: Option<Value>,
}

impl Record {
    /// With the figures that the stage has left in `results/`.
    pub fn new(stage: &Stage, outcome: Outcome, took: Duration, folder: &Path) -> Self {
        let path = folder.join("results").join(format!("{}.json", stage.name));
        let text = if stage.writes_json { fs::read_to_string(path).ok() } else { None };
        let figures = text.and_then(|text| serde_json::from_str(&text).ok());
        Self { name: stage.name.clone(), outcome, took, figures }
    }
}

/// Whether two sources of tokens agree.
struct Parity {
    name: String,
    /// `None` where one of them has none.
    agreement: Option<Agreement>,
}

/// Everything there is to tell.
pub struct Report<'a> {
    pub folder: &'a Path,
    pub machine: &'a Machine,
    pub scale: Scale,
    pub records: Vec<Record>,
}

impl Report<'_> {
    /// Writes `report.md` and `report.json`.
    pub fn write(&self) -> Result<()> {
        let parity = self.parity();
        let results = self.folder.join("results");
        let write = |name: &str, text: String| {
            let path = results.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("report.json", serde_json::to_string_pretty(&self.json(&parity))?)?;
        write("report.md", self.markdown(&parity))
    }

    /// What went wrong; what is absent did not.
    pub fn failures(&self) -> Vec<String> {
        let failed = |record: &&Record| matches!(record.outcome, Outcome::Failed(_) | Outcome::TimedOut);
        let stages = self.records.iter().filter(failed).map(|r| format!("{}: {}", r.name, r.outcome.word()));
        let differs = |p: Parity| {
            let agreement = p.agreement.filter(|agreement| !agreement.differ.is_empty())?;
            Some(format!("{}: {agreement}", p.name))
        };
        stages.chain(self.parity().into_iter().filter_map(differs)).collect()
    }

    /// Each backend's tokens against the goldens, and the backends against each other.
    fn parity(&self) -> Vec<Parity> {
        let mut all = Vec::new();
        for run in TOKEN_RUNS {
            let (name, golden) = (run.name, self.golden(run.golden));
            let [vulkan, cuda] = Backend::ALL.map(|backend| self.tokens(name, backend));
            let pairs = [
                ("golden, vulkan", &golden, &vulkan),
                ("golden, cuda", &golden, &cuda),
                ("vulkan, cuda", &vulkan, &cuda),
            ];
            for (what, reference, got) in pairs {
                let agreement = reference.as_ref().zip(got.as_ref()).map(|(a, b)| parity::compare(a, b));
                all.push(Parity { name: format!("tokens of {name}: {what}"), agreement });
            }
        }
        all
    }

    fn tokens(&self, name: &str, backend: Backend) -> Option<BTreeMap<String, Run>> {
        let stage = format!("tokens-{name}-{}", backend.name());
        let passed = self.records.iter().any(|r| r.name == stage && r.outcome == Outcome::Passed);
        let text = passed.then(|| fs::read_to_string(self.folder.join("results").join(format!("{stage}.jsonl"))));
        parity::from_batch_output(&text?.ok()?).ok()
    }

    fn golden(&self, which: Golden) -> Option<BTreeMap<String, Run>> {
        let golden = self.folder.join("golden");
        if which == Golden::Tiny {
            return parity::from_batch_output(&fs::read_to_string(golden.join("tiny.jsonl")).ok()?).ok();
        }
        let is_golden = |path: &std::path::PathBuf| {
            path.file_name().is_some_and(|file| file.to_string_lossy().starts_with("greedy_"))
        };
        let files = fs::read_dir(golden).ok()?.flatten().map(|entry| entry.path()).filter(is_golden);
        files.map(|path| parity::from_golden(&fs::read_to_string(path).ok()?).ok()).collect()
    }

    fn json(&self, parity: &[Parity]) -> Value {
        let stages = self.records.iter().map(|record| {
            json!({
                "stage": record.name,
                "outcome": record.outcome.word(),
                "reason": record.outcome.reason(),
                "seconds": record.took.as_secs_f64(),
                "figures": record.figures,
            })
        });
        let parity = parity.iter().map(|p| match &p.agreement {
            None => json!({"pair": p.name, "outcome": "absent"}),
            Some(a) => json!({"pair": p.name, "equal": a.equal, "near_ties": a.near_ties, "differ": a.differ}),
        });
        json!({
            "date": today(),
            "program": self.machine.program,
            "machine": self.machine.description,
            "is_dry_run": self.scale == Scale::Tiny,
            "vulkan_device": self.machine.vulkan,
            "without_cuda": self.machine.without_cuda,
            "devices": self.machine.devices,
            "stages": stages.collect::<Vec<_>>(),
            "parity": parity.collect::<Vec<_>>(),
        })
    }

    fn markdown(&self, parity: &[Parity]) -> String {
        let mut text = self.heading();
        text.push_str("\n| stage | outcome | seconds | figures |\n|---|---|---|---|\n");
        for record in &self.records {
            let outcome = match record.outcome.reason() {
                "" => record.outcome.word().to_owned(),
                reason => format!("{}: {}", record.outcome.word(), reason.replace('|', "/")),
            };
            let figures = record.figures.as_ref().map(figures).unwrap_or_default();
            let took = record.took.as_secs_f64();
            writeln!(text, "| {} | {outcome} | {took:.1} | {figures} |", record.name)
                .expect("a string takes any write");
        }
        text.push_str("\n| greedy tokens | |\n|---|---|\n");
        for Parity { name, agreement } in parity {
            let result = agreement.as_ref().map_or("absent".to_owned(), ToString::to_string);
            writeln!(text, "| {name} | {result} |").expect("a string takes any write");
        }
        // Those of the tiny model say nothing.
        if self.scale == Scale::Full {
            text.push_str("\n| goal | at least | measured | |\n|---|---|---|---|\n");
            let figures = |stage: &str| self.records.iter().find(|r| r.name == stage)?.figures.as_ref();
            goals(&figures).iter().for_each(|goal| writeln!(text, "{goal}").expect("a string takes any write"));
        }
        text
    }

    /// What was checked, where, and on which devices.
    fn heading(&self) -> String {
        let Machine { program, description, vulkan, without_cuda, .. } = self.machine;
        let mut lines = vec![format!("# gpu-check, {}", today()), String::new(), format!("{program}; {description}")];
        if self.scale == Scale::Tiny {
            lines.push(String::new());
            lines.push("A dry run: tiny models under the names of large ones. It shows that the check works; its figures mean nothing.".to_owned());
        }
        lines.push(String::new());
        for device in &self.machine.devices {
            let name = |key: &str| device[key].as_str().unwrap_or_default();
            let is_tested = name("backend") == "cuda" || device["index"].as_u64() == *vulkan;
            let tested = if is_tested { "" } else { " (not tested)" };
            lines.push(format!(
                "- {} {}: {}, {}{tested}",
                name("backend"),
                device["index"],
                name("name"),
                name("driver")
            ));
        }
        lines.extend(without_cuda.as_ref().map(|reason| format!("- {reason}")));
        lines.join("\n") + "\n"
    }
}

/// The figures that matter most, in one line.
fn figures(json: &Value) -> String {
    let known = [
        ("prefill_tokens_per_s", "prefill tokens/s", 1.0),
        ("decode_tokens_per_s", "decode tokens/s", 1.0),
        ("decode_share_of_copy_bandwidth", "% of copy bandwidth in decode", 100.0),
        ("output_throughput", "completion tokens/s", 1.0),
        ("copy_bytes_per_s", "GB/s copied", 1e-9),
        ("copy_bandwidth_bytes_per_s", "GB/s copied", 1e-9),
        ("prefill_512_tokens_per_s", "prefill tokens/s", 1.0),
        ("decode_batch1_tokens_per_s", "decode tokens/s", 1.0),
        ("decode_batch1_cuda_graph_tokens_per_s", "decode tokens/s by a CUDA graph", 1.0),
    ];
    let found = known
        .iter()
        .filter_map(|&(key, unit, factor)| json[key].as_f64().map(|value| format!("{:.1} {unit}", value * factor)));
    found.collect::<Vec<_>>().join(", ")
}

/// Today's date, UTC.
pub fn today() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil_date(since_epoch.as_secs() / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil_date(mut day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let days = if is_leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    for (month, days) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if day < days {
            return (year, month, day + 1);
        }
        day -= days;
    }
    unreachable!("a day of a year is in one of its months")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(11_017), (2000, 3, 1));
        assert_eq!(civil_date(20_781), (2026, 11, 24));
    }

    #[test]
    fn what_is_absent_is_neither_passed_nor_failed() {
        let folder = std::env::temp_dir().join(format!("bindery-report-{}", std::process::id()));
        fs::create_dir_all(folder.join("results")).unwrap();
        let without_cuda = Some("CUDA: no CUDA driver found".to_owned());
        let machine = Machine { description: "a machine".into(), without_cuda, ..Machine::default() };
        let record = |name: &str, outcome| Record {
            name: name.into(),
            outcome,
            took: Duration::from_secs(1),
            figures: Some(json!({"decode_tokens_per_s": 12.5})),
        };
        let absent = Outcome::Absent("no CUDA".into());
        let records = vec![record("selftest-cuda", absent)];
        let mut report = Report { folder: &folder, machine: &machine, scale: Scale::Full, records };
        assert_eq!(report.failures(), [""; 0]);
        report.records.push(record("selftest-vulkan", Outcome::Failed("exit status: 1".into())));
        assert_eq!(report.failures(), ["selftest-vulkan: FAILED"]);
        report.write().unwrap();
        let text = fs::read_to_string(folder.join("results/report.md")).unwrap();
        assert!(text.contains("| selftest-cuda | absent: no CUDA | 1.0 | 12.5 decode tokens/s |"), "{text}");
        for line in [
            "- CUDA: no CUDA driver found\n",
            "| tokens of tiny: golden, cuda | absent |",
            "| 8B f16 decode of one sequence on CUDA, share of copy bandwidth | 0.75 | | not measured |",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let json: Value =
            serde_json::from_str(&fs::read_to_string(folder.join("results/report.json")).unwrap()).unwrap();
        assert_eq!(json["stages"][0]["outcome"], "absent");
        fs::remove_dir_all(folder).unwrap();
    }
}
