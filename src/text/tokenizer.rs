//! Text to token ids and back.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use tokenizers::{
    DecoderWrapper, Model, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as HfTokenizer,
};

use super::added_tokens::AddedTokens;
use super::{GgufVocab, Span, TextError};
use crate::engine::TokenId;

/// A model's tokenizer. Token ids equal those of Hugging Face's `transformers`.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: HfTokenizer,
    added: AddedTokens,
    special_ids: BTreeSet<TokenId>,
    byte_level: bool,
    bos: Option<TokenId>,
    /// In the order given: the first is the template's `eos_token`.
    eos: Vec<TokenId>,
    unk: Option<TokenId>,
}

impl Tokenizer {
    /// From the bytes of a `tokenizer.json`. Such a file does not say which tokens begin and end a sequence: see
    /// [`Tokenizer::with_sequence_tokens`].
    ///
    /// # Errors
    /// [`TextError::Parse`] if the file is not a tokenizer of the `tokenizers` library.
    pub fn from_json(json: &[u8]) -> Result<Self, TextError> {
        let parse =
            |error: tokenizers::Error| TextError::Parse { what: "tokenizer.json".into(), reason: error.to_string() };
        Self::wrap(HfTokenizer::from_bytes(json).map_err(parse)?)
    }

    /// From a Hugging Face folder: `tokenizer.json`, and the sequence tokens from `tokenizer_config.json` and
    /// `generation_config.json`, where these exist.
    ///
    /// # Errors
    /// [`TextError::Read`] without `tokenizer.json`, [`TextError::Parse`] if a file makes no sense.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer.json");
        let json = std::fs::read(&path).map_err(|source| TextError::Read { path, source })?;
        let this = Self::from_json(&json)?;
        let config = read_json(&dir.join("tokenizer_config.json"))?;
        let generation = read_json(&dir.join("generation_config.json"))?;
        let named = |key: &str| {
            let token = config.get(key)?;
            this.token_to_id(token.as_str().or_else(|| token.get("content")?.as_str())?)
        };
        let mut eos: Vec<TokenId> = named("eos_token").into_iter().collect();
        let more = match generation.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
            None => &[],
        };
        eos.extend(more.iter().filter_map(|id| TokenId::try_from(id.as_u64()?).ok()));
        let (bos, unk) = (named("bos_token"), named("unk_token"));
        Ok(this.with_sequence_tokens(bos, eos, unk))
    }

    /// Rebuilt from the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`TextError::UnsupportedVocab`] for a kind of vocabulary that is not known here.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self, TextError> {
        let this = Self::wrap(vocab.build()?)?;
        Ok(this.with_sequence_tokens(vocab.bos, vocab.eos.into_iter().chain(vocab.eot).collect(), vocab.unk))
    }

    fn wrap(mut inner: HfTokenizer) -> Result<Self, TextError> {
        // Some files were saved with the lengths of a training run; a prompt must be neither cut nor padded.
        inner.with_padding(None);
        let parse =
            |error: tokenizers::Error| TextError::Parse { what: "tokenizer.json".into(), reason: error.to_string() };
        inner.with_truncation(None).map_err(parse)?;
        let tokens = inner.get_added_tokens_decoder();
        let special_ids = tokens.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let added = AddedTokens::new(tokens, inner.get_normalizer())?;
        Ok(Self { inner, added, special_ids, byte_level, bos: None, eos: Vec::new(), unk: None })
    }

    /// Says which tokens begin, end, and stand for the unknown. The first of `eos` is a template's `eos_token`.
    pub fn with_sequence_tokens(mut self, bos: Option<TokenId>, eos: Vec<TokenId>, unk: Option<TokenId>) -> Self {
        self.bos = bos;
        let mut seen = BTreeSet::new();
        self.eos = eos.into_iter().filter(|&token| seen.insert(token)).collect();
        self.unk = unk;
        self
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The tokens that end a sequence; the first is the one templates write.
    pub fn eos(&self) -> &[TokenId] {
        &self.eos
    }

    /// The token that stands for what cannot be encoded.
    pub fn unk(&self) -> Option<TokenId> {
        self.unk
    }

    /// Number of tokens, added ones included. A model's logits may be padded to more.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether this is a special token, left out of text with `skip_special`.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.special_ids.contains(&token)
    }

    /// The special tokens' ids, ascending.
    pub fn special_ids(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.special_ids.iter().copied()
    }

    /// The id of a token as the vocabulary spells it (`Ġthe`, `<|im_end|>`).
    pub fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token)
    }

    /// A token as the vocabulary spells it.
    pub fn id_to_token(&self, token: TokenId) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// The bytes a token stands for in the middle of a text; not always valid UTF-8.
    pub fn token_bytes(&self, token: TokenId) -> Option<Vec<u8>> {
        let spelled = self.id_to_token(token)?;
        if self.byte_level {
            return Some(byte_level_bytes(&spelled));
        }
        let hex = spelled.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => Some(vec![byte]),
            None if self.is_special(token) => Some(spelled.into_bytes()),
            None => Some(spelled.replace('▁', " ").into_bytes()),
        }
    }

    /// Whether every token maps to bytes on its own, so that a text is the concatenation of its tokens' bytes.
    pub(crate) fn is_byte_level(&self) -> bool {
        self.byte_level
    }

    pub(super) fn added_tokens(&self) -> &AddedTokens {
        &self.added
    }

    /// Token ids of `text`, special tokens in it honoured: for text the operator wrote, never for users' text.
    /// `add_special` adds what the tokenizer puts around every text (usually the beginning-of-sequence token).
    ///
    /// # Errors
    /// [`TextError::Tokenizer`]; not known to happen with byte-level vocabularies.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, TextError> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|error| failed("encode", error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of users' text: special tokens typed in it are ordinary text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        self.encode_pieces(text, std::slice::from_ref(&(0..text.len())))
    }

    /// Token ids of a prompt in which special tokens are honoured in the template's text only. It is tokenized as one
    /// text: merges go across the spans' borders, as they do in `transformers`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_spans(&self, spans: &[Span]) -> Result<Vec<TokenId>, TextError> {
        let text = Span::concat(spans);
        let mut users: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        for span in spans {
            let end = at + span.text().len();
            if matches!(span, Span::User(_)) && end > at {
                users.push(at..end);
            }
            at = end;
        }
        if users.is_empty() { self.encode(&text, false) } else { self.encode_pieces(&text, &users) }
    }

    /// What `tokenizers` does in `encode`, with the search for added tokens replaced by ours.
    fn encode_pieces(&self, text: &str, users: &[Range<usize>]) -> Result<Vec<TokenId>, TextError> {
        let encode = || -> tokenizers::Result<Vec<TokenId>> {
            let mut pieces = PreTokenizedString::from(text);
            pieces.split(|_, piece| Ok(self.added.split(&piece, true, users)))?;
            pieces.split(|_, mut piece| {
                if let Some(normalizer) = self.inner.get_normalizer() {
                    normalizer.normalize(&mut piece)?;
                }
                Ok(self.added.split(&piece, false, users))
            })?;
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
            Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
        };
        encode().map_err(|error| failed("encode", error))
    }

    /// The text of token ids; ids outside the vocabulary are left out, invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[TokenId], skip_special: bool) -> Result<String, TextError> {
        self.inner.decode(tokens, skip_special).map_err(|error| failed("decode", error))
    }

    /// The tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TextError::Parse`] if it cannot be serialised.
    pub fn to_json(&self) -> Result<String, TextError> {
        let failed =
            |error: tokenizers::Error| TextError::Parse { what: "tokenizer".into(), reason: error.to_string() };
        self.inner.to_string(false).map_err(failed)
    }
}

fn failed(action: &'static str, error: tokenizers::Error) -> TextError {
    TextError::Tokenizer { action, reason: error.to_string() }
}

/// A JSON file of a model folder; null if it does not exist.
pub(super) fn read_json(path: &Path) -> Result<Value, TextError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(source) => return Err(TextError::Read { path: path.into(), source }),
    };
    serde_json::from_slice(&text)
        .map_err(|error| TextError::Parse { what: path.display().to_string(), reason: error.to_string() })
}

/// Undoes GPT-2's byte-to-character table. A token with a character outside of it is its own UTF-8 bytes.
fn byte_level_bytes(spelled: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = spelled.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| spelled.as_bytes().to_vec())
}

/// GPT-2's table (openai/gpt-2 `encoder.py`): printable Latin-1 stands for itself, the other 68 bytes, in order, for
/// U+0100 and up.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        c @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(c as u8),
        c @ 0x100..=0x120 => Some((c - 0x100) as u8),
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_table_is_a_bijection() {
        let bytes: BTreeSet<u8> = (0x21..=0x143).filter_map(|c| byte_of(char::from_u32(c)?)).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!((0x21..=0x143u32).filter_map(|c| byte_of(char::from_u32(c)?)).count(), 256);
        assert_eq!(byte_level_bytes("ĠâĤ¬Ċ"), " €\n".as_bytes());
        assert_eq!(byte_level_bytes("<｜end▁of｜>"), "<｜end▁of｜>".as_bytes());
    }
}
