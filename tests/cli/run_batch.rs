//! `bindery run-batch`: files of requests.

use super::{DEVICE, QUESTION, run, run_with_input, stdout_of, temporary};
use serde_json::{Value, json};

fn completion(id: &str, body: Value) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/completions", "body": body})
}

fn chat(id: &str, body: Value) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
}

#[test]
fn run_batch_answers_every_line_in_order() {
    let story = json!([{"role": "user", "content": "Tell me a story."}]);
    let lines = [
        chat("paris", json!({"messages": [{"role": "user", "content": QUESTION}], "temperature": 0})).to_string(),
        "{\"custom_id\": \"broken\", ".into(),
        completion(
            "two",
            json!({"prompt": ["The sky is", "One two"], "temperature": 0, "max_tokens": 3, "echo": true,
                                 "logprobs": 2, "return_token_ids": true}),
        )
        .to_string(),
        completion("long", json!({"prompt": "word ".repeat(600)})).to_string(),
        String::new(),
        completion(
            "ids",
            json!({"prompt": [504, 6376, 314], "temperature": 0, "max_tokens": 3, "ignore_eos": true,
                                 "return_token_ids": true}),
        )
        .to_string(),
        completion("hot", json!({"prompt": "x", "temperature": -1})).to_string(),
        chat(
            "story",
            json!({"messages": story, "temperature": 0, "max_completion_tokens": 24, "logprobs": true,
                             "top_logprobs": 3}),
        )
        .to_string(),
        completion("forks", json!({"prompt": "The sky is", "n": 2, "seed": 5, "max_tokens": 5, "stop": "."}))
            .to_string(),
        json!({"custom_id": "url", "url": "/v1/embeddings", "body": {}}).to_string(),
    ];
    let input = temporary("in.jsonl", lines.join("\n").as_bytes());
    let output = temporary("out.jsonl", b"");
    let paths = ["-i", input.to_str().expect("UTF-8"), "-o", output.to_str().expect("UTF-8")];
    let output_of_run = run(&[&["run-batch", "--max-model-len", "512"], &paths[..], &DEVICE[..]].concat());
    assert_eq!(stdout_of(&output_of_run), "");
    let text = std::fs::read_to_string(&output).expect("it was written");
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<&str> = answers.iter().map(|answer| answer["custom_id"].as_str().unwrap_or("none")).collect();
    assert_eq!(ids, ["paris", "none", "two", "long", "ids", "hot", "story", "forks", "url"]);
    let of = |id: &str| {
        let answer = answers.iter().find(|answer| answer["custom_id"] == id).expect("it is there");
        assert_eq!((&answer["response"]["status_code"], &answer["error"]), (&json!(200), &Value::Null), "{answer}");
        &answer["response"]["body"]
    };

    for (index, param, code) in
        [(1, Value::Null, 400), (3, Value::Null, 400), (5, json!("temperature"), 400), (8, Value::Null, 404)]
    {
        let (error, response) = (&answers[index]["error"], &answers[index]["response"]);
        assert_eq!((&error["param"], &error["code"]), (&param, &json!(code)), "{error}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["type"].is_string());
        assert_eq!((&response["status_code"], &response["body"]), (&json!(code), &Value::Null));
    }

    let paris = of("paris");
    assert_eq!(paris["choices"][0]["message"]["content"], "The capital of France is Paris.");
    assert_eq!(paris["choices"][0]["finish_reason"], "stop");
    assert_eq!(paris["usage"]["total_tokens"], 45);
    assert_eq!(paris["kv"]["blocks_allocated"], 3);

    let two = of("two");
    assert_eq!(two["choices"].as_array().map(Vec::len), Some(2));
    let sky = &two["choices"][0];
    assert!(sky["text"].as_str().is_some_and(|text| text.starts_with("The sky is ")));
    let logprobs = &sky["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().map(Vec::len), Some(6));
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["text_offset"][1]), (&Value::Null, &json!(3)));
    assert_eq!(sky["prompt_token_ids"], json!([504, 6376, 314]));
    assert_eq!(sky["token_ids"], of("ids")["choices"][0]["token_ids"]);

    let story_text = of("story")["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    assert_eq!(of("story")["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array().map(Vec::len), Some(3));
    let streamed = run(&[&["run", "--max-tokens", "24", "Tell me a story."], &DEVICE[..]].concat());
    assert_eq!(stdout_of(&streamed).trim_end(), story_text.trim_end(), "streamed text equals the batch's");

    let forks = of("forks");
    assert_eq!(forks["choices"].as_array().map(Vec::len), Some(2));
    assert_eq!(forks["kv"]["blocks_shared"], 1);
}

#[test]
fn run_batch_reads_stdin_and_writes_stdout() {
    let line = completion("a", json!({"prompt": "The sky is", "temperature": 0, "max_tokens": 1})).to_string();
    let text = stdout_of(&run_with_input(&[&["run-batch", "-i", "-", "-o", "-"], &DEVICE[..]].concat(), &line));
    let answer: Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(answer["response"]["body"]["usage"]["completion_tokens"], 1);
}

#[test]
fn what_requests_leave_out_may_be_given_for_all_of_them() {
    let of = |id: &str, temperature: Value| {
        completion(id, json!({"prompt": "The sky is", "temperature": temperature, "max_tokens": 8})).to_string()
    };
    let lines = [of("said", json!(0)), of("left out", Value::Null)].join("\n");
    let args = ["run-batch", "-i", "-", "-o", "-", "--override-generation-config", "{\"temperature\": 0}"];
    let text = stdout_of(&run_with_input(&[&args, &DEVICE[..]].concat(), &lines));
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [said, left_out] = [0, 1].map(|at| &answers[at]["response"]["body"]["choices"][0]["text"]);
    assert!(said.is_string() && said == left_out, "{said} and {left_out}");
}
