//! Whether two runs of `bindery run-batch` generated the same tokens.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// Below this margin between the likeliest token and the next, in nats, rounding may decide.
const NEAR_TIE: f64 = 0.15;

/// Greedy tokens of one prompt, with the margin at each where it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    tokens: Vec<u64>,
    margins: Vec<f64>,
}

/// How many prompts agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The same to the last token.
    pub equal: usize,
    /// Parting where the reference is nearly undecided.
    pub near_ties: usize,
    /// Everything else, in words.
    pub differ: Vec<String>,
}

/// The runs in the output of `bindery run-batch`, by their `custom_id`.
pub fn from_batch_output(text: &str) -> Result<BTreeMap<String, Run>> {
    let mut runs = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("a line of the output is no JSON")?;
        let name = line["custom_id"].as_str().context("a line without custom_id")?.to_owned();
        let choice = &line["response"]["body"]["choices"][0];
        let tokens = numbers(&choice["token_ids"], Value::as_u64).with_context(|| format!("{name}: no token_ids"))?;
        let top = choice["logprobs"]["top_logprobs"].as_array().map(Vec::as_slice).unwrap_or_default();
        runs.insert(name, Run { tokens, margins: top.iter().map(margin).collect() });
    }
    Ok(runs)
}

/// A golden file of `tests/golden/oracle`: its name and its run.
pub fn from_golden(text: &str) -> Result<(String, Run)> {
    let golden: Value = serde_json::from_str(text)?;
    let name = golden["name"].as_str().context("no name")?.to_owned();
    let tokens = numbers(&golden["greedy48_ids_ignore_eos"], Value::as_u64).context("no tokens")?;
    let margins = numbers(&golden["margins"], Value::as_f64).context("no margins")?;
    Ok((name, Run { tokens, margins }))
}

fn numbers<T>(list: &Value, number: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    list.as_array()?.iter().map(number).collect()
}

/// Of one position's `{token: log probability}`; infinite with fewer than two.
fn margin(top: &Value) -> f64 {
    let mut logprobs: Vec<f64> = top.as_object().into_iter().flatten().filter_map(|(_, v)| v.as_f64()).collect();
    logprobs.sort_by(|a, b| b.total_cmp(a));
    match logprobs[..] {
        [first, second, ..] => first - second,
        _ => f64::INFINITY,
    }
}

/// Holds runs against their references.
pub fn compare(references: &BTreeMap<String, Run>, got: &BTreeMap<String, Run>) -> Agreement {
    let mut agreement = Agreement::default();
    for (name, reference) in references {
        let Some(run) = got.get(name) else {
            agreement.differ.push(format!("{name}: not there"));
            continue;
        };
        let parts = reference.tokens.iter().zip(&run.tokens).position(|(a, b)| a != b);
        match parts {
            None if reference.tokens.len() == run.tokens.len() => agreement.equal += 1,
            None => agreement.differ.push(format!("{name}: {} tokens", run.tokens.len())),
            Some(at) => match reference.margins.get(at) {
                Some(&margin) if margin < NEAR_TIE => agreement.near_ties += 1,
                margin => agreement.differ.push(format!("{name}: parts at token {at}, margin {margin:?}")),
            },
        }
    }
    agreement
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { equal, near_ties, differ } = self;
        write!(f, "{equal} equal, {near_ties} part at a near tie, {} differ", differ.len())?;
        differ.iter().try_for_each(|what| write!(f, "; {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(tokens: &[u64], margins: &[f64]) -> BTreeMap<String, Run> {
        BTreeMap::from([("a".to_owned(), Run { tokens: tokens.to_vec(), margins: margins.to_vec() })])
    }

    #[test]
    fn parting_is_forgiven_at_a_near_tie_only() {
        let reference = runs(&[1, 2, 3], &[1.0, 0.1, 1.0]);
        let agreement = |tokens: &[u64]| compare(&reference, &runs(tokens, &[]));
        assert_eq!(agreement(&[1, 2, 3]), Agreement { equal: 1, ..Agreement::default() });
        assert_eq!(agreement(&[1, 9, 9]), Agreement { near_ties: 1, ..Agreement::default() });
        for tokens in [&[1, 2, 9][..], &[9, 2, 3], &[1, 2]] {
            assert_eq!(agreement(tokens).differ.len(), 1, "{tokens:?}");
        }
        assert_eq!(compare(&reference, &BTreeMap::new()).differ, ["a: not there"]);
    }

    #[test]
    fn runs_are_read_from_what_run_batch_writes() {
        let line = r#"{"custom_id": "a", "response": {"body": {"choices": [{"token_ids": [5, 6], "logprobs":
            {"top_logprobs": [{"x": -0.5, "y": -1.5}, {"x": -0.1}]}}]}}}"#;
        let found = from_batch_output(&line.replace('\n', " ")).unwrap();
        assert_eq!(found, runs(&[5, 6], &[1.0, f64::INFINITY]));
        assert!(from_batch_output(r#"{"custom_id": "a", "response": {"body": {"error": "x"}}}"#).is_err());
    }
}
