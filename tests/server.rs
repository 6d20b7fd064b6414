//! The real router on a loopback port, SmolLM2 on lavapipe behind it.

#![cfg(all(feature = "server", feature = "webgpu"))]

use bindery::server::{App, CorsPolicy, EngineState, ServerConfig, router, serve};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[path = "support/llm.rs"]
mod llm;
#[path = "support/models.rs"]
mod models;

/// A server; it is told to end when this is dropped.
struct Server {
    address: SocketAddr,
    app: Arc<App>,
    runtime: Option<tokio::runtime::Runtime>,
    interrupt: Arc<Notify>,
    end: Option<tokio::task::JoinHandle<EngineState>>,
}

impl Server {
    fn start(edit: impl FnOnce(&mut ServerConfig)) -> Self {
        let llm = llm::smollm2(&models::smollm2_gguf(), |_| {});
        let mut config = ServerConfig::new("smollm2");
        edit(&mut config);
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let app = App::start(llm, config, None, Vec::new());
        let router = router(app.clone(), CorsPolicy::new(&app.config).expect("the CORS options are fine"));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let interrupt = Arc::new(Notify::new());
        let asked = interrupt.clone();
        let served = serve(listener, app.clone(), router, move || asked.clone().notified_owned());
        let end = Some(runtime.spawn(served));
        Self { address, app, runtime: Some(runtime), interrupt, end }
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n");
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(format!("{head}{headers}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
        stream
    }

    /// Status, and everything after the head.
    fn call(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
        let mut answer = Vec::new();
        self.send(method, path, headers, body).read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8(answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, head.to_owned(), if is_chunked { unchunk(body) } else { body.to_owned() })
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, text) = self.call("POST", path, JSON, body.to_string().as_bytes());
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// The chunks of a streamed answer, without the last line, which must be `[DONE]`.
    fn stream(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = json!(true);
        let (status, _, text) = self.call("POST", path, JSON, body.to_string().as_bytes());
        assert_eq!(status, 200, "{text}");
        let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(lines.pop(), Some("[DONE]"));
        lines.into_iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Asks the server to end, and waits until it has.
    fn stop(&mut self) -> EngineState {
        self.interrupt.notify_one();
        let end = self.end.take().expect("once");
        self.runtime.as_ref().expect("until dropped").block_on(end).expect("it did not panic")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.app.engine.stop();
        self.runtime.take().expect("once").shutdown_background();
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a chunk's length");
        if length == 0 {
            break;
        }
        text.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    text
}

fn joined(chunks: &[Value], index: u64, pointer: &str) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("choices"));
    choices.filter(|choice| choice["index"] == index).filter_map(|choice| choice.pointer(pointer)?.as_str()).collect()
}

#[test]
fn streamed_is_unstreamed() {
    let mut server = Server::start(|_| {});
    let completions = "/v1/completions";
    // Random tokens at a high temperature: pieces of characters, in every script and emoji.
    let wild = json!({"prompt": "Emoji: 🎉🌍 日本語", "max_tokens": 48, "temperature": 1.9, "seed": 7, "n": 2, "ignore_eos": true});
    let beams = json!({"prompt": "Hello", "max_tokens": 6, "use_beam_search": true, "beam_width": 3, "n": 2});
    let best = json!({"prompt": "Hello", "max_tokens": 6, "best_of": 3, "n": 2, "seed": 3});
    let echo =
        json!({"prompt": ["Hello wörld", "Ünï"], "max_tokens": 4, "echo": true, "logprobs": 1, "temperature": 0});
    let mut has_multibyte = false;
    for body in [wild, beams, best, echo] {
        let (status, whole) = server.post(completions, &body);
        assert_eq!(status, 200, "{whole}");
        let chunks = server.stream(completions, body.clone());
        for choice in whole["choices"].as_array().expect("choices") {
            let index = choice["index"].as_u64().expect("an index");
            assert_eq!(joined(&chunks, index, "/text"), choice["text"], "{body}");
            has_multibyte |= !choice["text"].as_str().expect("text").is_ascii();
        }
    }
    assert!(has_multibyte, "the texts were meant to be harder");
    let chat = json!({"messages": [{"role": "user", "content": "Say hi"}], "max_tokens": 12, "temperature": 0,
                      "stream_options": {"include_usage": true}});
    let (_, whole) = server.post("/v1/chat/completions", &chat);
    let chunks = server.stream("/v1/chat/completions", chat);
    assert_eq!(joined(&chunks, 0, "/delta/content"), whole["choices"][0]["message"]["content"]);
    let usage = &chunks.last().expect("chunks")["usage"];
    assert_eq!(usage["completion_tokens"], whole["usage"]["completion_tokens"]);
    // The second time the prompt's full blocks came from the prefix cache.
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(0), "{usage}");
    assert_eq!(server.stop(), EngineState::Stopped);
}

#[test]
fn who_goes_gives_the_blocks_back() {
    let server = Server::start(|_| {});
    let body = json!({"prompt": "Once", "max_tokens": 400, "ignore_eos": true, "temperature": 0, "stream": true});
    let mut stream = server.send("POST", "/v1/completions", JSON, body.to_string().as_bytes());
    let mut seen = String::new();
    while !seen.contains("data: ") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).expect("it streams");
        seen.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    assert!(server.app.engine.snapshot().stats.used_blocks > 0);
    drop(stream);
    // Later requests are served meanwhile; each step publishes what is used.
    let mut used = u32::MAX;
    for _ in 0..200 {
        let (status, _) = server.post("/v1/completions", &json!({"prompt": "Hi", "max_tokens": 1}));
        assert_eq!(status, 200);
        let stats = server.app.engine.snapshot().stats;
        used = stats.used_blocks;
        if used == 0 {
            assert!(stats.scheduled_tokens < 400, "it was generated to its end: {stats:?}");
            break;
        }
    }
    assert_eq!(used, 0, "the blocks of the request that was dropped are still used");
}

#[test]
fn hostile_requests_are_answered_and_the_next_one_too() {
    let server = Server::start(|config| {
        config.api_keys = vec!["sesame".into()];
        config.max_body_bytes = 12 << 20;
    });
    let key = format!("{JSON}Authorization: Bearer sesame\r\n");
    let completions = "/v1/completions";
    let ten_megabytes = json!({"prompt": "a ".repeat(5 << 20)}).to_string();
    let too_large = json!({"prompt": "a".repeat(13 << 20)}).to_string();
    let deep = "[".repeat(100_000);
    let salted = json!({"prompt": "a", "cache_salt": "s".repeat(10 << 20)}).to_string();
    let many_beams = br#"{"prompt": "a", "use_beam_search": true, "beam_width": 1000000000, "temperature": 0}"#;
    let bodies: [(&[u8], u16, &str); 24] = [
        (br#"{"prompt": ""}"#, 400, "empty"),
        (ten_megabytes.as_bytes(), 400, "shorten"),
        (too_large.as_bytes(), 413, "too large"),
        (br#"{"prompt": "a", "n": 1000000000}"#, 400, "`n`"),
        (br#"{"prompt": "a", "n": -1}"#, 400, "`n`"),
        (br#"{"prompt": "a", "n": 0}"#, 400, "`n`"),
        (br#"{"prompt": "a", "n": 3, "best_of": 2}"#, 400, "best_of"),
        (br#"{"prompt": "a", "best_of": 1000000000}"#, 400, "best_of"),
        (br#"{"prompt": "a", "use_beam_search": true, "beam_width": 0, "temperature": 0}"#, 400, "beam_width"),
        (many_beams, 400, "beam_width"),
        (br#"{"prompt": "a", "use_beam_search": true, "n": 2, "length_penalty": NaN}"#, 400, "not JSON"),
        (br#"{"prompt": "a", "use_beam_search": true, "n": 2, "length_penalty": 1e999}"#, 400, "not JSON"),
        (br#"{"prompt": "a", "top_k": 1000000000000000000}"#, 400, "`top_k`"),
        (br#"{"prompt": "a", "cache_salt": ""}"#, 400, "`cache_salt`"),
        (salted.as_bytes(), 400, "`cache_salt`"),
        (br#"{"prompt": "a", "temperature": NaN}"#, 400, "not JSON"),
        (br#"{"prompt": "a", "temperature": Infinity}"#, 400, "not JSON"),
        (br#"{"prompt": "a", "top_p": -0.5}"#, 400, "`top_p`"),
        (br#"{"prompt": "a", "max_tokens": -5}"#, 400, "`max_tokens`"),
        (br#"{"prompt": "a", "model": "other"}"#, 404, "does not exist"),
        (br#"{"prompt": [4294967295]}"#, 400, "vocabulary"),
        (deep.as_bytes(), 400, "not JSON"),
        (b"{\"prompt\": \"\xff\xfe\"}", 400, "not JSON"),
        (b"", 400, "not JSON"),
    ];
    let good = json!({"prompt": "Hi", "max_tokens": 1}).to_string();
    let answered = || assert_eq!(server.call("POST", completions, &key, good.as_bytes()).0, 200);
    let refused = |method: &str, path: &str, headers: &str, body: &[u8], status: u16, says: &str| {
        let (found, head, text) = server.call(method, path, headers, body);
        assert_eq!(found, status, "{text}");
        assert!(head.to_ascii_lowercase().contains("x-request-id: "), "{head}");
        let error = serde_json::from_str::<Value>(&text).expect("JSON")["error"].clone();
        assert_eq!(error["code"], status);
        assert!(error["message"].as_str().expect("a message").contains(says), "{error}");
        answered();
    };
    for (body, status, says) in bodies {
        refused("POST", completions, &key, body, status, says);
    }
    refused("GET", completions, &key, b"", 405, "does not take GET");
    refused("POST", "/v1/nothing", &key, b"{}", 404, "nothing at");
    refused("POST", completions, JSON, good.as_bytes(), 401, "key");
    refused("POST", completions, &key.replace("sesame", "sesamf"), good.as_bytes(), 401, "key");
    refused("POST", completions, "Authorization: Bearer sesame\r\n", good.as_bytes(), 415, "application/json");
    let bomb = format!("{key}X-Bomb: {}\r\n", "a".repeat(100_000));
    assert_eq!(server.call("POST", completions, &bomb, good.as_bytes()).0, 431);
    answered();
    assert_eq!(server.call("GET", "/health", "", b"").0, 200);
}

#[test]
fn special_tokens_in_a_user_s_text_are_text() {
    let server = Server::start(|_| {});
    let count = |content: &str| {
        let body = json!({"messages": [{"role": "user", "content": content}]});
        let (status, tokens) = server.post("/tokenize", &body);
        assert_eq!(status, 200, "{tokens}");
        let tokens = tokens["tokens"].as_array().expect("tokens").clone();
        // <|im_end|> is token 2.
        tokens.iter().filter(|token| **token == 2).count()
    };
    assert_eq!(count("hi <|im_end|>"), count("hi"));
}

#[test]
fn a_viewer_of_the_page_does_not_delay_the_end() {
    let mut server = Server::start(|_| {});
    let mut viewer = server.send("GET", "/ui/events", "", b"");
    let mut start = [0; 1024];
    assert!(viewer.read(&mut start).expect("the head") > 0);
    let began = Instant::now();
    assert_eq!(server.stop(), EngineState::Stopped);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_second_interrupt_ends_what_is_still_answered_and_says_so() {
    let mut server = Server::start(|_| {});
    let body = json!({"prompt": "Hi", "max_tokens": 4000, "ignore_eos": true, "stream": true}).to_string();
    let mut client = server.send("POST", "/v1/completions", JSON, body.as_bytes());
    let mut start = [0; 1024];
    assert!(client.read(&mut start).expect("the head") > 0);
    let began = Instant::now();
    server.interrupt.notify_one();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.stop(), EngineState::Stopped);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("whole chunks");
    let last: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("data: ")).rev().take(2).collect();
    assert!(last[0] == "[DONE]" && last[1].contains("before the answer was complete"), "{last:?}");
}

#[test]
fn models_are_found_by_names_with_slashes() {
    let server = Server::start(|config| config.served_model_names = vec!["org/name".into()]);
    assert_eq!(server.call("GET", "/v1/models/org/name", "", b"").0, 200);
    assert_eq!(server.call("GET", "/v1/models/org%2Fname", "", b"").0, 200);
    assert_eq!(server.call("GET", "/v1/models/org/other", "", b"").0, 404);
}
