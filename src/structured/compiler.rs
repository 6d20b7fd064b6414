//! From what a completion must look like to something that says which tokens may come next.

use super::vocabulary::Vocabulary;
use super::workshop::{NoResult, Workshop};
use super::{Grammar, GrammarSpec};
use crate::engine::TokenId;
use crate::text::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::TokEnv;
use llguidance::{Matcher, ParserFactory};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a grammar may take to compile. The bounds on its size make nearly all of them take far less.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// More text than is taken.
    #[error("{what} of {bytes} bytes; at most {max} are taken")]
    TooLarge {
        /// What is so large.
        what: &'static str,
        /// Of what was sent.
        bytes: usize,
        /// Of what is taken.
        max: usize,
    },
    /// `multipleOf` of too large numbers.
    #[error(
        "the numbers in `multipleOf` have a common multiple of more than {max} units of their last digit: use smaller ones"
    )]
    Multiples {
        /// Of what is taken.
        max: u64,
    },
    /// A grammar in another notation.
    #[error(
        "the grammar must be in Lark's notation, such as `start: \"yes\" | \"no\"`; `::=` is that of GBNF and EBNF"
    )]
    NotLark,
    /// It takes too long to compile.
    #[error("the grammar takes more than {} s to compile: make it simpler", LIMIT.as_secs())]
    TooSlow,
    /// Others are compiling already, and take their time.
    #[error("too many grammars are being compiled: try again later")]
    Busy,
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
    eos: Vec<TokenId>,
    factory: OnceLock<Result<Arc<ParserFactory>, GrammarError>>,
    workshop: Arc<Workshop>,
}

impl GrammarCompiler {
    /// For this tokenizer, and sequences that end with any of the tokens `eos`.
    pub fn new(tokenizer: Option<Arc<Tokenizer>>, eos: Vec<TokenId>) -> Self {
        Self { tokenizer, eos, factory: OnceLock::new(), workshop: Arc::default() }
    }

    /// Compiles `spec`. It takes milliseconds, the first time for a model up to a second: not for a thread that others
    /// wait for.
    ///
    /// # Errors
    /// When it is not valid, or needs more time or memory than one request may take.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        spec.check()?;
        let factory = self.factory.get_or_init(|| self.make_factory().map(Arc::new)).clone()?;
        let grammar = spec.grammar();
        let compiled = self.workshop.run(LIMIT, move || compile(&factory, grammar)).map_err(|none| match none {
            NoResult::Busy => GrammarError::Busy,
            NoResult::Overdue => GrammarError::TooSlow,
            NoResult::Panicked => GrammarError::Invalid("the compiler gave up".into()),
        })?;
        match spec {
            GrammarSpec::Grammar(text) if text.contains("::=") => compiled.map_err(|_| GrammarError::NotLark),
            _ => compiled,
        }
    }

    fn make_factory(&self) -> Result<ParserFactory, GrammarError> {
        let tokenizer = self.tokenizer.as_ref().ok_or(GrammarError::NoTokenizer)?;
        let vocabulary = Vocabulary::new(tokenizer.clone(), &self.eos).ok_or(GrammarError::NoTokenizer)?;
        let environment: TokEnv = Arc::new(vocabulary);
        let mut factory =
            ParserFactory::new_simple(&environment).map_err(|error| GrammarError::Invalid(error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = 50_000;
        Ok(factory)
    }
}

fn compile(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<Grammar, GrammarError> {
    let invalid = |error: String| GrammarError::Invalid(first_line(&error));
    let parser = factory.create_parser(grammar).map_err(|error| invalid(error.to_string()))?;
    let mut matcher = Matcher::new(Ok(parser));
    // The first mask finds what only shows when the grammar is walked.
    matcher.compute_mask_or_eos().map_err(|error| invalid(error.to_string()))?;
    Ok(Grammar::new(matcher))
}

/// Errors of the parser go on for pages.
fn first_line(error: &str) -> String {
    let line = error.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown error");
    line.chars().take(300).collect()
}
