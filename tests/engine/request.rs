//! What is refused at the border, because it could never be served.

use bindery::engine::{Limits, Request, RequestError, RequestId, RequestParams};

use super::max_tokens;

const LIMITS: Limits = Limits { num_blocks: 10, block_size: 16, max_num_seqs: 4, max_model_len: 100 };

fn request(prompt_tokens: usize, params: RequestParams) -> Result<Request, RequestError> {
    Request::new(RequestId(1), vec![0; prompt_tokens], params, &LIMITS)
}

#[test]
fn an_empty_prompt_is_refused() {
    assert_eq!(request(0, max_tokens(1)), Err(RequestError::EmptyPrompt));
}

#[test]
fn a_prompt_without_room_for_a_token_is_refused() {
    assert!(request(99, RequestParams::default()).is_ok());
    let error = Err(RequestError::PromptTooLong { prompt_tokens: 100, max_model_len: 100 });
    assert_eq!(request(100, RequestParams::default()), error);
}

#[test]
fn no_tokens_and_no_samples_are_refused() {
    assert_eq!(request(5, max_tokens(0)), Err(RequestError::ZeroMaxTokens));
    let none = RequestParams { num_samples: 0, ..max_tokens(1) };
    assert_eq!(request(5, none), Err(RequestError::ZeroSamples));
}

#[test]
fn min_tokens_above_max_tokens_is_refused() {
    let params = RequestParams { min_tokens: 6, ..max_tokens(5) };
    assert_eq!(request(5, params), Err(RequestError::MinTokensAboveMaxTokens { min_tokens: 6, max_tokens: 5 }));
}

#[test]
fn more_sequences_than_can_run_are_refused() {
    let params = RequestParams { num_samples: 5, ..max_tokens(1) };
    assert_eq!(request(5, params), Err(RequestError::TooManySequences { num_seqs: 5, max_num_seqs: 4 }));
    let params = RequestParams { max_sequences: 5, ..max_tokens(1) };
    assert_eq!(request(5, params), Err(RequestError::TooManySequences { num_seqs: 5, max_num_seqs: 4 }));
}

#[test]
fn sequences_that_never_fit_the_pool_are_refused() {
    // Four sequences get two blocks each. The last token needs no slot.
    let four = |tokens| RequestParams { num_samples: 4, ..max_tokens(tokens) };
    assert!(request(20, four(13)).is_ok());
    let error = RequestError::TooManyBlocks { num_seqs: 4, tokens: 34, needed_blocks: 12, num_blocks: 10 };
    assert_eq!(request(20, four(14)), Err(error));
    let unlimited = RequestParams { num_samples: 4, ..RequestParams::default() };
    assert!(matches!(request(40, unlimited), Err(RequestError::TooManyBlocks { .. })));
}

#[test]
fn an_unlimited_completion_takes_the_room_there_is() {
    assert_eq!(request(20, RequestParams::default()).map(|request| request.max_tokens()), Ok(80));
    let four = RequestParams { num_samples: 4, ..RequestParams::default() };
    assert_eq!(request(20, four).map(|request| request.max_tokens()), Ok(13));
    assert_eq!(request(20, max_tokens(1000)).map(|request| request.max_tokens()), Ok(80));
}
