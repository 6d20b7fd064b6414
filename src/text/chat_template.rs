//! Chat templates: messages to a prompt.

use std::path::Path;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde_json::Map;

use super::chat_inputs::{all_strings, check_name};
use super::chat_spans::{Marker, Marking, first_control_token, may_form_control_token};
use super::template_env::{TEMPLATE, environment};
use super::tokenizer::read_json;
use super::{ChatInputs, Message, Span, TextError, Tokenizer};
use crate::engine::TokenId;

/// A model's chat template, rendered as `transformers` renders it (`apply_chat_template`), within a budget of time and
/// memory.
///
/// Templates come with the model and are the operator's choice; they are never taken from a request.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    keeps_parts: bool,
    variables: Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// A template from its Jinja source (`tokenizer.chat_template` of a GGUF, `chat_template` of a
    /// `tokenizer_config.json`).
    ///
    /// # Errors
    /// [`TextError::Template`] with line and cause if it is not valid Jinja.
    pub fn new(source: &str) -> Result<Self, TextError> {
        let env = environment(source).map_err(|error| template_error(&error))?;
        let keeps_parts = loops_over_content(source);
        Ok(Self { env, source: source.to_owned(), keeps_parts, variables: Map::new() })
    }

    /// The same with variables of the operator's for every rendering that does not give them itself.
    ///
    /// # Errors
    /// [`TextError::Variable`] for names that templates know from elsewhere.
    pub fn with_variables(self, variables: Map<String, serde_json::Value>) -> Result<Self, TextError> {
        variables.keys().try_for_each(|name| check_name(name))?;
        Ok(Self { variables, ..self })
    }

    /// The template of a Hugging Face folder: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`
    /// (of several, the one called `default`).
    ///
    /// # Errors
    /// [`TextError::NoTemplate`] if there is none, or as [`ChatTemplate::new`].
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("chat_template.jinja");
        if path.exists() {
            let source = std::fs::read_to_string(&path).map_err(|source| TextError::Read { path, source })?;
            return Self::new(&source);
        }
        let config = read_json(&dir.join("tokenizer_config.json"))?;
        let source = match config.get("chat_template") {
            Some(serde_json::Value::String(source)) => Some(source.as_str()),
            Some(serde_json::Value::Array(named)) => {
                let default = named.iter().find(|entry| entry["name"] == "default");
                default.and_then(|entry| entry["template"].as_str())
            }
            _ => None,
        };
        Self::new(source.ok_or(TextError::NoTemplate)?)
    }

    /// The prompt for `messages`, as one text: for display, not for encoding.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_text(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        inputs: ChatInputs<'_>,
    ) -> Result<String, TextError> {
        self.render_maps(tokenizer, &self.prepare(messages)?, inputs)
    }

    /// The prompt for `messages`, as spans that say who wrote what. Users' text that holds no special token's text may
    /// come as part of a template span: there is nothing in it to honour.
    ///
    /// `tokenizer` gives the template `bos_token` and `eos_token`, and says which texts are special.
    ///
    /// # Errors
    /// [`TextError::Message`] for a message no template can see, [`TextError::Template`] if the template refuses the
    /// messages, fails or runs out of its budget, [`TextError::SpecialText`] if the text of a special token in a
    /// message cannot be told from the template's, [`TextError::SpecialTextInTools`] and [`TextError::Variable`] for
    /// inputs that no template may get.
    pub fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        inputs: ChatInputs<'_>,
    ) -> Result<Vec<Span>, TextError> {
        let maps = self.prepare(messages)?;
        let added = tokenizer.added_tokens();
        inputs.check(added)?;
        let plain = self.render_maps(tokenizer, &maps, inputs)?;
        let harmless = |map: &Map<String, serde_json::Value>| {
            map.iter()
                .filter(|(key, _)| *key != "role")
                .all(|(_, value)| all_strings(value, &mut |text| !may_form_control_token(text, added)))
        };
        if maps.iter().all(harmless) {
            return Ok(vec![Span::Template(plain)]);
        }
        let sent = serde_json::to_string(&maps).unwrap_or_default();
        for marking in Marking::ALL {
            let Some(mut marker) = Marker::new(marking, added, &[&self.source, &*sent, &*plain].concat()) else {
                break;
            };
            let marked: Vec<_> = maps.iter().map(|map| marker.mark_message(map)).collect();
            // A template may refuse a marked message that it takes as it is: the next marking may pass.
            let Ok(rendered) = self.render_maps(tokenizer, &marked, inputs) else { continue };
            match marker.spans(&rendered) {
                Some(spans) if Span::concat(&spans) == plain => return Ok(spans),
                _ => (),
            }
        }
        let found = maps.iter().enumerate().find_map(|(index, map)| {
            Some((index, first_control_token(&serde_json::Value::Object(map.clone()), added)?))
        });
        let (index, token) = found.unwrap_or_default();
        Err(TextError::SpecialText { index, token })
    }

    /// The prompt's token ids: special tokens honoured in the template's text only, equal to `transformers`' ids
    /// whenever the messages hold no special token's text.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_chat(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        inputs: ChatInputs<'_>,
    ) -> Result<Vec<TokenId>, TextError> {
        tokenizer.encode_spans(&self.render(tokenizer, messages, inputs)?)
    }

    fn prepare(&self, messages: &[Message]) -> Result<Vec<Map<String, serde_json::Value>>, TextError> {
        messages.iter().enumerate().map(|(index, message)| message.for_template(index, self.keeps_parts)).collect()
    }

    fn render_maps(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Map<String, serde_json::Value>],
        inputs: ChatInputs<'_>,
    ) -> Result<String, TextError> {
        let ChatInputs { tools, variables, add_generation_prompt } = inputs;
        let mut all_variables = self.variables.clone();
        all_variables.extend(variables.cloned().unwrap_or_default());
        let spelled = |token: Option<TokenId>| token.and_then(|token| tokenizer.id_to_token(token)).unwrap_or_default();
        let template = self.env.get_template(TEMPLATE).map_err(|error| template_error(&error))?;
        template
            .render(context! {
                messages => Value::from(Serde(messages)),
                tools => (!tools.is_empty()).then(|| Value::from(Serde(tools))),
                documents => (),
                add_generation_prompt,
                bos_token => spelled(tokenizer.bos()),
                eos_token => spelled(tokenizer.eos().first().copied()),
                unk_token => spelled(tokenizer.unk()),
                ..Value::from(Serde(&all_variables))
            })
            .map_err(|error| template_error(&error))
    }
}

/// Whether the template handles lists of parts itself: `for part in message.content` (vLLM's content format "openai").
fn loops_over_content(source: &str) -> bool {
    source.split("for ").skip(1).any(|rest| {
        let mut words = rest.split_whitespace();
        let _variable = words.next();
        let (keyword, expression) = (words.next(), words.next().unwrap_or_default());
        keyword == Some("in")
            && (expression == "content"
                || [".content", "['content']", "[\"content\"]"].iter().any(|end| expression.ends_with(end)))
    })
}

fn template_error(error: &minijinja::Error) -> TextError {
    let mut reason = error.to_string();
    if error.kind() == minijinja::ErrorKind::OutOfFuel {
        reason += "; the template does more work than one rendering may, or the messages are too long";
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason += &format!(": {cause}");
        source = cause.source();
    }
    TextError::Template { reason }
}

#[cfg(test)]
#[path = "chat_template_tests.rs"]
mod tests;
