//! SmolLM2-135M-Instruct on lavapipe with an f16 KV pool, against transformers in f32 on the same weights
//! (`tests/golden/oracle/beam_*.json`: 4 beams, 32 tokens).

use bindery::llm::{Llm, LlmOptions};
use bindery::sampling::SamplingParams;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
const PROMPTS: [&str; 3] = ["short", "code", "chat2"];
/// Completions whose scores the oracle has this near may change places.
const NEAR_TIE: f64 = 0.01;
const SCORE_TOLERANCE: f64 = 2e-3;

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/oracle/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect("the goldens are in the repository"))
        .expect("they are JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list of ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// The oracle's completions, best first, without what pads them after the end-of-sequence token.
fn completions(beams: &Value) -> Vec<(Vec<u32>, f64)> {
    let eos = beams["eos"].as_u64().expect("an id") as u32;
    let sequences = beams["sequences"].as_array().expect("sequences").iter().map(|sequence| {
        let mut ids = ids(sequence);
        if let Some(end) = ids.iter().position(|&id| id == eos) {
            ids.truncate(end + 1);
        }
        ids
    });
    let scores = beams["scores"].as_array().expect("scores").iter().map(|score| score.as_f64().expect("a score"));
    sequences.zip(scores).collect()
}

#[test]
fn beams_equal_those_of_transformers() {
    let options = LlmOptions { device: Some("llvmpipe".into()), max_model_len: Some(1024), ..LlmOptions::new(MODEL) };
    let mut llm = Llm::load(&options, &mut |_| {})
        .unwrap_or_else(|error| panic!("{error}\n`cargo xtask test` installs what is missing"));
    let params = SamplingParams { use_beam_search: true, n: 4, max_tokens: Some(32), ..SamplingParams::default() };
    let prompts = PROMPTS.map(|name| (ids(&golden(&format!("greedy_{name}"))["ids"]), params.clone()));
    let outputs = llm.generate(prompts.into()).expect("generation succeeds");
    for (name, output) in PROMPTS.iter().zip(outputs) {
        let expected = completions(&golden(&format!("beam_{name}")));
        assert_eq!(output.completions.len(), expected.len());
        for (rank, got) in output.completions.iter().enumerate() {
            let score = got.score().expect("beam searches have scores");
            let same = expected.iter().position(|(ids, _)| *ids == got.token_ids);
            eprintln!("{name}: rank {rank} is the oracle's {same:?}: {score:.5}, {:.5}", expected[rank].1);
            let gap = |other: usize| expected.get(other).map_or(f64::INFINITY, |e| (e.1 - expected[rank].1).abs());
            let near_tie = gap(rank + 1).min(rank.checked_sub(1).map_or(f64::INFINITY, gap)) <= NEAR_TIE;
            match same {
                Some(other) => {
                    let distance = (expected[other].1 - expected[rank].1).abs();
                    assert!(distance <= NEAR_TIE, "{name}: rank {rank} is the oracle's {other}");
                    let error = (score - expected[other].1).abs();
                    assert!(error <= SCORE_TOLERANCE, "{name}: score of rank {rank} is off by {error}");
                }
                None => assert!(near_tie, "{name}: rank {rank} is {:?}", got.token_ids),
            }
        }
    }
    let stats = llm.stats();
    assert_eq!(stats.free_blocks, stats.num_blocks, "all blocks are back");
}
