//! SmolLM2-135M-Instruct end to end, on lavapipe with an f16 KV pool, against transformers in f32 on the same weights
//! (`tests/golden/oracle`).

#![cfg(feature = "webgpu")]

use bindery::llm::{Llm, LlmOptions, RequestOutput};
use bindery::sampling::SamplingParams;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
const HF_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct-hf");
const PROMPTS: [&str; 3] = ["short", "code", "chat2"];
/// Below this margin between the oracle's best and second logit a divergence is no error.
const NEAR_TIE: f64 = 0.15;

fn options(model: &str) -> LlmOptions {
    let mut options = LlmOptions::new(model);
    options.device = Some("llvmpipe".into());
    options.max_model_len = Some(1024);
    options
}

fn load(options: &LlmOptions) -> Llm {
    Llm::load(options, &mut |_| {})
        .unwrap_or_else(|error| panic!("{error}\n`cargo xtask test` installs what is missing"))
}

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/oracle/greedy_{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect("the goldens are in the repository"))
        .expect("they are JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list of ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn greedy(tokens: u32) -> SamplingParams {
    SamplingParams { ignore_eos: true, ..SamplingParams::greedy(tokens) }
}

/// The oracle's tokens up to the first divergence, which must be a near tie. How many tokens were equal.
fn assert_equal_up_to_near_ties(name: &str, got: &[u32], golden: &Value) -> usize {
    let expected = ids(&golden["greedy48_ids_ignore_eos"]);
    let margins = golden["margins"].as_array().expect("margins");
    assert_eq!(got.len(), expected.len(), "{name}: length");
    let Some(at) = got.iter().zip(&expected).position(|(a, b)| a != b) else { return expected.len() };
    let margin = margins[at].as_f64().expect("a margin");
    assert!(margin < NEAR_TIE, "{name}: token {at} is {} instead of {} (margin {margin})", got[at], expected[at]);
    eprintln!("{name}: diverges at token {at}, a near tie of {margin:.3} logits");
    at
}

fn generate(llm: &mut Llm, params: &SamplingParams) -> Vec<RequestOutput> {
    let prompts = PROMPTS.map(|name| (ids(&golden(name)["ids"]), params.clone()));
    llm.generate(prompts.into()).expect("generation succeeds")
}

#[test]
fn greedy_tokens_equal_the_oracle() {
    let mut llm = load(&options(MODEL));
    for (name, output) in PROMPTS.iter().zip(generate(&mut llm, &greedy(48))) {
        let golden = golden(name);
        let equal = assert_equal_up_to_near_ties(name, &output.completions[0].token_ids, &golden);
        eprintln!("{name}: {equal} of 48 tokens equal");
    }
}

#[test]
fn the_last_prompt_position_has_the_oracle_s_logprobs() {
    let mut llm = load(&options(MODEL));
    let params = SamplingParams { logprobs: Some(20), ..greedy(1) };
    for (name, output) in PROMPTS.iter().zip(generate(&mut llm, &params)) {
        let golden = golden(name);
        let top = &output.completions[0].logprobs[0].top;
        let mut worst: f64 = 0.0;
        for pair in golden["top20_logprobs_steps"][0].as_array().expect("20 pairs") {
            let (id, expected) = (pair[0].as_u64().expect("an id") as u32, pair[1].as_f64().expect("a logprob"));
            match top.iter().find(|t| t.token == id) {
                Some(found) => worst = worst.max((f64::from(found.logprob) - expected).abs()),
                // The oracle's twentieth may be our twenty-first.
                None => {
                    assert!(expected < f64::from(top[19].logprob) + 0.05, "{name}: token {id} is not in the top 20")
                }
            }
        }
        eprintln!("{name}: top-20 logprobs within {worst:.4}");
        assert!(worst < 0.05, "{name}: a logprob is off by {worst}");
    }
}

#[test]
fn text_from_both_forms_of_the_checkpoint_gives_the_same_prompt_ids() {
    let gguf = load(&options(MODEL));
    let hf = load(&options(HF_FOLDER));
    for name in PROMPTS {
        let golden = golden(name);
        let Some(text) = golden["text"].as_str() else { continue };
        for llm in [&gguf, &hf] {
            let encoded = llm.tokenizer().expect("it has one").encode(text, false).expect("it encodes");
            assert_eq!(encoded, ids(&golden["ids"]), "{name}");
        }
    }
}

#[test]
fn the_hugging_face_folder_gives_the_oracle_s_tokens() {
    let mut llm = load(&options(HF_FOLDER));
    for (name, output) in PROMPTS.iter().zip(generate(&mut llm, &greedy(48))) {
        assert_equal_up_to_near_ties(name, &output.completions[0].token_ids, &golden(name));
    }
}
