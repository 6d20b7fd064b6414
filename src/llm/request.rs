//! The text side of a running request.

use super::beam::Beams;
use super::{Event, Finish, FinishCause, TokenUpdate};
use crate::engine::{FinishReason, TokenEvent, TokenId};
use crate::sampling::{SamplingParams, TokenLogprobs};
use crate::structured::Grammar;
use crate::text::{Detokenizer, StopStrings, TextError, Tokenizer};
use std::sync::Arc;

/// One sequence's text.
struct ActiveSequence {
    detokenizer: Option<Detokenizer>,
    stop_strings: StopStrings,
    num_tokens: u32,
    /// Where its grammar is, if it follows one.
    grammar: Option<Grammar>,
}

/// What a request needs beside the scheduler's view of it.
pub(super) struct ActiveRequest {
    pub(super) params: SamplingParams,
    pub(super) seed: u64,
    pub(super) prompt_len: u32,
    /// Of a beam search; `sequences` are its completions then.
    pub(super) beams: Option<Beams>,
    sequences: Vec<ActiveSequence>,
}

impl ActiveRequest {
    pub(super) fn new(
        prompt: &[TokenId],
        params: SamplingParams,
        seed: u64,
        tokenizer: Option<&Arc<Tokenizer>>,
        beams: Option<Beams>,
        grammar: Option<Grammar>,
    ) -> Self {
        let tokenizer = tokenizer.filter(|_| params.detokenize);
        let sequence = || ActiveSequence {
            detokenizer: tokenizer.map(|t| Detokenizer::new(t.clone(), prompt, params.skip_special_tokens)),
            stop_strings: StopStrings::new(params.stop.clone(), params.include_stop_str_in_output),
            num_tokens: 0,
            grammar: grammar.clone(),
        };
        let sequences = (0..params.num_sequences()).map(|_| sequence()).collect();
        Self { params, seed, prompt_len: prompt.len() as u32, beams, sequences }
    }

    /// The grammar of the sequence `index`.
    pub(super) fn grammar(&mut self, index: u32) -> Option<&mut Grammar> {
        self.sequences[index as usize].grammar.as_mut()
    }

    /// Turns a new token into text, looks for stop strings, and says whether one ended the sequence: then the scheduler
    /// has to be told.
    pub(super) fn push(
        &mut self,
        event: &TokenEvent,
        logprobs: Option<TokenLogprobs>,
        eos_token_ids: &[TokenId],
    ) -> Result<(Event, bool), TextError> {
        let params = &self.params;
        let sequence = &mut self.sequences[event.seq.index as usize];
        sequence.num_tokens += 1;
        let finish = event.finish.map(|reason| match reason {
            FinishReason::Length => FinishCause::Length,
            FinishReason::Stop(token) if params.stop_token_ids.contains(&token) => FinishCause::StopToken(token),
            FinishReason::Stop(token) => {
                debug_assert!(eos_token_ids.contains(&token));
                FinishCause::Eos
            }
        });
        // The token that stops a sequence is not part of its text, unless it is wanted there.
        let is_hidden = matches!(event.finish, Some(FinishReason::Stop(_))) && !params.include_stop_str_in_output;
        let mut piece = match &mut sequence.detokenizer {
            Some(detokenizer) if !is_hidden => detokenizer.push(event.token)?.unwrap_or_default(),
            _ => String::new(),
        };
        if let (Some(_), Some(detokenizer)) = (&finish, &mut sequence.detokenizer) {
            piece.push_str(&detokenizer.finish()?.unwrap_or_default());
        }
        let mut stopped_by = None;
        let mut text = if sequence.num_tokens <= params.min_tokens {
            sequence.stop_strings.push_unchecked(&piece)
        } else {
            let outcome = sequence.stop_strings.push(&piece);
            stopped_by = outcome.stopped.map(|stop| FinishCause::StopString(params.stop[stop].clone()));
            outcome.text
        };
        let ended_by_string = stopped_by.is_some();
        let cause = stopped_by.or(finish);
        if cause.is_some() && !ended_by_string {
            text.push_str(&sequence.stop_strings.finish());
        }
        let update = TokenUpdate {
            request: event.seq.request,
            index: event.seq.index,
            token: Some(event.token),
            logprobs,
            text,
            finish: cause.map(|cause| Finish { cause, score: None }),
        };
        Ok((Event::Token(update), ended_by_string && event.finish.is_none()))
    }
}
