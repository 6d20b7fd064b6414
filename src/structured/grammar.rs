//! A grammar on its way through one sequence.

use crate::engine::TokenId;
use llguidance::Matcher;

/// Which tokens may come next in one sequence. A clone goes its own way from here.
#[derive(Clone)]
pub struct Grammar {
    matcher: Matcher,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    pub(super) fn new(matcher: Matcher) -> Self {
        Self { matcher }
    }

    /// The tokens that may come next, a bit each, lowest id in the lowest bit; where the text is complete, and nothing
    /// can follow, the end-of-sequence tokens alone.
    ///
    /// # Errors
    /// When this grammar takes more work at this place than one token may: one line.
    pub fn allowed(&mut self) -> Result<Vec<u32>, String> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| error.to_string())?;
        Ok(mask.as_slice().to_vec())
    }

    /// The tokens that must come next, one after the other: where the grammar leaves no choice of text, it is put in the
    /// tokens that the tokenizer makes of it, and no others are [allowed](Grammar::allowed). None where text is put before
    /// it is tokenized, as SentencePiece does.
    pub fn forced(&mut self) -> Vec<TokenId> {
        self.matcher.compute_ff_tokens()
    }

    /// Goes on past `token`, which [`Grammar::allowed`] has allowed.
    ///
    /// # Errors
    /// When it has not.
    pub fn accept(&mut self, token: TokenId) -> Result<(), String> {
        if self.matcher.is_stopped() {
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(|error| error.to_string())
    }
}
