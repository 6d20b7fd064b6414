//! The simulator's own books: what each request must have emitted, kept without looking at the scheduler's.

use crate::engine::echo::EchoHash;
use crate::engine::{FinishReason, Request, RequestId, RequestParams, SeqId, TokenId};

/// One request as its client sees it.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    pub id: RequestId,
    pub params: RequestParams,
    pub max_tokens: u32,
    pub prompt_len: u32,
    /// Tells salts and adapters apart, see [`crate::engine::EchoHistory`].
    pub tag: u32,
    pub seqs: Vec<MirrorSeq>,
    /// Prompt positions whose logits were computed.
    pub prompt_logits_rows: u32,
    pub next_child: u32,
}

/// One sequence, as far as its tokens are known.
#[derive(Debug, Clone)]
pub(super) struct MirrorSeq {
    pub index: u32,
    pub token_ids: Vec<TokenId>,
    pub hash: EchoHash,
    /// Its block table after the last step.
    pub table: Vec<u32>,
}

impl Mirror {
    pub fn new(request: &Request) -> Self {
        let params = request.params().clone();
        let salt = params.cache_salt.as_ref().map_or(0, |salt| 1 + u32::from(salt[0]));
        let token_ids = request.prompt_token_ids().to_vec();
        Mirror {
            id: request.id(),
            max_tokens: request.max_tokens(),
            prompt_len: token_ids.len() as u32,
            tag: salt * 2 + u32::from(params.adapter.is_some()),
            next_child: params.num_samples,
            seqs: vec![MirrorSeq { index: 0, hash: EchoHash::of(&token_ids), token_ids, table: Vec::new() }],
            prompt_logits_rows: 0,
            params,
        }
    }

    /// Whether its sequences are forked and dropped from outside.
    pub fn is_beam_search(&self) -> bool {
        self.params.max_sequences > self.params.num_samples
    }

    pub fn seq(&self, index: u32) -> Option<&MirrorSeq> {
        self.seqs.iter().find(|seq| seq.index == index)
    }

    pub fn seq_mut(&mut self, index: u32) -> Option<&mut MirrorSeq> {
        self.seqs.iter_mut().find(|seq| seq.index == index)
    }

    /// A child with the history of `parent`.
    pub fn fork(&mut self, parent: u32, child: u32) {
        let mut seq = self.seq(parent).expect("the parent is alive").clone();
        seq.index = child;
        self.seqs.push(seq);
    }

    pub fn remove(&mut self, index: u32) {
        self.seqs.retain(|seq| seq.index != index);
    }

    /// Books an emitted token, and says whether the sequence must end with it.
    pub fn push(&mut self, id: SeqId, token: TokenId, vocab_size: u32) -> Option<FinishReason> {
        let prompt_len = self.prompt_len;
        let seq = self.seq_mut(id.index).expect("only live sequences emit tokens");
        assert_eq!(token, seq.hash.next_token(id.index, vocab_size), "I11: token of sequence {id}");
        seq.hash = seq.hash.push(token);
        seq.token_ids.push(token);
        let completion_tokens = seq.token_ids.len() as u32 - prompt_len;
        self.finish(token, completion_tokens)
    }

    fn finish(&self, token: TokenId, completion_tokens: u32) -> Option<FinishReason> {
        if self.params.stop_token_ids.contains(&token) && completion_tokens >= self.params.min_tokens {
            Some(FinishReason::Stop(token))
        } else {
            (completion_tokens == self.max_tokens).then_some(FinishReason::Length)
        }
    }

    /// Invariant I11: the sequence `index` has the tokens it would have had alone. (Beams depend on when they forked;
    /// for them only [`Mirror::push`] checks.)
    pub fn assert_as_if_alone(&self, index: u32, vocab_size: u32) {
        let seq = self.seq(index).expect("the sequence has just ended");
        let (prompt, completion) = seq.token_ids.split_at(self.prompt_len as usize);
        let mut hash = EchoHash::of(prompt);
        for (i, &token) in completion.iter().enumerate() {
            assert_eq!(token, hash.next_token(index, vocab_size), "I11: tokens of {}.{index}", self.id);
            hash = hash.push(token);
            let last = i + 1 == completion.len();
            assert_eq!(self.finish(token, i as u32 + 1).is_some(), last, "I11: length of {}.{index}", self.id);
        }
    }
}
