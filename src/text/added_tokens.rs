//! Added tokens: found in the text before the model's own merges see it. The `tokenizers` crate can honour them
//! everywhere or nowhere; a prompt needs them honoured in some places, so the search is done here.

use std::ops::Range;

use tokenizers::{AddedToken, NormalizedString, Normalizer, NormalizerWrapper, Token, normalizer};

use super::TextError;
use crate::engine::TokenId;

#[derive(Debug, Clone)]
struct Pattern {
    /// What is searched: the token's content, normalised if it is matched after normalisation.
    text: String,
    id: TokenId,
    flags: AddedToken,
    /// Whether users must not be able to write it.
    control: bool,
}

/// Patterns of one pass, by first byte, longest first.
#[derive(Debug, Clone, Default)]
struct Pass {
    by_first_byte: std::collections::BTreeMap<u8, Vec<Pattern>>,
}

/// All added tokens of a tokenizer.
#[derive(Debug, Clone, Default)]
pub(super) struct AddedTokens {
    raw: Pass,
    normalized: Pass,
    /// Contents of the tokens users must not be able to write: the special ones first.
    special: Vec<String>,
    markup: Vec<String>,
}

/// Not flagged special, but the model was trained to read it as structure: `<tool_call>`, `</think>`, `[INST]`.
/// Runs of blanks and plain words are not, they stay in force in users' text.
fn is_markup(content: &str) -> bool {
    let bracketed =
        (content.starts_with('<') && content.ends_with('>')) || (content.starts_with('[') && content.ends_with(']'));
    bracketed && content.len() > 2 && !content.contains(char::is_whitespace)
}

impl AddedTokens {
    pub(super) fn new(
        tokens: impl IntoIterator<Item = (TokenId, AddedToken)>,
        normalizer: Option<&NormalizerWrapper>,
    ) -> Result<Self, TextError> {
        let mut this = Self::default();
        for (id, flags) in tokens {
            if flags.content.is_empty() {
                continue;
            }
            let control = flags.special || is_markup(&flags.content);
            match (flags.special, control) {
                (true, _) => this.special.push(flags.content.clone()),
                (false, true) => this.markup.push(flags.content.clone()),
                (false, false) => (),
            }
            let mut text = flags.content.clone();
            if let (true, Some(normalizer)) = (flags.normalized, normalizer) {
                let mut normalised = NormalizedString::from(text.as_str());
                normalizer.normalize(&mut normalised).map_err(|error| TextError::Parse {
                    what: format!("added token {:?}", flags.content),
                    reason: error.to_string(),
                })?;
                text = normalised.get().to_string();
            }
            let Some(&first) = text.as_bytes().first() else { continue };
            let pass = if flags.normalized { &mut this.normalized } else { &mut this.raw };
            pass.by_first_byte.entry(first).or_default().push(Pattern { text, id, flags, control });
        }
        for patterns in this.raw.by_first_byte.values_mut().chain(this.normalized.by_first_byte.values_mut()) {
            patterns.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then(a.id.cmp(&b.id)));
        }
        this.special.sort();
        this.markup.sort();
        Ok(this)
    }

    /// Texts of the tokens flagged special.
    pub(super) fn special(&self) -> &[String] {
        &self.special
    }

    /// Texts of the tokens that look like markup without being flagged special.
    pub(super) fn markup(&self) -> &[String] {
        &self.markup
    }

    /// Splits at added tokens matched before (`raw`) or after normalisation. `user` are the byte ranges of the
    /// original text, ascending, in which control tokens are ordinary text; touching one of them is enough.
    pub(super) fn split(
        &self,
        text: &NormalizedString,
        raw: bool,
        user: &[Range<usize>],
    ) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
        let pass = if raw { &self.raw } else { &self.normalized };
        let slice = |range: Range<usize>| {
            text.slice(normalizer::Range::Normalized(range)).expect("matches lie on character boundaries")
        };
        let is_users = |range: Range<usize>| {
            let start = text.offsets_original().0;
            let original = text.convert_offsets(normalizer::Range::Normalized(range)).unwrap_or_default();
            overlaps(user, start + original.start..start + original.end)
        };
        let mut pieces = Vec::new();
        let mut done = 0;
        for (range, id) in pass.find(text.get(), is_users) {
            if done < range.start {
                pieces.push((slice(done..range.start), None));
            }
            let piece = slice(range.clone());
            let token = Token::new(id, piece.get().to_owned(), (0, range.len()));
            pieces.push((piece, Some(vec![token])));
            done = range.end;
        }
        if done < text.get().len() || pieces.is_empty() {
            pieces.push((slice(done..text.get().len()), None));
        }
        pieces
    }
}

impl Pass {
    /// Leftmost-longest matches, widened over blanks where the token says so.
    fn find(&self, text: &str, is_users: impl Fn(Range<usize>) -> bool) -> Vec<(Range<usize>, TokenId)> {
        let mut found = Vec::new();
        let (mut at, mut done) = (0, 0);
        while at < text.len() {
            let candidates = self.by_first_byte.get(&text.as_bytes()[at]).map_or(&[][..], Vec::as_slice);
            let pattern = candidates.iter().find(|pattern| {
                text.as_bytes()[at..].starts_with(pattern.text.as_bytes())
                    && !(pattern.flags.single_word && splits_a_word(text, at..at + pattern.text.len()))
                    && !(pattern.control && is_users(at..at + pattern.text.len()))
            });
            let Some(pattern) = pattern else {
                at += 1;
                continue;
            };
            let mut range = at..at + pattern.text.len();
            if pattern.flags.lstrip {
                range.start = text[done..at].trim_end().len() + done;
            }
            if pattern.flags.rstrip {
                range.end = text.len() - text[range.end..].trim_start().len();
            }
            (at, done) = (range.end, range.end);
            found.push((range, pattern.id));
        }
        found
    }
}

fn splits_a_word(text: &str, range: Range<usize>) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text[..range.start].chars().next_back().is_some_and(is_word)
        || text[range.end..].chars().next().is_some_and(is_word)
}

fn overlaps(ranges: &[Range<usize>], range: Range<usize>) -> bool {
    let next = ranges.partition_point(|candidate| candidate.end <= range.start);
    ranges.get(next).is_some_and(|candidate| candidate.start < range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tokens: &[(&str, TokenId)], text: &str, user: Range<usize>) -> Vec<(Range<usize>, TokenId)> {
        let tokens = tokens.iter().map(|&(text, id)| (id, AddedToken::from(text, true)));
        let added = AddedTokens::new(tokens, None).unwrap();
        added.raw.find(text, |range| overlaps(std::slice::from_ref(&user), range))
    }

    #[test]
    fn leftmost_longest_outside_of_users_text() {
        let tokens = [("<a>", 1), ("<a><b>", 2), ("<b>", 3)];
        assert_eq!(found(&tokens, "x<a><b>é<b>", 99..99), [(1..7, 2), (9..12, 3)]);
        // The users' part touches the long match only.
        assert_eq!(found(&tokens, "x<a><b>", 6..7), [(1..4, 1)]);
        assert_eq!(found(&tokens, "x<a><b>", 0..7), []);
    }

    #[test]
    fn strip_and_single_word() {
        let mask = AddedToken::from("<m>", true).lstrip(true).rstrip(true);
        let word = AddedToken::from("cat", false).normalized(false).single_word(true);
        let added = AddedTokens::new([(1, mask), (2, word)], None).unwrap();
        let all = added.raw.find("a  <m> \nb cat cats concat", |_| false);
        assert_eq!(all, [(1..8, 1), (10..13, 2)]);
    }

    #[test]
    fn what_users_must_not_write() {
        for text in ["<tool_call>", "</think>", "[INST]"] {
            assert!(is_markup(text), "{text}");
        }
        for text in ["  ", "\n\n", "<>", "[ ]", "word", "<0x0A", "< a >"] {
            assert!(!is_markup(text), "{text}");
        }
    }
}
