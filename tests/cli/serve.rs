//! What `bindery serve` says on stderr.

use super::{bindery, has_gpu};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Starts a server, asks it for one token, stops it, and returns all that it has said.
fn log_of_one_request(args: &[&str]) -> Vec<String> {
    let small = ["serve", "--port", "0", "--enable-log-requests", "--max-model-len", "64"];
    let mut child = bindery(&[&small[..], args].concat()).spawn().expect("the command starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut lines = Vec::new();
    let address = loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).expect("UTF-8") > 0, "the server has ended: {lines:?}");
        let at = line.find("at http://").filter(|_| line.contains("serving ")).map(|at| at + "at http://".len());
        let address = at.map(|at| line[at..].trim_end().split('"').next().unwrap_or_default().to_owned());
        lines.push(line.trim_end().to_owned());
        if let Some(address) = address {
            break address;
        }
    };
    let body = r#"{"prompt": "Hello", "max_tokens": 1}"#;
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    lines.extend(stderr.lines().map(|line| line.expect("UTF-8")));
    lines
}

#[test]
fn logs_have_no_colours_where_there_is_no_terminal_and_flags_of_vllm_do_no_harm() {
    let ignored = ["--enforce-eager", "--tool-call-parser", "hermes", "--tensor-parallel-size", "1"];
    let lines = log_of_one_request(&[&["--device", "llvmpipe"], &ignored[..]].concat());
    let warning = "warning: --tool-call-parser, --enforce-eager, --tensor-parallel-size: nothing to do here, ignored";
    assert_eq!(lines[0], warning);
    assert!(lines.iter().any(|line| line.contains("INFO") && line.contains("max_tokens")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
}

#[test]
fn as_json_every_line_is_an_event() {
    let lines = log_of_one_request(&[
        "--log-format",
        "json",
        "--kv-events-config",
        r#"{"enable_kv_cache_events": true,
        "publisher": "zmq", "endpoint": "tcp://127.0.0.1:0"}"#,
    ]);
    let events: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect();
    let level_of = |text: &str| {
        let is_it = |event: &&Value| event["fields"]["message"].as_str().is_some_and(|message| message.contains(text));
        events.iter().find(is_it).map_or("none", |event| event["level"].as_str().expect("a level"))
    };
    // No device is named.
    assert_eq!(level_of("no usable GPU found"), if has_gpu() { "none" } else { "WARN" });
    for text in ["kernels)", "KV pool", "KV events at", "serving"] {
        assert_eq!(level_of(text), "INFO", "{text}: {lines:?}");
    }
}
