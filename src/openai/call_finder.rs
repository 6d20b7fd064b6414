//! Tool calls in what the model wrote.

use super::tools::Tools;
use serde_json::Value;

/// A part of what the model wrote.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// Text for the user.
    Text(String),
    /// A call; its arguments as JSON text, or their beginning.
    Call { name: String, arguments: String },
    /// More of the last call's arguments.
    Arguments(String),
}

/// Finds calls in text as it comes.
///
/// Where the grammar makes the calls, a call's arguments are given as they come. A model that is free to write what it
/// likes may break off: there a call is one when it is complete, and otherwise text.
#[derive(Debug)]
pub(super) struct CallFinder {
    /// What may be, or become, a call.
    held: String,
    calls: usize,
    /// Whether a call has just ended: blanks after it are nobody's.
    is_after_call: bool,
    /// Whether the grammar makes the calls.
    is_constrained: bool,
    /// Whether `held` is within a call's arguments.
    is_in_arguments: bool,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
/// What the grammar puts before a call's arguments, after the name, and after them.
const BEFORE_ARGUMENTS: &str = ", \"arguments\": ";
const AFTER_ARGUMENTS: &str = "}\n</tool_call>";

impl CallFinder {
    /// For what is written when these tools are offered.
    pub(super) fn new(tools: &Tools) -> Self {
        Self {
            held: String::new(),
            calls: 0,
            is_after_call: false,
            is_constrained: tools.must_be_called(),
            is_in_arguments: false,
        }
    }

    /// Calls so far.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Takes text in; what is certain now goes to `parts`.
    pub(super) fn push(&mut self, text: &str, parts: &mut Vec<Part>) {
        self.held += text;
        loop {
            let goes_on = match (self.is_in_arguments, self.is_constrained) {
                (true, _) => self.arguments(parts),
                (false, true) => self.beginning(parts),
                (false, false) => self.whole_call(parts),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// The text is over: a call that was not finished is text, apart from arguments that were begun.
    pub(super) fn finish(&mut self, parts: &mut Vec<Part>) {
        if self.is_in_arguments {
            self.held.clear();
        }
        self.text(self.held.len(), parts);
    }

    /// A call from its beginning to its end. `false` where more text is needed.
    fn whole_call(&mut self, parts: &mut Vec<Part>) -> bool {
        if !self.text_before(OPEN, parts) {
            return false;
        }
        let Some(close) = self.held.find(CLOSE) else { return false };
        let call = whole_call(&self.held[OPEN.len()..close]);
        let end = close + CLOSE.len();
        match call {
            Some(call) => {
                self.calls += 1;
                self.is_after_call = true;
                parts.push(call);
                self.held.drain(..end);
            }
            None => self.text(end, parts),
        }
        true
    }

    /// A call's beginning, to its arguments. `false` where more text is needed.
    fn beginning(&mut self, parts: &mut Vec<Part>) -> bool {
        if !self.text_before(OPEN, parts) {
            return false;
        }
        let Some(end) = self.held.find(BEFORE_ARGUMENTS) else { return false };
        let Some(name) = name(&self.held[OPEN.len()..end]) else {
            self.text(end, parts);
            return true;
        };
        self.held.drain(..end + BEFORE_ARGUMENTS.len());
        self.calls += 1;
        self.is_in_arguments = true;
        parts.push(Part::Call { name, arguments: String::new() });
        true
    }

    /// A call's arguments, as far as they are there. `false` where more text is needed.
    fn arguments(&mut self, parts: &mut Vec<Part>) -> bool {
        let end = self.held.find(AFTER_ARGUMENTS);
        let known = end.unwrap_or_else(|| self.held.len() - held_back(&self.held, AFTER_ARGUMENTS));
        if known > 0 {
            parts.push(Part::Arguments(self.held.drain(..known).collect()));
        }
        if end.is_some() {
            self.held.drain(..AFTER_ARGUMENTS.len());
            self.is_in_arguments = false;
            self.is_after_call = true;
        }
        end.is_some()
    }

    /// Gives away as text what stands before `mark`, or cannot be its beginning. `true` when `held` begins with it.
    fn text_before(&mut self, mark: &str, parts: &mut Vec<Part>) -> bool {
        let at = self.held.find(mark);
        self.text(at.unwrap_or_else(|| self.held.len() - held_back(&self.held, mark)), parts);
        at.is_some()
    }

    /// Gives the first bytes of what is held away as text.
    fn text(&mut self, bytes: usize, parts: &mut Vec<Part>) {
        let text: String = self.held.drain(..bytes).collect();
        let text = if self.is_after_call { text.trim_start() } else { &text };
        if !text.is_empty() {
            self.is_after_call = false;
            parts.push(Part::Text(text.to_owned()));
        }
    }
}

/// Bytes at the end of `text` that may be the beginning of `mark`.
fn held_back(text: &str, mark: &str) -> usize {
    (1..mark.len()).rev().find(|&len| text.ends_with(&mark[..len])).unwrap_or(0)
}

fn whole_call(call: &str) -> Option<Part> {
    let call: Value = serde_json::from_str(call.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = call.get("arguments").or_else(|| call.get("parameters"));
    Some(Part::Call { name, arguments: arguments.map_or_else(|| "{}".to_owned(), Value::to_string) })
}

/// The name in the beginning of a call, without its arguments.
fn name(beginning: &str) -> Option<String> {
    let call: Value = serde_json::from_str(&format!("{}}}", beginning.trim())).ok()?;
    Some(call.get("name")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tools::ToolChoice;
    use super::*;

    /// The text, and each call with its arguments.
    fn found(choice: ToolChoice, pieces: &[&str]) -> (String, Vec<(String, String)>) {
        let (mut finder, mut parts) = (CallFinder::new(&Tools { offered: vec![], choice }), Vec::new());
        pieces.iter().for_each(|piece| finder.push(piece, &mut parts));
        finder.finish(&mut parts);
        let (mut text, mut calls) = (String::new(), Vec::<(String, String)>::new());
        for part in parts {
            match part {
                Part::Text(more) => text += &more,
                Part::Call { name, arguments } => calls.push((name, arguments)),
                Part::Arguments(more) => calls.last_mut().expect("a call").1 += &more,
            }
        }
        assert_eq!(finder.calls(), calls.len());
        (text, calls)
    }

    /// However the text is cut, the same is found.
    fn found_in(choice: &ToolChoice, text: &str) -> (String, Vec<(String, String)>) {
        let whole = found(choice.clone(), &[text]);
        for size in 1..40 {
            let pieces: Vec<String> =
                text.chars().collect::<Vec<_>>().chunks(size).map(|piece| piece.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            assert_eq!(found(choice.clone(), &pieces), whole, "pieces of {size}");
        }
        whole
    }

    #[test]
    fn calls_among_text() {
        let text = "Let me see. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"<b>\"}}\n</tool_call>\n\
                    <tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call> a < b";
        let (text, calls) = found_in(&ToolChoice::Auto, text);
        assert_eq!(text, "Let me see. a < b");
        assert_eq!(calls, [("f".into(), r#"{"a":"<b>"}"#.into()), ("g".into(), "{}".into())]);
    }

    #[test]
    fn what_is_no_call_is_text() {
        for text in ["<tool_call>{\"name\": \"f\"", "<tool_call>no JSON</tool_call>", "a <tool", "<tool_call>"] {
            assert_eq!(found_in(&ToolChoice::Auto, text), (text.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn calls_by_the_grammar() {
        let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": {\"b\": \"}</tool_call>\"}}}\n</tool_call>\n\
                    <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
        let (rest, calls) = found_in(&ToolChoice::Required, text);
        assert_eq!(rest, "");
        assert_eq!(calls, [("f".into(), r#"{"a": {"b": "}</tool_call>"}}"#.into()), ("g".into(), "{}".into())]);
        // Cut off by `max_tokens`: what there is of the arguments.
        let (rest, calls) = found_in(&ToolChoice::Named("f".into()), &text[..60]);
        assert_eq!((&*rest, &*calls), ("", &[("f".into(), r#"{"a": {"b": "}</tool_"#.into())][..]));
        let (rest, calls) = found_in(&ToolChoice::Required, &text[..20]);
        assert_eq!((&*rest, &*calls), (&text[..20], &[][..]));
    }

    #[test]
    fn arguments_come_as_they_are_written() {
        let mut finder = CallFinder::new(&Tools { offered: vec![], choice: ToolChoice::Required });
        let mut parts = Vec::new();
        for piece in ["<tool_call>\n{\"name\": \"f\", \"argu", "ments\": {\"a", "\": 1", "}}\n</tool", "_call>"] {
            finder.push(piece, &mut parts);
        }
        let arguments = |text: &str| Part::Arguments(text.into());
        let call = Part::Call { name: "f".into(), arguments: String::new() };
        assert_eq!(parts, [call, arguments("{\"a"), arguments("\": 1"), arguments("}")]);
    }
}
