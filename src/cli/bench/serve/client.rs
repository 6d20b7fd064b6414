//! One streamed request, with the times of its chunks.

use super::super::super::exit::Failure;
use super::Endpoint;
use super::load::Planned;
use anyhow::{Result, bail};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use std::time::Instant;

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Seconds until the first chunk with text.
    pub(super) ttft_s: f64,
    /// Seconds between one such chunk and the next.
    pub(super) itl_s: Vec<f64>,
    /// Seconds until the end.
    pub(super) e2e_s: f64,
    pub(super) text: String,
    /// As the server counts them.
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
}

/// Who asks.
pub(super) struct Client {
    http: reqwest::Client,
    base_url: String,
    endpoint: Endpoint,
    api_key: Option<String>,
}

impl Client {
    pub(super) fn new(base_url: &str, endpoint: Endpoint, api_key: Option<String>) -> Result<Self> {
        if !base_url.starts_with("http://") {
            bail!("--base-url {base_url}: must begin with http:// (there is no TLS here: use a tunnel)");
        }
        let base_url = base_url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { http: reqwest::Client::new(), base_url, endpoint, api_key })
    }

    /// The first model that the server lists.
    pub(super) async fn first_model(&self) -> Result<String> {
        let request = self.keyed(self.http.get(format!("{}/v1/models", self.base_url)));
        let models = json_of(send(request).await.map_err(Failure)?).await.map_err(Failure)?;
        match models.pointer("/data/0/id").and_then(Value::as_str) {
            Some(model) => Ok(model.to_owned()),
            None => bail!("{}/v1/models lists no model: name one by --model", self.base_url),
        }
    }

    /// Sends a request and reads its answer to the end.
    pub(super) async fn ask(&self, model: &str, planned: &Planned) -> Result<Answer, String> {
        let mut body = json!({
            "model": model, "max_tokens": planned.output_tokens, "temperature": 0, "ignore_eos": true, "stream": true,
            "stream_options": {"include_usage": true},
        });
        let path = match self.endpoint {
            Endpoint::Completions => {
                body["prompt"] = json!(planned.prompt);
                "completions"
            }
            Endpoint::Chat => {
                body["messages"] = json!([{"role": "user", "content": planned.prompt}]);
                "chat/completions"
            }
        };
        let request = self.http.post(format!("{}/v1/{path}", self.base_url));
        let request = self.keyed(request).header("Content-Type", "application/json").body(body.to_string());
        let start = Instant::now();
        let mut response = send(request).await?;
        let (mut answer, mut last, mut held) = (Answer::default(), None, Vec::new());
        while let Some(bytes) = response.chunk().await.map_err(|error| told(&error))? {
            held.extend_from_slice(&bytes);
            while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                if let Some(chunk) = data(&line)? {
                    let now = start.elapsed().as_secs_f64();
                    answer.take(&chunk, now, &mut last)?;
                }
            }
        }
        answer.e2e_s = start.elapsed().as_secs_f64();
        if last.is_none() {
            return Err("the answer had no text".into());
        }
        Ok(answer)
    }

    fn keyed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

impl Answer {
    fn take(&mut self, chunk: &Value, now: f64, last: &mut Option<f64>) -> Result<(), String> {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(error["message"].as_str().unwrap_or("the server sent an error").to_owned());
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
            self.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or(0);
            self.completion_tokens = usage["completion_tokens"].as_u64().unwrap_or(0);
        }
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(()) };
        let text = choice["text"].as_str().or_else(|| choice.pointer("/delta/content")?.as_str()).unwrap_or("");
        if !text.is_empty() {
            self.text += text;
            match last.replace(now) {
                None => self.ttft_s = now,
                Some(before) => self.itl_s.push(now - before),
            }
        }
        Ok(())
    }
}

/// The JSON of a `data:` line, if it is one and not the last.
fn data(line: &[u8]) -> Result<Option<Value>, String> {
    let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return Ok(None) };
    if data == b"[DONE]" {
        return Ok(None);
    }
    serde_json::from_slice(data).map(Some).map_err(|error| format!("a chunk is no JSON: {error}"))
}

async fn send(request: RequestBuilder) -> Result<Response, String> {
    let response = request.send().await.map_err(|error| told(&error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or(text.trim()).to_owned();
    Err(format!("{status}: {message}"))
}

async fn json_of(response: Response) -> Result<Value, String> {
    let text = response.text().await.map_err(|error| told(&error))?;
    serde_json::from_str(&text).map_err(|error| format!("the answer is no JSON: {error}"))
}

/// An error with its causes: the first alone says little.
fn told(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    match error.is_connect() {
        true => text + "; start a server there (`bindery serve`), or say where one is with --base-url",
        false => text,
    }
}
