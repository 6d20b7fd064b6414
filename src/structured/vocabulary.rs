//! A model's tokens, as llguidance wants them.

use crate::engine::TokenId;
use crate::text::Tokenizer;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenizerEnv};
use std::sync::Arc;

/// Of text that is forced, so much is tokenized as the tokenizer does it: before each token that comes, again, and only the
/// first few are looked at. A constant may have many thousands.
const TOKENIZED_BYTES: usize = 1024;

/// A tokenizer, and a trie of its tokens' bytes.
pub(super) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl Vocabulary {
    /// With the tokens of `eos` that the tokenizer has at the ends of texts; `None` if that is none of them.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, eos: &[TokenId]) -> Option<Self> {
        let vocab_size = tokenizer.vocab_size() as u32;
        let eos: Vec<TokenId> = eos.iter().copied().filter(|&token| token < vocab_size).collect();
        let word = |token: TokenId| {
            let mut bytes = tokenizer.token_bytes(token).unwrap_or_default();
            if tokenizer.is_special(token) {
                // Their text may never come of text.
                bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
            bytes
        };
        let words: Vec<Vec<u8>> = (0..vocab_size).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size, *eos.first()?), &words).with_eos_tokens(&eos);
        Some(Self { tokenizer, trie })
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// As the tokenizer does it, where its tokens stand for just these bytes (some put all text in a normal form), and by
    /// the longest tokens that fit elsewhere: in the rest of a character, and behind [`TOKENIZED_BYTES`].
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let is_boundary = |&at: &usize| bytes.get(at).is_none_or(|byte| byte & 0xC0 != 0x80);
        let end = (0..=bytes.len().min(TOKENIZED_BYTES)).rev().find(is_boundary).unwrap_or(0);
        let (start, rest) = bytes.split_at(end);
        let mut token_ids = self.trie.tokenize_with_greedy_fallback(start, |text| {
            let token_ids = self.tokenizer.encode_ordinary(text).ok();
            token_ids
                .filter(|token_ids| self.trie.decode_raw(token_ids) == text.as_bytes())
                .unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        });
        token_ids.extend(self.trie.greedy_tokenize(rest));
        token_ids
    }

    /// Whether text that is forced is put in the tokenizer's tokens for it: not where a text is tokenized in another way in
    /// the middle of another.
    fn tokenize_is_canonical(&self) -> bool {
        self.tokenizer.is_byte_level()
    }
}
