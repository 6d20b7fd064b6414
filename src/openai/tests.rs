//! Bodies, good and bad.

use serde_json::{Value, json};

use super::*;
use crate::sampling::SamplingParams;

fn completion(extra: Value) -> Result<CompletionRequest, ApiError> {
    let mut body = json!({"model": "m", "prompt": "Hi"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    CompletionRequest::from_body(body, &SamplingParams::default())
}

fn chat(extra: Value) -> Result<ChatCompletionRequest, ApiError> {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    ChatCompletionRequest::from_body(body, &SamplingParams::default())
}

#[test]
fn prompts_come_in_four_forms() {
    let prompts = |prompt: Value| completion(json!({"prompt": prompt})).unwrap().prompts;
    assert_eq!(prompts(json!("a")), [Prompt::Text("a".into())]);
    assert_eq!(prompts(json!(["a", "b"])), [Prompt::Text("a".into()), Prompt::Text("b".into())]);
    assert_eq!(prompts(json!([1, 2])), [Prompt::TokenIds(vec![1, 2])]);
    assert_eq!(prompts(json!([[1], [2, 3]])), [Prompt::TokenIds(vec![1]), Prompt::TokenIds(vec![2, 3])]);
}

#[test]
fn what_is_wrong_is_named() {
    let table = [
        ("prompt", json!({"prompt": []})),
        ("prompt", json!({"prompt": null})),
        ("prompt", json!({"prompt": ["a", 1]})),
        ("prompt", json!({"prompt": [-1]})),
        ("prompt", json!({"prompt": [4294967296u64]})),
        ("temperature", json!({"temperature": "hot"})),
        ("n", json!({"n": -1})),
        ("max_tokens", json!({"max_tokens": 1.5})),
        ("logit_bias", json!({"logit_bias": {"a": 1}})),
        ("stop", json!({"stop": [1]})),
        ("logprobs", json!({"logprobs": true})),
        ("tools", json!({"tools": [{}]})),
        ("response_format", json!({"response_format": {"type": "yaml"}})),
        ("response_format", json!({"response_format": {"type": "json_schema"}})),
        ("structured_outputs.regex", json!({"structured_outputs": {"regex": 3}})),
        ("structured_outputs.yaml", json!({"structured_outputs": {"yaml": "a"}})),
        ("guided_choice", json!({"guided_choice": []})),
        ("cache_salt", json!({"cache_salt": ""})),
        ("suffix", json!({"suffix": "end"})),
        ("repeat_penalty", json!({"repeat_penalty": 1.1})),
        ("grammar", json!({"grammar": "root ::= \"a\""})),
        ("mirostat", json!({"mirostat": 2})),
        ("prompt_logprobs", json!({"prompt_logprobs": 1, "stream": true})),
    ];
    for (field, extra) in table {
        let error = completion(extra).expect_err(field);
        assert_eq!((error.param.as_deref(), error.code), (Some(field), 400), "{error}");
        assert!(error.message.contains(field), "{error}");
    }
    for (field, extra) in [
        ("messages", json!({"messages": []})),
        ("messages", json!({"messages": "Hi"})),
        ("messages", json!({"messages": [{"content": "no role"}]})),
        ("messages", json!({"messages": [{"role": "user"}]})),
        ("messages", json!({"messages": ["no object"]})),
        ("top_logprobs", json!({"top_logprobs": 2})),
        ("tools", json!({"tools": [{}]})),
    ] {
        assert_eq!(chat(extra).expect_err(field).param.as_deref(), Some(field));
    }
    let two = json!({"guided_regex": "a", "response_format": {"type": "json_object"}});
    assert!(completion(two).expect_err("two formats").message.contains("one of them"));
    assert!(CompletionRequest::from_body(json!([1]), &SamplingParams::default()).is_err());
}

#[test]
fn nulls_and_what_asks_for_nothing_are_no_fields() {
    let plain = completion(json!({})).unwrap();
    let extra = json!({"temperature": null, "stop": null, "suffix": "", "tools": [], "response_format": {"type": "text"},
                       "n": null, "logprobs": null, "user": "somebody", "unheard_of": 3, "repeat_penalty": 1.0,
                       "grammar": "", "mirostat": 0});
    assert_eq!(completion(extra).unwrap(), plain);
    assert_eq!(plain.common.params.max_tokens, Some(16));
    assert_eq!(chat(json!({})).unwrap().common.params.max_tokens, None);
}

#[test]
fn logprobs_in_both_forms() {
    let echoed = completion(json!({"logprobs": 2, "echo": true, "max_tokens": 0})).unwrap();
    let params = &echoed.common.params;
    assert_eq!((params.logprobs, params.prompt_logprobs, params.max_tokens), (Some(2), Some(2), Some(1)));
    assert!(echoed.prompt_only);
    let of = |extra| chat(extra).unwrap().common.params.logprobs;
    assert_eq!(of(json!({"logprobs": true})), Some(0));
    assert_eq!(of(json!({"logprobs": true, "top_logprobs": 5})), Some(5));
    assert_eq!(of(json!({"logprobs": false})), None);
}

#[test]
fn the_newer_name_of_max_tokens_wins() {
    let both = chat(json!({"max_tokens": 3, "max_completion_tokens": 5, "seed": -1})).unwrap();
    assert_eq!((both.common.params.max_tokens, both.common.params.seed), (Some(5), Some(u64::MAX)));
}

#[test]
fn what_is_left_out_is_as_the_default_says() {
    let default = SamplingParams { temperature: 0.6, top_k: 20, ..SamplingParams::default() };
    let body = json!({"prompt": "Hi", "top_k": 5, "temperature": null});
    let params = CompletionRequest::from_body(body, &default).unwrap().common.params;
    assert_eq!((params.temperature, params.top_k, params.top_p), (0.6, 5, 1.0));
}

#[test]
fn truncation_keeps_the_end() {
    let cut = |tokens: i64| {
        let request = completion(json!({"truncate_prompt_tokens": tokens, "max_tokens": 2})).unwrap();
        let mut prompt = vec![1, 2, 3, 4, 5];
        request.common.truncate(&mut prompt, 6).map(|()| prompt)
    };
    assert_eq!(cut(2).unwrap(), [4, 5]);
    assert_eq!(cut(9).unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(cut(-1).unwrap(), [2, 3, 4, 5]);
    assert!(cut(0).is_err() && cut(-2).is_err());
    let request = completion(json!({"truncate_prompt_tokens": -1, "max_tokens": 100})).unwrap();
    let mut prompt = vec![1, 2, 3, 4, 5, 6, 7];
    request.common.truncate(&mut prompt, 6).unwrap();
    assert_eq!(prompt, [3, 4, 5, 6, 7], "more tokens than there is room for are clipped, not the prompt");
}

#[test]
fn errors_speak_of_json() {
    for (extra, says) in [
        (
            json!({"n": -1}),
            "`n` is a number: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
        ),
        (json!({"temperature": "hot"}), "expected a number"),
        (json!({"stop": 5}), "`stop` must be a text or a list of texts"),
        (json!({"repeat_penalty": 1.1}), "use `repetition_penalty`"),
    ] {
        let error = completion(extra).unwrap_err();
        assert!(error.message.contains(says), "{error}");
    }
    let error = chat(json!({"messages": ["Hi"]})).unwrap_err();
    assert!(error.message.contains("an object with `role` and `content`"), "{error}");
}

#[test]
fn all_text_of_a_chat_counts() {
    let request = chat(json!({"messages": [
        {"role": "user", "content": [{"type": "text", "text": "a".repeat(1000)}]},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": "b".repeat(2000)}}]},
    ]}));
    let bytes = GenerateRequest::Chat(request.unwrap()).text_bytes();
    assert!((3000..3200).contains(&bytes), "{bytes}");
}

#[test]
fn beam_search_is_asked_for_by_vllm_s_and_hugging_face_s_names() {
    let extra =
        json!({"use_beam_search": true, "beam_width": 4, "n": 2, "length_penalty": 0.6, "early_stopping": "never"});
    let params = completion(extra).unwrap().common.params;
    assert_eq!((params.beam_width(), params.n, params.length_penalty), (Some(4), 2, 0.6));
    assert_eq!(params.early_stopping, crate::sampling::EarlyStopping::Never);
    let error = completion(json!({"use_beam_search": true, "early_stopping": "soon"})).unwrap_err();
    assert!(error.to_string().contains("early_stopping"), "{error}");
}
