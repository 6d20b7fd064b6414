//! A request inside the scheduler: its sequences and what has become of them.

use super::{BlockHash, Policy, Request, RequestAccounting, RequestId, SeqId, Sequence};

/// Who is served first: the lower one. Arrival numbers are unique, so the order is total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    priority: i32,
    arrival: u64,
}

/// A request that has been added and has not ended.
#[derive(Debug, Clone)]
pub(super) struct RequestState {
    pub request: Request,
    pub order: Order,
    /// Parent hash of the first block.
    pub root: BlockHash,
    /// In ascending order of their index.
    pub seqs: Vec<Sequence>,
    /// Running or waiting.
    pub running: bool,
    /// Waiting because it was preempted.
    pub preempted: bool,
    /// Whether the prompt has been computed once, and the parallel samples exist.
    pub forked: bool,
    /// Prompt positions whose logits have been computed, for requests that want them. Recomputation after preemption
    /// does not ask for them again.
    pub prompt_logits_done: u32,
    pub accounting: RequestAccounting,
}

impl RequestState {
    pub fn new(request: Request, policy: Policy, arrival: u64, model_identity: &[u8]) -> Self {
        let priority = match policy {
            Policy::Fcfs => 0,
            Policy::Priority => request.params.priority,
        };
        let root = request.root_hash(model_identity);
        let seqs = vec![Sequence::new(0, request.prompt_token_ids.clone())];
        RequestState {
            request,
            order: Order { priority, arrival },
            root,
            seqs,
            running: false,
            preempted: false,
            forked: false,
            prompt_logits_done: 0,
            accounting: RequestAccounting::default(),
        }
    }

    /// Sequences to keep room for. A beam search may fork up to its width again after its beams have ended; parallel
    /// samples never come back.
    pub fn seats(&self) -> u32 {
        let params = &self.request.params;
        if self.is_beam_search() {
            params.max_sequences
        } else if self.forked {
            self.seqs.len() as u32
        } else {
            params.num_samples
        }
    }

    /// Whether its sequences are forked and dropped from outside, which may take several steps to decide.
    pub fn is_beam_search(&self) -> bool {
        self.request.params.max_sequences > self.request.params.num_samples
    }

    /// Makes room for all tokens that the sequences may reach.
    pub fn reserve(&mut self, block_size: u32) {
        let max_tokens = self.prompt_len() + self.request.max_tokens;
        self.seqs.iter_mut().for_each(|seq| seq.reserve(max_tokens, block_size));
    }

    pub fn prompt_len(&self) -> u32 {
        self.request.prompt_token_ids.len() as u32
    }

    /// Completion tokens of one of its sequences, with the one that is pending.
    pub fn completion_tokens(&self, seq: &Sequence) -> u32 {
        seq.num_tokens() - self.prompt_len()
    }

    /// Whether logits of prompt positions are still wanted.
    pub fn wants_prompt_logits(&self) -> bool {
        self.request.params.prompt_logits && self.prompt_logits_done < self.prompt_len()
    }

    /// The position of the sequence `index` in `seqs`, if it has not ended.
    pub fn position(&self, index: u32) -> Option<usize> {
        let at = self.seqs.binary_search_by_key(&index, |seq| seq.index).ok()?;
        (!self.seqs[at].ended).then_some(at)
    }

    pub fn id(&self) -> RequestId {
        self.request.id
    }

    pub fn seq_id(&self, at: usize) -> SeqId {
        SeqId { request: self.request.id, index: self.seqs[at].index }
    }
}
