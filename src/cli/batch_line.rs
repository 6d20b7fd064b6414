//! One line of a batch file: a request, and the line that answers it.

use bindery::engine::RequestId;
use bindery::llm::{Event, Llm, RequestOptions, RequestOutput};
use bindery::openai::{ApiError, ChatCompletionRequest, CommonFields, CompletionRequest, GenerateRequest, Reply};
use bindery::sampling::SamplingParams;
use serde::Deserialize;
use serde_json::{Value, json};

/// A line of the input, as OpenAI's batch API and `vllm run-batch` take it.
#[derive(Deserialize)]
struct InputLine {
    custom_id: Option<Value>,
    method: Option<String>,
    url: String,
    body: Value,
}

fn read_body(url: &str, body: Value, defaults: &SamplingParams) -> Result<GenerateRequest, ApiError> {
    let body = match url {
        "/v1/completions" => GenerateRequest::Completion(CompletionRequest::from_body(body, defaults)?),
        "/v1/chat/completions" => GenerateRequest::Chat(ChatCompletionRequest::from_body(body, defaults)?),
        other => {
            let known = "/v1/completions and /v1/chat/completions are served";
            return Err(ApiError::not_found(format!("unknown url {other:?}; {known}")));
        }
    };
    if body.common().stream {
        return Err(ApiError::bad_field("stream", "`stream` is true, but a batch answers each request whole"));
    }
    Ok(body)
}

/// A request of the batch: on its way, or refused.
pub(super) struct BatchLine {
    number: usize,
    custom_id: Value,
    work: Result<Work, ApiError>,
}

struct Work {
    body: GenerateRequest,
    /// One for each prompt, in order.
    outputs: Vec<RequestOutput>,
}

impl BatchLine {
    /// Reads line `number` of the input and hands its prompts to the engine: all of them, or none.
    pub(super) fn submit(number: usize, line: &[u8], defaults: &SamplingParams, llm: &mut Llm) -> Self {
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => return Self::refused(number, Value::Null, format!("line {number} is not JSON: {error}")),
        };
        let custom_id = value.get("custom_id").cloned().unwrap_or_default();
        let line: InputLine = match serde_json::from_value(value) {
            Ok(line) => line,
            Err(error) => {
                return Self::refused(number, custom_id, format!("line {number} is no batch request: {error}"));
            }
        };
        if !line.custom_id.as_ref().is_some_and(Value::is_string) {
            return Self::refused(number, custom_id, format!("line {number}: `custom_id` must be a string"));
        }
        if line.method.as_deref().is_some_and(|method| method != "POST") {
            return Self::refused(number, custom_id, format!("line {number}: `method` must be \"POST\""));
        }
        let work = read_body(&line.url, line.body, defaults).and_then(|body| Work::start(body, llm));
        Self { number, custom_id, work }
    }

    fn refused(number: usize, custom_id: Value, message: String) -> Self {
        Self { number, custom_id, work: Err(ApiError::bad_request(message)) }
    }

    /// The engine's requests that this line waits for, in the order of its prompts.
    pub(super) fn requests(&self) -> impl Iterator<Item = RequestId> {
        self.work.iter().flat_map(|work| work.outputs.iter().map(|output| output.request))
    }

    /// Adds what an event tells about the line's prompt of this index.
    pub(super) fn push(&mut self, prompt: usize, event: Event) {
        if let Ok(work) = &mut self.work {
            work.outputs[prompt].push(event);
        }
    }

    /// Whether nothing more will come.
    pub(super) fn is_done(&self) -> bool {
        self.work.as_ref().map_or(true, |work| work.outputs.iter().all(RequestOutput::is_done))
    }

    /// Prompt and completion tokens, so far.
    pub(super) fn tokens(&self) -> (usize, usize) {
        let outputs = self.work.iter().flat_map(|work| &work.outputs);
        outputs.fold((0, 0), |(prompt, completion), output| {
            (prompt + output.prompt_token_ids.len(), completion + output.completion_tokens())
        })
    }

    /// The line of the output, and whether it is an answer: otherwise it tells an error. Call it once the line is done.
    pub(super) fn answer(self, llm: &Llm, default_model: &str, created: u64) -> (Value, bool) {
        let Self { number, custom_id, work } = self;
        let answer = work.and_then(|work| work.answer(number, llm, default_model, created));
        let is_answer = answer.is_ok();
        let (status_code, body, error) = match answer {
            Ok(body) => (200, body, Value::Null),
            Err(error) => (error.code, Value::Null, json!(error)),
        };
        let line = json!({
            "id": format!("batch_req_{number}"),
            "custom_id": custom_id,
            "response": {"status_code": status_code, "request_id": format!("req_{number}"), "body": body},
            "error": error,
        });
        (line, is_answer)
    }
}

impl Work {
    fn start(body: GenerateRequest, llm: &mut Llm) -> Result<Self, ApiError> {
        let tokenizer = llm.tokenizer().ok().map(|tokenizer| &**tokenizer);
        let template = match body {
            GenerateRequest::Completion(_) => None,
            GenerateRequest::Chat(_) => Some(&**llm.chat_template()?),
        };
        let prompts = body.token_ids(tokenizer, template, llm.max_model_len())?;
        let CommonFields { params, priority, cache_salt, .. } = body.common();
        let salt = cache_salt.as_ref().map(|salt| salt.clone().into_bytes());
        let mut outputs: Vec<RequestOutput> = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let options = RequestOptions { priority: *priority, cache_salt: salt.clone(), grammar: None };
            match llm.add_with(prompt.clone(), params.clone(), options) {
                Ok(id) => outputs.push(RequestOutput::new(id, prompt, params)),
                Err(error) => {
                    for output in outputs {
                        llm.abort(output.request);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(Self { body, outputs })
    }

    fn answer(&self, number: usize, llm: &Llm, default_model: &str, created: u64) -> Result<Value, ApiError> {
        let tokenizer = llm.tokenizer().ok().map(|tokenizer| &**tokenizer);
        let model = self.body.common().model.as_deref().unwrap_or(default_model);
        let id = format!("{}-{number}", self.body.id_prefix());
        self.body.response(&self.outputs, Reply { id: &id, created, model, tokenizer })
    }
}
