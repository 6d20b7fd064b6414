//! From what a completion must look like to something that says which tokens may come next.

use super::{Grammar, GrammarSpec};
use crate::engine::TokenId;
use crate::text::Tokenizer;
use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use std::sync::{Arc, OnceLock};

/// Bytes of schemas, grammars, regular expressions and choices, at most.
const MAX_BYTES: usize = 256 << 10;

/// Why there is no grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// More text than is taken.
    #[error("a grammar of {bytes} bytes; at most {MAX_BYTES} are taken")]
    TooLarge {
        /// Of what was sent.
        bytes: usize,
    },
    /// It is not valid, or more work than one request may be.
    #[error("the grammar cannot be used: {0}")]
    Invalid(String),
    /// The model has no tokenizer, or none with an end-of-sequence token.
    #[error("structured output needs a tokenizer with an end-of-sequence token: this model has none")]
    NoTokenizer,
}

/// Compiles grammars for one model's tokenizer. What all of them share (a trie of the vocabulary) is made for the first.
pub struct GrammarCompiler {
    tokenizer: Option<Arc<Tokenizer>>,
    eos: Option<TokenId>,
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
}

impl GrammarCompiler {
    /// For this tokenizer, and sequences that end with the token `eos`.
    pub fn new(tokenizer: Option<Arc<Tokenizer>>, eos: Option<TokenId>) -> Self {
        Self { tokenizer, eos, factory: OnceLock::new() }
    }

    /// Compiles `spec`. It takes milliseconds, the first time for a model up to a second: not for a thread that others
    /// wait for.
    ///
    /// # Errors
    /// When it is not valid, or needs more time or memory than one request may take.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        let bytes = spec.bytes();
        if bytes > MAX_BYTES {
            return Err(GrammarError::TooLarge { bytes });
        }
        let factory = self.factory.get_or_init(|| self.make_factory()).as_ref().map_err(Clone::clone)?;
        let invalid = |error: String| GrammarError::Invalid(first_line(&error));
        let parser = factory.create_parser(spec.grammar()).map_err(|error| invalid(error.to_string()))?;
        let mut matcher = Matcher::new(Ok(parser));
        // The first mask finds what only shows when the grammar is walked.
        matcher.compute_mask_or_eos().map_err(|error| invalid(error.to_string()))?;
        Ok(Grammar::new(matcher))
    }

    fn make_factory(&self) -> Result<ParserFactory, GrammarError> {
        let (Some(tokenizer), Some(eos)) = (&self.tokenizer, self.eos) else { return Err(GrammarError::NoTokenizer) };
        let vocab_size = tokenizer.vocab_size() as u32;
        let word = |token: TokenId| {
            let mut bytes = tokenizer.token_bytes(token).unwrap_or_default();
            if tokenizer.is_special(token) {
                // Their text may never come of text.
                bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
            bytes
        };
        let words: Vec<Vec<u8>> = (0..vocab_size).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size, eos), &words);
        let environment: llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory =
            ParserFactory::new_simple(&environment).map_err(|error| GrammarError::Invalid(error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = 50_000;
        Ok(factory)
    }
}

/// Errors of the parser go on for pages.
fn first_line(error: &str) -> String {
    let line = error.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown error");
    line.chars().take(300).collect()
}
