//! Recorded requests, from CSV or JSON lines.
//!
//! Fields: `timestamp` (seconds) or `arrival_step` (scheduler steps), `prompt_tokens`, `output_tokens`, and optionally
//! `prefix_group` (any number; requests of a group start with the same tokens) and `prefix_tokens` (how many; without
//! it, as many as the group's shortest prompt has). CSV has a line that names the columns, or the columns above in that
//! order. JSON lines may instead hold `prompt` (token ids), `max_tokens` and `sys` (the group, or -1): what a group
//! shares is then read off the prompts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{BufRead, Read};

use serde::Deserialize;
use thiserror::Error;

use super::workload::{Arrival, Clock, MAX_REQUESTS, Workload};

/// Bytes in one line at most.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// What is wrong with a trace.
#[derive(Debug, Error)]
pub enum TraceError {
    /// A line that is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// There is nothing in it.
    #[error("there is no request in it")]
    Empty,
}

/// One line, as far as it is understood.
#[derive(Debug, Default, Deserialize)]
struct Record {
    timestamp: Option<f64>,
    arrival_step: Option<u64>,
    prompt_tokens: Option<u32>,
    #[serde(alias = "max_tokens")]
    output_tokens: Option<u32>,
    #[serde(alias = "sys")]
    prefix_group: Option<i64>,
    prefix_tokens: Option<u32>,
    prompt: Option<Vec<u32>>,
}

/// A group of requests that start alike.
#[derive(Debug)]
struct Group {
    index: u32,
    shared_tokens: u32,
    /// The first of its prompts, where prompts are given.
    prompt: Vec<u32>,
}

/// Reads a trace. `max_model_len` is what a request's prompt and completion must fit.
pub fn read(mut input: impl BufRead, name: &str, max_model_len: u32) -> Result<Workload, TraceError> {
    let mut reader = Reader { max_model_len, ..Reader::default() };
    let mut columns: Option<Vec<String>> = None;
    let mut text = String::new();
    let mut line = 0;
    loop {
        text.clear();
        line += 1;
        let fail = |problem: String| TraceError::Line { line, problem };
        if Read::take(&mut input, MAX_LINE_BYTES).read_line(&mut text)? == 0 {
            break;
        }
        if text.len() as u64 == MAX_LINE_BYTES {
            return Err(fail(format!("it is longer than {MAX_LINE_BYTES} bytes")));
        }
        let content = text.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let record = if content.starts_with('{') {
            serde_json::from_str(content).map_err(|error| fail(format!("not a request: {error}")))?
        } else if columns.is_none() && content.starts_with(|c: char| c.is_alphabetic()) {
            columns = Some(content.split(',').map(|column| column.trim().to_owned()).collect());
            continue;
        } else {
            csv_record(content, columns.as_deref()).map_err(fail)?
        };
        reader.add(record).map_err(fail)?;
    }
    reader.finish(name)
}

/// One line of CSV; without named columns they are in the order of the module's text.
fn csv_record(content: &str, columns: Option<&[String]>) -> Result<Record, String> {
    let usual = ["timestamp", "prompt_tokens", "output_tokens", "prefix_group", "prefix_tokens"];
    let fields: Vec<&str> = content.split(',').map(str::trim).collect();
    let count = columns.map_or(usual.len(), <[String]>::len);
    if fields.len() > count || fields.len() < 3 {
        return Err(format!("{} fields, where 3 to {count} are expected", fields.len()));
    }
    let mut record = Record::default();
    for (at, field) in fields.into_iter().enumerate().filter(|(_, field)| !field.is_empty()) {
        let column = columns.map_or(usual[at], |columns| &columns[at]);
        let refuse = || format!("{column} is {field:?}, which is not a number that it can be");
        match column {
            "timestamp" => record.timestamp = Some(field.parse().map_err(|_| refuse())?),
            "arrival_step" => record.arrival_step = Some(field.parse().map_err(|_| refuse())?),
            "prompt_tokens" => record.prompt_tokens = Some(field.parse().map_err(|_| refuse())?),
            "output_tokens" => record.output_tokens = Some(field.parse().map_err(|_| refuse())?),
            "prefix_group" => record.prefix_group = Some(field.parse().map_err(|_| refuse())?),
            "prefix_tokens" => record.prefix_tokens = Some(field.parse().map_err(|_| refuse())?),
            other => return Err(format!("there is no column {other:?}: see `bindery simulate --help`")),
        }
    }
    Ok(record)
}

#[derive(Debug, Default)]
struct Reader {
    max_model_len: u32,
    clock: Option<Clock>,
    arrivals: Vec<Arrival>,
    groups: BTreeMap<i64, Group>,
}

impl Reader {
    fn add(&mut self, record: Record) -> Result<(), String> {
        if self.arrivals.len() as u32 == MAX_REQUESTS {
            return Err(format!("more than {MAX_REQUESTS} requests"));
        }
        let (at, clock) = match (record.timestamp, record.arrival_step) {
            (Some(seconds), None) => (seconds, Clock::Seconds),
            (None, Some(step)) => (step as f64, Clock::Steps),
            _ => return Err("it needs either timestamp (seconds) or arrival_step".into()),
        };
        if !(0.0..1e15).contains(&at) {
            return Err(format!("it arrives at {at}: times are finite and not negative"));
        }
        if *self.clock.get_or_insert(clock) != clock {
            return Err("timestamp and arrival_step cannot be mixed".into());
        }
        let prompt = record.prompt.unwrap_or_default();
        let prompt_tokens = match (record.prompt_tokens, prompt.len()) {
            (Some(tokens), 0) if tokens > 0 => tokens,
            (None, 1..) => u32::try_from(prompt.len()).unwrap_or(u32::MAX),
            _ => return Err("it needs prompt_tokens of at least 1, or prompt with token ids".into()),
        };
        let Some(output_tokens @ 1..) = record.output_tokens else {
            return Err("it needs output_tokens of at least 1".into());
        };
        let tokens = u64::from(prompt_tokens) + u64::from(output_tokens);
        if tokens > u64::from(self.max_model_len) {
            return Err(format!("prompt and output are {tokens} tokens, more than --max-model-len {}", {
                self.max_model_len
            }));
        }
        let prefix = record.prefix_group.filter(|&group| group >= 0);
        let prefix = prefix.map(|group| self.join(group, prompt, prompt_tokens, record.prefix_tokens));
        self.arrivals.push(Arrival { at, prompt_tokens, output_tokens, prefix });
        Ok(())
    }

    /// The number of a group; what it shares shrinks to what this request shares with it.
    fn join(&mut self, group: i64, prompt: Vec<u32>, prompt_tokens: u32, prefix_tokens: Option<u32>) -> u32 {
        let index = self.groups.len() as u32;
        let shared = prefix_tokens.unwrap_or(prompt_tokens);
        match self.groups.entry(group) {
            Entry::Vacant(vacant) => vacant.insert(Group { index, shared_tokens: shared, prompt }).index,
            Entry::Occupied(mut occupied) => {
                let group = occupied.get_mut();
                let alike = group.prompt.iter().zip(&prompt).take_while(|(a, b)| a == b).count() as u32;
                let shared = if prompt.is_empty() { shared } else { alike };
                group.shared_tokens = group.shared_tokens.min(shared);
                group.index
            }
        }
    }

    fn finish(mut self, name: &str) -> Result<Workload, TraceError> {
        let clock = self.clock.ok_or(TraceError::Empty)?;
        self.arrivals.sort_by(|a, b| a.at.total_cmp(&b.at));
        let mut prefixes = vec![0; self.groups.len()];
        for group in self.groups.values() {
            prefixes[group.index as usize] = group.shared_tokens;
        }
        Ok(Workload { name: name.to_owned(), clock, prefixes, arrivals: self.arrivals })
    }
}
