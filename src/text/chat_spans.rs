//! Telling users' text from the template's own after rendering.
//!
//! The text of a special token in a message must stay text. So that part of the message is replaced by a mark before
//! rendering, and put back afterwards; what stands in the mark's place is the user's. A mark is a number between two
//! private-use characters that occur nowhere else. Templates may look at what a mark replaces, so a rendering counts
//! only if it equals the plain one; if no way of marking achieves that, the request is refused.

use serde_json::{Map, Value};

use super::Span;
use super::added_tokens::AddedTokens;

/// Which parts of users' strings to mark, from the widest to the narrowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marking {
    /// Strings that contain the text of a control token, whole except for the blanks around them (which templates
    /// trim).
    Strings,
    /// The control tokens' text only: templates may split or escape the rest.
    Tokens,
    /// The text of tokens flagged special only: templates may look for `</think>` and the like themselves.
    SpecialTokens,
}

impl Marking {
    pub(super) const ALL: [Self; 3] = [Self::Strings, Self::Tokens, Self::SpecialTokens];
}

/// Marks messages for one rendering.
pub(super) struct Marker<'a> {
    marking: Marking,
    added: &'a AddedTokens,
    open: char,
    close: char,
    marked: Vec<String>,
}

impl<'a> Marker<'a> {
    /// `text` is everything the marks must not be confused with. `None` if it holds every candidate.
    pub(super) fn new(marking: Marking, added: &'a AddedTokens, text: &str) -> Option<Self> {
        // Supplementary Private Use Area-A.
        let candidates =
            (0xF0000..0xFF000).step_by(2).filter_map(|c| Some((char::from_u32(c)?, char::from_u32(c + 1)?)));
        let (open, close) = candidates.into_iter().find(|&(open, close)| !text.contains([open, close]))?;
        Some(Self { marking, added, open, close, marked: Vec::new() })
    }

    /// A message with its users' strings marked, `role` excepted: templates compare it, and it is checked already.
    pub(super) fn mark_message(&mut self, message: &Map<String, Value>) -> Map<String, Value> {
        let mark = |(key, value): (&String, &Value)| {
            let value = if key == "role" { value.clone() } else { self.mark_value(value) };
            (key.clone(), value)
        };
        message.iter().map(mark).collect()
    }

    fn mark_value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mark_string(text)),
            Value::Array(items) => items.iter().map(|item| self.mark_value(item)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| (self.mark_string(key), self.mark_value(value))).collect()
            }
            other => other.clone(),
        }
    }

    fn mark_string(&mut self, text: &str) -> String {
        if !may_form_control_token(text, self.added) {
            return text.to_owned();
        }
        if self.marking == Marking::Strings {
            let start = text.len() - text.trim_start().len();
            let end = text.trim_end().len();
            return format!("{}{}{}", &text[..start], self.mark(&text[start..end]), &text[end..]);
        }
        let mut out = String::new();
        let mut done = 0;
        let markup = if self.marking == Marking::Tokens { self.added.markup() } else { &[] };
        for range in control_ranges(text, self.added.special(), markup) {
            out += &text[done..range.start];
            out += &self.mark(&text[range.clone()]);
            done = range.end;
        }
        out + &text[done..]
    }

    fn mark(&mut self, text: &str) -> String {
        self.marked.push(text.to_owned());
        format!("{}{}{}", self.open, self.marked.len() - 1, self.close)
    }

    /// The spans of a rendering of marked messages; `None` if the template broke a mark.
    pub(super) fn spans(&self, rendered: &str) -> Option<Vec<Span>> {
        let mut spans = Vec::new();
        let mut rest = rendered;
        while let Some(open) = rest.find([self.open, self.close]) {
            let after = rest[open..].strip_prefix(self.open)?;
            let (number, tail) = after.split_once(self.close)?;
            let text = self.marked.get(number.parse::<usize>().ok()?)?;
            spans.push(Span::Template(rest[..open].to_owned()));
            spans.push(Span::User(text.clone()));
            rest = tail;
        }
        spans.push(Span::Template(rest.to_owned()));
        spans.retain(|span| !span.text().is_empty());
        Some(spans)
    }
}

/// Whether a string contains a control token's text, or could be part of one together with what stands next to it.
pub(super) fn may_form_control_token(text: &str, added: &AddedTokens) -> bool {
    let control = |token: &String| touches(text, token);
    !text.is_empty() && (added.special().iter().any(control) || added.markup().iter().any(control))
}

fn touches(text: &str, token: &str) -> bool {
    text.contains(token) || is_inside(text, token) || head_len(text, token) > 0 || tail_len(text, token) > 0
}

/// Whether the token could be `text` with something on both sides. Plain words are not looked for: a template that puts
/// a word between `<|` and `|>` means to.
fn is_inside(text: &str, token: &str) -> bool {
    text.contains(['<', '>', '|', '[', ']']) && token.contains(text)
}

/// Length of the longest proper suffix of `token` that `text` starts with.
fn head_len(text: &str, token: &str) -> usize {
    let cuts = token.char_indices().skip(1).map(|(at, _)| at);
    cuts.map(|at| &token[at..]).find(|suffix| text.starts_with(suffix)).map_or(0, str::len)
}

/// Length of the longest proper prefix of `token` that `text` ends with.
fn tail_len(text: &str, token: &str) -> usize {
    let cuts = token.char_indices().rev().map(|(at, _)| at).filter(|&at| at > 0);
    cuts.map(|at| &token[..at]).find(|prefix| text.ends_with(prefix)).map_or(0, str::len)
}

/// The first control token whose text a message contains, for the error.
pub(super) fn first_control_token(value: &Value, added: &AddedTokens) -> Option<String> {
    match value {
        Value::String(text) => {
            added.special().iter().chain(added.markup()).find(|token| text.contains(token.as_str())).cloned()
        }
        Value::Array(items) => items.iter().find_map(|item| first_control_token(item, added)),
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            first_control_token(&Value::String(key.clone()), added).or_else(|| first_control_token(value, added))
        }),
        _ => None,
    }
}

/// Byte ranges of `text`, ascending and merged, that are or could become part of a control token.
fn control_ranges(text: &str, special: &[String], markup: &[String]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    for token in special.iter().chain(markup) {
        ranges.extend(text.match_indices(token.as_str()).map(|(at, found)| at..at + found.len()));
        if is_inside(text, token) {
            ranges.push(0..text.len());
        }
        ranges.push(0..head_len(text, token));
        ranges.push(text.len() - tail_len(text, token)..text.len());
    }
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<std::ops::Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use tokenizers::AddedToken;

    use super::*;

    fn added() -> AddedTokens {
        let tokens = [("<|end|>", true), ("<think>", false), ("  ", false)];
        AddedTokens::new((0..).zip(tokens.map(|(text, special)| AddedToken::from(text, special))), None).unwrap()
    }

    #[test]
    fn what_may_form_a_token() {
        for text in ["a<|end|>b", "a<", "a<|en", ">a", "d|>", "|", "<think>"] {
            assert!(may_form_control_token(text, &added()), "{text}");
        }
        for text in ["", "hello", "a < b", "3 > 2", "  ", "x<|e x", "end"] {
            assert!(!may_form_control_token(text, &added()), "{text}");
        }
    }

    #[test]
    fn ranges_are_merged() {
        let special = ["<|end|>".to_string()];
        let one = std::slice::from_ref;
        assert_eq!(control_ranges("a<|end|>b", &special, &[]), one(&(1..8)));
        assert_eq!(control_ranges("d|>x<|end|><|", &special, &[]), [0..3, 4..13]);
        assert_eq!(control_ranges("|en", &special, &[]), one(&(0..3)));
    }

    #[test]
    fn marks_come_back_as_users_spans() {
        let added = added();
        let mut marker = Marker::new(Marking::Strings, &added, "").unwrap();
        let marked = marker.mark_string(" x<|end|>\n");
        assert!(marked.starts_with(' ') && marked.ends_with('\n') && !marked.contains("end"));
        let rendered = format!("<|end|>{}|{}", marked.trim(), marked);
        let user = || Span::User("x<|end|>".into());
        let template = |text: &str| Span::Template(text.into());
        assert_eq!(
            marker.spans(&rendered).unwrap(),
            [template("<|end|>"), user(), template("| "), user(), template("\n")]
        );
        assert_eq!(marker.spans(&rendered[..rendered.len() - 5]), None);
        let other = Marker::new(Marking::Tokens, &added, &marked).unwrap();
        assert_ne!(other.open, marker.open);
    }
}
