//! Sampled tokens to text, one at a time.

use std::sync::Arc;

use super::{TextError, Tokenizer};
use crate::engine::TokenId;

/// Turns the tokens of one completion into pieces of text as they come.
///
/// Joined together, the pieces are the text of all the tokens; no piece ends within a character. Work per token does
/// not grow with the completion.
///
/// With a byte-level vocabulary every token is bytes, and an unfinished character waits for the rest of it. Other
/// vocabularies decode a token differently after others (SentencePiece drops the first blank), so a short window of
/// tokens is decoded with and without the new one, and the difference is the piece; the window starts in the prompt,
/// whose text is never part of a piece.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// The bytes of an unfinished character, at most three.
    Bytes(Vec<u8>),
    /// `window[..read]` has been made into text, the rest has not.
    Window { window: Vec<TokenId>, read: usize },
}

/// Prompt tokens a window starts with: enough for any decoder's look-back, as in vLLM and text-generation-inference.
const PROMPT_TAIL_TOKENS: usize = 6;
/// A window that decodes to no whole character for so many tokens never will: no character is longer.
const MAX_HELD_TOKENS: usize = 16;

impl Detokenizer {
    /// For a completion of `prompt`. `skip_special` leaves special tokens out of the text.
    pub fn new(tokenizer: Arc<Tokenizer>, prompt: &[TokenId], skip_special: bool) -> Self {
        let state = if tokenizer.is_byte_level() {
            State::Bytes(Vec::new())
        } else {
            let window = prompt[prompt.len().saturating_sub(PROMPT_TAIL_TOKENS)..].to_vec();
            State::Window { read: window.len(), window }
        };
        Self { tokenizer, skip_special, state }
    }

    /// The text that `token` completes, if any. Ids outside the vocabulary stand for no text.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer's decoder fails; byte-level vocabularies do not.
    pub fn push(&mut self, token: TokenId) -> Result<Option<String>, TextError> {
        if self.skip_special && self.tokenizer.is_special(token) {
            return Ok(None);
        }
        match &mut self.state {
            State::Bytes(pending) => {
                pending.extend(self.tokenizer.token_bytes(token).unwrap_or_default());
                Ok(non_empty(take_whole_characters(pending)))
            }
            State::Window { window, read } => {
                window.push(token);
                let held = window.len() - *read;
                let text = new_text(&self.tokenizer, window, *read, self.skip_special)?;
                if text.is_empty() || (text.ends_with('\u{FFFD}') && held < MAX_HELD_TOKENS) {
                    return Ok(None);
                }
                window.drain(..*read);
                *read = window.len();
                Ok(Some(text))
            }
        }
    }

    /// What is left once the completion has ended: an unfinished character becomes U+FFFD.
    ///
    /// # Errors
    /// As [`Detokenizer::push`].
    pub fn finish(&mut self) -> Result<Option<String>, TextError> {
        match &mut self.state {
            State::Bytes(pending) => {
                let text = String::from_utf8_lossy(pending).into_owned();
                pending.clear();
                Ok(non_empty(text))
            }
            State::Window { window, read } => {
                let text = new_text(&self.tokenizer, window, *read, self.skip_special)?;
                *read = window.len();
                Ok(non_empty(text))
            }
        }
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Takes every whole character and every byte sequence that cannot become one, each of the latter as one U+FFFD
/// (exactly as `String::from_utf8_lossy` would over the whole text).
fn take_whole_characters(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest: &[u8] = pending;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).expect("valid up to here"));
                rest = after;
                let Some(invalid) = error.error_len() else { break };
                text.push('\u{FFFD}');
                rest = &rest[invalid..];
            }
        }
    }
    *pending = rest.to_vec();
    text
}

/// What `window[read..]` adds to the text of `window[..read]`.
fn new_text(tokenizer: &Tokenizer, window: &[TokenId], read: usize, skip: bool) -> Result<String, TextError> {
    let before = tokenizer.decode(&window[..read], skip)?;
    let after = tokenizer.decode(window, skip)?;
    let mut start = before.len().min(after.len());
    while !after.is_char_boundary(start) {
        start -= 1;
    }
    Ok(after[start..].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way of cutting bytes into tokens gives the lossy text of the whole.
    #[test]
    fn bytes_in_pieces_equal_lossy_decoding() {
        let valid = "aé€😀日";
        let samples: [&[u8]; 5] =
            [valid.as_bytes(), b"\xff\xfea\xe2\x82", b"\xe2\x28\xa1\xf0\x9f\x98", b"\xf0\x9f\x98\x80\x80\x80\xc3", b""];
        for bytes in samples {
            for size in 1..=bytes.len().max(1) {
                let mut pending = Vec::new();
                let mut text = String::new();
                for piece in bytes.chunks(size) {
                    pending.extend_from_slice(piece);
                    text += &take_whole_characters(&mut pending);
                    assert!(pending.len() < 4);
                }
                text += &String::from_utf8_lossy(&pending);
                assert_eq!(text, String::from_utf8_lossy(bytes), "{bytes:x?} in pieces of {size}");
            }
        }
    }
}
