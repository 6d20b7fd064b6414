//! A piece of a prompt, and who wrote it.

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Written by the chat template: special tokens in it are honoured.
    Template(String),
    /// Written by a user: the text of a special token in it is ordinary text.
    User(String),
}

impl Span {
    /// The text.
    pub fn text(&self) -> &str {
        match self {
            Self::Template(text) | Self::User(text) => text,
        }
    }

    /// The whole prompt.
    pub fn concat(spans: &[Self]) -> String {
        spans.iter().map(Self::text).collect()
    }
}
