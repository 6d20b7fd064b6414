//! What a request asks of sampling, through [`Llm`], on SmolLM2 and lavapipe.

#![cfg(feature = "webgpu")]

use bindery::engine::RequestId;
use bindery::llm::{Completion, Event, FinishCause, Llm, LlmError, RequestOutput, SpeculativeConfig};
use bindery::sampling::SamplingParams;
use bindery::structured::GrammarSpec;
use serde_json::json;
use std::collections::BTreeMap;

#[path = "support/llm.rs"]
mod llm;
#[path = "support/models.rs"]
mod models;
use llm::{golden, greedy, ids, smollm2};

fn load() -> Llm {
    smollm2(&models::smollm2_gguf(), |options| options.num_gpu_blocks_override = Some(32))
}

fn short() -> Vec<u32> {
    ids(&golden("short")["ids"])
}

fn run(llm: &mut Llm, params: SamplingParams) -> RequestOutput {
    llm.generate(vec![(short(), params)]).expect("generation succeeds").remove(0)
}

fn complete(llm: &mut Llm, params: SamplingParams) -> Completion {
    run(llm, params).completions.remove(0)
}

fn cause(completion: &Completion) -> FinishCause {
    completion.finish.clone().expect("it has ended").cause
}

/// The first 20 tokens after "The capital of France is": " Paris.\n\nThe answer is: 2018-01-22 ...".
fn plain(llm: &mut Llm) -> Completion {
    complete(llm, greedy(20))
}

#[test]
fn stop_conditions() {
    let mut llm = load();
    let plain = plain(&mut llm);
    assert_eq!(cause(&plain), FinishCause::Length);
    assert_eq!(plain.finish.as_ref().expect("it has ended").reason(), "length");
    assert!(plain.text.starts_with(" Paris.\n\nThe answer is"), "{:?}", plain.text);

    // A stop string over several tokens, beginning inside one.
    let stop = SamplingParams { stop: vec!["never".into(), "e answer i".into()], ..greedy(20) };
    let stopped = complete(&mut llm, stop.clone());
    assert_eq!(stopped.text, " Paris.\n\nTh");
    assert_eq!(cause(&stopped), FinishCause::StopString("e answer i".into()));
    assert_eq!(stopped.finish.as_ref().expect("it has ended").reason(), "stop");
    assert_eq!(stopped.token_ids, plain.token_ids[..stopped.token_ids.len()]);
    assert!(stopped.token_ids.len() < 10);
    let kept = complete(&mut llm, SamplingParams { include_stop_str_in_output: true, ..stop.clone() });
    assert_eq!(kept.text, " Paris.\n\nThe answer i");
    // Not before `min_tokens`.
    let late = complete(&mut llm, SamplingParams { min_tokens: 12, ..stop });
    assert_eq!(late.text, plain.text);

    // The stop token is among the tokens, and in the text only where that is asked for.
    let answer = plain.token_ids[5];
    let stop = SamplingParams { stop_token_ids: vec![answer], ..greedy(20) };
    let stopped = complete(&mut llm, stop.clone());
    assert_eq!(cause(&stopped), FinishCause::StopToken(answer));
    assert_eq!(stopped.token_ids, plain.token_ids[..6]);
    assert_eq!(stopped.text, " Paris.\n\nThe");
    let kept = complete(&mut llm, SamplingParams { include_stop_str_in_output: true, ..stop.clone() });
    assert_eq!(kept.text, " Paris.\n\nThe answer");
    // Before `min_tokens` it cannot even be sampled.
    let late = complete(&mut llm, SamplingParams { min_tokens: 12, ..stop });
    assert_eq!(late.token_ids[..5], plain.token_ids[..5]);
    assert!(late.token_ids.len() >= 12 && !late.token_ids[..11].contains(&answer), "{late:?}");

    for tokens in [1, 7] {
        let cut = complete(&mut llm, greedy(tokens));
        assert_eq!(cut.token_ids, plain.token_ids[..tokens as usize]);
        assert_eq!(cause(&cut), FinishCause::Length);
    }

    // The end-of-sequence token ends, is not text, and is passed over with `ignore_eos`.
    let eos = llm.tokenizer().expect("it has one").eos()[0];
    let force = SamplingParams { logit_bias: [(eos, 100.0)].into(), ..SamplingParams::greedy(4) };
    let ended = complete(&mut llm, force.clone());
    assert_eq!((cause(&ended), ended.token_ids, ended.text.as_str()), (FinishCause::Eos, vec![eos], ""));
    let ignored = complete(&mut llm, SamplingParams { ignore_eos: true, ..force.clone() });
    assert_eq!((cause(&ignored), ignored.token_ids), (FinishCause::Length, vec![eos; 4]));
    let delayed = complete(&mut llm, SamplingParams { min_tokens: 3, ..force });
    assert_eq!(delayed.token_ids.iter().position(|&token| token == eos), Some(3), "{delayed:?}");
}

/// Tokens, text, log probabilities and why it ended: drafts may come and go, be right or wrong, and end a completion halfway.
#[test]
fn drafts_change_nothing() {
    let mut without = load();
    let mut with = smollm2(&models::smollm2_gguf(), |options| {
        options.num_gpu_blocks_override = Some(32);
        // From two tokens, so that many are wrong.
        options.speculative = Some(SpeculativeConfig { prompt_lookup_min: Some(2), ..SpeculativeConfig::ngram() });
    });
    let tokenizer = without.tokenizer().expect("it has one").clone();
    // A list that the model goes on with, so that nearly all drafts are right.
    let lines: String =
        (1..5).map(|line| format!("Line {line}: the quick brown fox jumps over the lazy dog.\n")).collect();
    let list = tokenizer.encode(&(lines + "Line 5: the quick"), true).expect("it encodes");
    let brown = *tokenizer.encode(" brown", false).expect("it encodes").last().expect("a token");
    let draw = |seed| SamplingParams { seed: Some(seed), temperature: 0.7, ..greedy(24) };
    let schema = json!({
        "type": "object",
        "properties": {"first_name": {"enum": ["Ann", "Bob"]}, "temperature": {"type": "integer"}},
        "required": ["first_name", "temperature"],
        "additionalProperties": false,
    });
    let asked = [
        greedy(36),
        greedy(7),
        SamplingParams { logprobs: Some(3), ..greedy(24) },
        draw(1),
        SamplingParams { n: 3, best_of: Some(4), ..draw(2) },
        SamplingParams { stop: vec!["own fox j".into()], ..greedy(36) },
        SamplingParams { stop: vec!["own fox j".into()], min_tokens: 20, ..greedy(36) },
        SamplingParams { stop_token_ids: vec![brown], ..greedy(36) },
        SamplingParams { stop_token_ids: vec![brown], min_tokens: 20, ..greedy(36) },
        SamplingParams { logit_bias: [(brown, 5.0)].into(), ..draw(3) },
        SamplingParams { prompt_logprobs: Some(1), ..greedy(24) },
        SamplingParams { allowed_token_ids: Some(list.clone()), ..greedy(24) },
        following(GrammarSpec::JsonSchema(schema.clone()), greedy(60)),
        following(GrammarSpec::JsonSchema(schema), SamplingParams { n: 2, logprobs: Some(2), ..draw(4) }),
        following(GrammarSpec::Regex("(Line [0-9]: the quick brown fox jumps\\n)+".into()), draw(5)),
    ];
    for (number, params) in asked.iter().enumerate() {
        let before = with.stats();
        let prompts = vec![(list.clone(), params.clone()), (short(), params.clone())];
        let expected = without.generate(prompts.clone()).expect("generation succeeds");
        let got = with.generate(prompts).expect("generation succeeds");
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got.prompt_logprobs.len(), expected.prompt_logprobs.len());
            for (got, expected) in got.completions.iter().zip(&expected.completions) {
                assert_eq!(got.text, expected.text, "request {number}");
                assert_eq!(got.token_ids, expected.token_ids, "request {number}");
                assert_eq!(cause(got), cause(expected), "request {number}");
                assert_eq!(got.logprobs.len(), expected.logprobs.len(), "request {number}");
                for (got, expected) in got.logprobs.iter().zip(&expected.logprobs) {
                    assert_eq!(got.chosen.token, expected.chosen.token, "request {number}");
                    assert!((got.chosen.logprob - expected.chosen.logprob).abs() < 1e-3, "request {number}");
                }
            }
        }
        let right = with.stats().accepted_draft_tokens - before.accepted_draft_tokens;
        assert!(right > 0, "request {number} had no right draft");
    }
    let stats = with.stats();
    eprintln!("{} of {} drafts were right", stats.accepted_draft_tokens, stats.draft_tokens);
    assert!(stats.accepted_draft_tokens > 80 && stats.draft_tokens - stats.accepted_draft_tokens > 20, "{stats:?}");
    assert_eq!(stats.used_blocks, 0);

    // What the next token depends on besides, drafts would not know.
    for params in [
        SamplingParams { repetition_penalty: 1.05, ..greedy(20) },
        following(GrammarSpec::JsonObject, SamplingParams { presence_penalty: 0.5, ..greedy(20) }),
        SamplingParams { use_beam_search: true, beam_width: Some(2), ..greedy(20) },
        SamplingParams { use_beam_search: true, ..greedy(20) },
    ] {
        let before = with.stats().draft_tokens;
        let expected = without.generate(vec![(list.clone(), params.clone())]).expect("generation succeeds");
        let got = with.generate(vec![(list.clone(), params)]).expect("generation succeeds");
        assert_eq!(got[0].completions[0].token_ids, expected[0].completions[0].token_ids);
        assert_eq!(with.stats().draft_tokens, before);
    }
}

fn following(grammar: GrammarSpec, params: SamplingParams) -> SamplingParams {
    SamplingParams { structured_outputs: Some(grammar), ignore_eos: false, ..params }
}

/// A model that would not write a text by itself spells it by letters, if it may, and slowly.
#[test]
fn text_without_a_choice_comes_in_the_tokens_of_the_tokenizer() {
    let texts =
        ["{\"get_current_weather\": \"celsius\"}", "<tool_call>\nPotosí 北京\t 1,000,000", " never  ever", "Ünder"];
    let mut without = load();
    let mut with = smollm2(&models::smollm2_gguf(), |options| {
        options.num_gpu_blocks_override = Some(32);
        options.speculative = Some(SpeculativeConfig::ngram());
    });
    let tokenizer = without.tokenizer().expect("it has one").clone();
    for text in texts {
        let params = SamplingParams { temperature: 1.0, ..greedy(40) };
        let params = following(GrammarSpec::Choice(vec![text.into()]), params);
        let completion = complete(&mut without, params.clone());
        let [token_ids @ .., eos] = &completion.token_ids[..] else { panic!("no token") };
        assert_eq!((completion.text.as_str(), cause(&completion)), (text, FinishCause::Eos));
        assert_eq!(token_ids, tokenizer.encode_ordinary(text).expect("it encodes"), "{text:?}");
        assert_eq!(tokenizer.eos()[0], *eos);

        let before = with.stats();
        assert_eq!(complete(&mut with, params).token_ids, completion.token_ids);
        let after = with.stats();
        let wrong =
            (after.draft_tokens - after.accepted_draft_tokens) - (before.draft_tokens - before.accepted_draft_tokens);
        assert_eq!(wrong, 0, "{text:?}: there is nothing else to draw");
        assert!(after.accepted_draft_tokens > before.accepted_draft_tokens, "{text:?}");
    }
}

#[test]
fn logprobs_of_prompt_and_completion_agree() {
    let mut llm = load();
    let params = SamplingParams { logprobs: Some(5), ..greedy(20) };
    let decoded = complete(&mut llm, params.clone());
    assert_eq!(decoded.token_ids, plain(&mut llm).token_ids, "asking for logprobs changes nothing");
    assert_eq!(decoded.logprobs.len(), 20);
    for (token, logprobs) in decoded.token_ids.iter().zip(&decoded.logprobs) {
        assert_eq!((logprobs.chosen.token, logprobs.chosen.rank, logprobs.top.len()), (*token, 1, 5));
        assert_eq!(logprobs.top[0], logprobs.chosen);
        assert!(logprobs.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
    }
    let none = complete(&mut llm, SamplingParams { logprobs: Some(0), ..params.clone() });
    assert!(none.logprobs.iter().all(|logprobs| logprobs.top.is_empty()) && none.logprobs.len() == 20);

    // The same tokens as a prompt: computed by the prefill kernels, and in chunks, which must give each position once.
    let prompt = [short(), decoded.token_ids.clone()].concat();
    let params = SamplingParams { prompt_logprobs: Some(3), ..greedy(1) };
    // A warm prefix cache must not swallow positions.
    llm.generate(vec![(prompt.clone(), greedy(1))]).expect("generation succeeds");
    let output = llm.generate(vec![(prompt.clone(), params)]).expect("generation succeeds").remove(0);
    assert_eq!(output.prompt_logprobs.len(), prompt.len() - 1);
    for (i, logprobs) in output.prompt_logprobs.iter().enumerate() {
        assert_eq!((logprobs.chosen.token, logprobs.top.len()), (prompt[i + 1], 3), "position {}", i + 1);
    }
    let mut worst: f32 = 0.0;
    for (prompted, decoded) in output.prompt_logprobs[short().len() - 1..].iter().zip(&decoded.logprobs) {
        worst = worst.max((prompted.chosen.logprob - decoded.chosen.logprob).abs());
    }
    eprintln!("logprobs of prefill and decode differ by at most {worst}");
    assert!(worst < 0.05, "logprobs of prefill and decode differ by {worst}");
}

#[test]
fn sampling_follows_its_parameters() {
    let mut llm = load();
    let sampled = |seed| SamplingParams {
        seed: Some(seed),
        max_tokens: Some(8),
        ignore_eos: true,
        temperature: 1.5,
        ..SamplingParams::default()
    };
    let [one, again, other] = [3, 3, 4].map(|seed| complete(&mut llm, sampled(seed)).token_ids);
    assert_eq!(one, again, "equal seeds");
    assert_ne!(one, other, "different seeds");
    let greedy_ids = plain(&mut llm).token_ids[..8].to_vec();
    for params in [
        SamplingParams { top_k: 1, ..sampled(5) },
        SamplingParams { top_p: 1e-6, ..sampled(5) },
        SamplingParams { min_p: 1.0, ..sampled(5) },
        SamplingParams { temperature: 0.01, ..sampled(5) },
    ] {
        assert_eq!(complete(&mut llm, params.clone()).token_ids, greedy_ids, "{params:?}");
    }
    let biased = SamplingParams { logit_bias: [(1234, 100.0)].into(), ..greedy(3) };
    assert_eq!(complete(&mut llm, biased).token_ids, [1234; 3]);
    let banned = SamplingParams { logit_bias: [(greedy_ids[0], -100.0)].into(), ..greedy(8) };
    assert!(!complete(&mut llm, banned).token_ids.contains(&greedy_ids[0]));
    let allowed = SamplingParams { allowed_token_ids: Some(vec![40, 50]), ..sampled(6) };
    assert!(complete(&mut llm, allowed).token_ids.iter().all(|token| [40, 50].contains(token)));
    let penalised = complete(&mut llm, SamplingParams { frequency_penalty: 2.0, presence_penalty: 2.0, ..greedy(20) });
    assert_ne!(penalised.token_ids, plain(&mut llm).token_ids);

    // `best_of` returns the likeliest of its sequences.
    let best = run(&mut llm, SamplingParams { best_of: Some(4), logprobs: Some(0), n: 2, ..sampled(7) });
    assert_eq!(best.completions.len(), 2);
    let all = run(&mut llm, SamplingParams { n: 4, logprobs: Some(0), ..sampled(7) });
    let mut scores: Vec<f64> = all.completions.iter().map(Completion::mean_logprob).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    for (completion, score) in best.completions.iter().zip(scores) {
        assert!((completion.mean_logprob() - score).abs() < 0.01, "{score}");
    }
}

#[test]
fn pieces_add_up_to_the_text() {
    let mut llm = load();
    let tokenizer = llm.tokenizer().expect("it has one").clone();
    // Token by token noise: pieces of UTF-8 sequences, special tokens.
    let noisy = SamplingParams {
        temperature: 20.0,
        seed: Some(1),
        n: 4,
        max_tokens: Some(40),
        ignore_eos: true,
        ..SamplingParams::default()
    };
    let id = llm.add(short(), noisy).expect("it fits");
    let (mut events, mut texts, mut tokens) = (Vec::new(), vec![String::new(); 4], vec![Vec::new(); 4]);
    let mut finished = 0;
    while llm.step(&mut events).expect("a step succeeds") {
        for event in events.drain(..) {
            assert_eq!(event.request(), id);
            if let Event::Token(update) = event {
                texts[update.index as usize].push_str(&update.text);
                tokens[update.index as usize].extend(update.token);
                finished += u32::from(update.finish.is_some());
            }
        }
    }
    assert_eq!(finished, 4);
    for (text, tokens) in texts.iter().zip(&tokens) {
        assert_eq!(tokens.len(), 40);
        assert_eq!(text, &tokenizer.decode(tokens, true).expect("it decodes"));
    }
    let blind = complete(&mut llm, SamplingParams { detokenize: false, ..greedy(4) });
    assert_eq!((blind.text.as_str(), blind.token_ids.len()), ("", 4));
}

#[test]
fn aborted_refused_and_failed_requests_leave_the_others_alone() {
    let mut llm = load();
    let expected = plain(&mut llm).token_ids;
    let survivor = llm.add(short(), greedy(20)).expect("it fits");
    let mut prompt = ids(&golden("code")["ids"]);
    let victim = llm.add(prompt.clone(), SamplingParams { n: 3, ..SamplingParams::default() }).expect("it fits");
    let waiting = llm.add(prompt.clone(), greedy(20)).expect("it fits");
    let mut events = Vec::new();
    assert!(llm.step(&mut events).expect("a step succeeds"));
    assert!(llm.abort(waiting));
    assert!(llm.step(&mut events).expect("a step succeeds"));
    let before = llm.stats().used_blocks;
    assert!(llm.abort(victim) && !llm.abort(victim));
    assert!(llm.stats().used_blocks < before, "its blocks are back at once");

    // What can never be is refused, and nothing changes.
    let used = llm.stats();
    prompt.resize(600, 0);
    let too_long = llm.add(prompt, greedy(1)).expect_err("beyond max_model_len");
    assert!(matches!(too_long, LlmError::Request(_)), "{too_long}");
    // 32 blocks hold one sequence of 512 tokens, not two.
    let two = SamplingParams { n: 2, max_tokens: Some(500), ..SamplingParams::default() };
    let never = llm.add(short(), two).expect_err("it cannot fit");
    assert!(matches!(never, LlmError::Request(_)), "{never}");
    for params in [
        SamplingParams { temperature: f32::NAN, ..SamplingParams::default() },
        SamplingParams { top_p: f32::NAN, ..SamplingParams::default() },
        SamplingParams { repetition_penalty: f32::INFINITY, ..SamplingParams::default() },
        SamplingParams { logit_bias: [(0, f32::NAN)].into(), ..SamplingParams::default() },
        SamplingParams { max_tokens: Some(0), ..SamplingParams::default() },
    ] {
        let error = llm.add(short(), params).expect_err("not a parameter");
        assert!(matches!(error, LlmError::Param(_)) && error.is_request_error(), "{error}");
    }
    assert!(matches!(llm.add(vec![49_152], greedy(1)), Err(LlmError::UnknownToken { .. })));
    assert!(matches!(llm.add(Vec::new(), greedy(1)), Err(LlmError::Request(_))));
    assert_eq!(llm.stats(), used);

    // Nothing can be sampled: an error of this request alone, told once for each of its sequences.
    let eos = llm.tokenizer().expect("it has one").eos()[0];
    let impossible = SamplingParams {
        n: 2,
        allowed_token_ids: Some(vec![eos]),
        min_tokens: 2,
        max_tokens: Some(4),
        ..SamplingParams::default()
    };
    let failed = llm.add(short(), impossible).expect("it fits");
    let mut finishes: BTreeMap<RequestId, Vec<FinishCause>> = BTreeMap::new();
    let mut tokens = Vec::new();
    while !llm.is_idle() {
        llm.step(&mut events).expect("a step succeeds");
    }
    for event in events {
        let Event::Token(update) = event else { continue };
        if update.request == survivor {
            tokens.extend(update.token);
        }
        if let Some(finish) = update.finish {
            finishes.entry(update.request).or_default().push(finish.cause);
        }
    }
    assert_eq!(tokens, expected);
    assert_eq!(finishes.keys().copied().collect::<Vec<_>>(), [survivor, failed]);
    assert!(matches!(finishes[&failed][..], [FinishCause::Refused(_), FinishCause::Refused(_)]), "{finishes:?}");
    assert_eq!(llm.stats().used_blocks, 0);
}
