//! The engine core against cases that users of other engines rely on.
//!
//! Many of them carry the name and the numbers of a case in vLLM's `tests/v1/core` (Apache-2.0; read at commit
//! 003df296, written anew here). There, block 0 is a null block that is never handed out; we have none, so our block
//! ids are theirs minus 1, and a pool of `n` blocks there is one of `n - 1` here.
//!
//! Cases that have another name or shape here:
//!
//! | there | here |
//! |---|---|
//! | `test_free_kv_cache_block_queue_*` | `block_pool`: one block at a time, so no `append_n`, `prepend_n`, `popleft_n` |
//! | `test_block_lookup_cache_single/multi_blocks_per_key` | `test_maybe_evict_cached_block`, `three_blocks_under_one_hash_leave_in_any_order` |
//! | `test_none_hash*` | `test_null_parent_block_hash`: the root is no random seed but a hash of the model |
//! | `test_kv_pressure_preemption_with_inflight_output` | `test_preempt_during_execution`: the victim keeps the token it has emitted |
//! | admission control `rejects_with_n` | `more_sequences_than_can_run_are_refused`, `sequences_that_never_fit_the_pool_are_refused` |
//! | copy-on-write of partial hits, `test_free_cow_retained_blocks_*` | `forks`, and `a_shared_partial_block_is_copied_by_whoever_writes_first` and its neighbours |
//! | sliding windows, hybrid models | no such model is supported |

mod block_events;
mod block_manager;
mod block_pool;
mod drafts;
mod forks;
mod preemption;
mod prefix_caching;
mod request;
mod scheduler;
mod swap;
mod trace;

use bindery::engine::{
    Batch, BlockHash, BlockId, BlockManager, ExtraKeys, FullBlock, Policy, Request, RequestId, RequestParams,
    SampledToken, Scheduler, SchedulerConfig, SeqId, Sequence, TokenEvent, TokenId,
};

/// Roomy sizes; tests say what matters to them with `..config()`.
fn config() -> SchedulerConfig {
    SchedulerConfig {
        num_blocks: 10_000,
        num_host_blocks: 0,
        block_size: 16,
        max_num_seqs: 16,
        max_num_batched_tokens: 8192,
        max_model_len: 8192,
        max_num_logits_rows: 256,
        enable_prefix_caching: false,
        long_prefill_token_threshold: 0,
        policy: Policy::Fcfs,
        drafts: None,
    }
}

/// Parameters of a request for `max_tokens` tokens.
fn max_tokens(max_tokens: u32) -> RequestParams {
    RequestParams { max_tokens: Some(max_tokens), ..RequestParams::default() }
}

/// The first sequence of a request.
fn seq(request: u64) -> SeqId {
    SeqId { request: RequestId(request), index: 0 }
}

/// A scheduler, driven a step at a time, with all invariants checked on the way.
struct Driver {
    scheduler: Scheduler,
    events: Vec<TokenEvent>,
}

impl Driver {
    fn new(config: SchedulerConfig) -> Self {
        Driver { scheduler: Scheduler::new(config, b"test model"), events: Vec::new() }
    }

    /// Adds a request that must be admissible.
    fn add(&mut self, id: u64, prompt: Vec<TokenId>, params: RequestParams) {
        let limits = self.scheduler.config().limits();
        self.scheduler.add(Request::new(RequestId(id), prompt, params, &limits).expect("an admissible request"));
    }

    /// Schedules a step: its batch, and the tokens that each request computes in it.
    fn schedule(&mut self) -> (Batch, Vec<(u64, u32)>) {
        let batch = self.scheduler.schedule().expect("there is work").clone();
        self.scheduler.check_invariants();
        let scheduled = batch.seqs.iter().map(|seq| (seq.seq.request.0, seq.query_len)).collect();
        (batch, scheduled)
    }

    /// Ends the step in flight; `token` draws for each sequence.
    fn update(&mut self, token: impl Fn(SeqId) -> TokenId) -> Vec<TokenEvent> {
        let tokens: Vec<TokenId> = self.scheduler.batch().sample_rows.iter().map(|sample| token(sample.seq)).collect();
        self.update_rows(&tokens);
        self.events.clone()
    }

    /// Ends the step in flight with a token from each sample row; those behind a wrong draft are not looked at. Returns the
    /// tokens that came of it.
    fn update_rows(&mut self, tokens: &[TokenId]) -> Vec<TokenId> {
        let batch = self.scheduler.batch();
        assert_eq!(tokens.len(), batch.sample_rows.len());
        let (mut sampled, mut next) = (Vec::new(), 0);
        while let Some(sample) = batch.sample_rows.get(next) {
            sampled.push(SampledToken { seq: sample.seq, token: tokens[next] });
            next = batch.next_sample(next, tokens[next]);
        }
        self.events.clear();
        self.scheduler.update(&sampled, &mut self.events);
        self.scheduler.check_invariants();
        self.events.iter().map(|event| event.token).collect()
    }

    /// A whole step in which every sequence draws token 0; returns what each request computed.
    fn step(&mut self) -> Vec<(u64, u32)> {
        let (_, scheduled) = self.schedule();
        self.update(|_| 0);
        scheduled
    }

    /// Steps until nothing is left.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.scheduler.is_idle() {
                return;
            }
            self.step();
        }
        panic!("the requests do not end");
    }

    /// Ids of the requests that run, in ascending order.
    fn running(&self, ids: std::ops::Range<u64>) -> Vec<u64> {
        let runs = |&id: &u64| self.scheduler.block_table(seq(id)).is_some_and(|table| !table.is_empty());
        ids.filter(runs).collect()
    }
}

/// A block manager with sequences as its clients, as the scheduler uses it.
struct Blocks {
    manager: BlockManager,
    hits: Vec<BlockId>,
}

impl Blocks {
    fn new(num_blocks: u32, enable_prefix_caching: bool) -> Self {
        Blocks { manager: BlockManager::new(num_blocks, 16, enable_prefix_caching), hits: Vec::new() }
    }

    fn root(salt: Option<&str>) -> BlockHash {
        BlockHash::root(ExtraKeys { model: b"test model", adapter: None, cache_salt: salt.map(str::as_bytes) })
    }

    /// Looks up the prefix of a sequence that holds no blocks yet; returns the ids hit.
    fn find(&mut self, seq: &mut Sequence, root: &BlockHash) -> Vec<u32> {
        seq.extend_hashes(seq.num_tokens() / 16, root, 16);
        self.manager.find_prefix(&seq.hashes, root, &seq.token_ids, &mut self.hits);
        ids(&self.hits)
    }

    /// Reserves blocks for all tokens of `seq`, after the hits of the last [`Blocks::find`] if it holds none; caches
    /// the full ones. Returns the ids of the new ones, or `None` when they do not fit.
    fn allocate(&mut self, seq: &mut Sequence, root: &BlockHash) -> Option<Vec<u32>> {
        if !seq.table.is_empty() {
            self.hits.clear();
        }
        let context_len = seq.num_computed_tokens + self.hits.len() as u32 * 16;
        let held = seq.table.len() as usize + self.hits.len();
        let num_tokens = seq.num_tokens();
        self.manager.reserve(&mut seq.table, &self.hits, context_len, num_tokens)?;
        seq.num_cached_blocks += self.hits.len() as u32;
        self.hits.clear();
        seq.num_computed_tokens = seq.num_tokens();
        let full = seq.num_tokens() / 16;
        seq.extend_hashes(full, root, 16);
        for i in seq.num_cached_blocks as usize..full as usize {
            let parent = if i == 0 { *root } else { seq.hashes[i - 1] };
            let tokens = &seq.token_ids[i * 16..][..16];
            let full = FullBlock { hash: seq.hashes[i], parent, is_first: i == 0, token_ids: tokens };
            self.manager.cache(seq.table.blocks()[i], &full);
        }
        seq.num_cached_blocks = full;
        Some(ids(&seq.table.blocks()[held..]))
    }

    /// [`Blocks::find`] and [`Blocks::allocate`] of a new sequence, which must fit.
    fn start(&mut self, token_ids: Vec<TokenId>) -> (Sequence, Vec<u32>, Vec<u32>) {
        let mut seq = Sequence::new(0, token_ids);
        let root = Self::root(None);
        let hits = self.find(&mut seq, &root);
        let new = self.allocate(&mut seq, &root).expect("the pool is large enough");
        self.manager.pool().check_invariants();
        (seq, hits, new)
    }

    fn free(&mut self, mut seq: Sequence) {
        self.manager.free(&mut seq.table);
        self.manager.pool().check_invariants();
    }

    fn free_order(&self) -> Vec<u32> {
        self.manager.pool().free_blocks().map(|block| block.0).collect()
    }

    fn ref_counts(&self, blocks: &[u32]) -> Vec<u32> {
        blocks.iter().map(|&block| self.manager.pool().ref_count(BlockId(block))).collect()
    }

    fn cached(&self, block: u32) -> bool {
        self.manager.is_cached(BlockId(block))
    }
}

fn ids(blocks: &[BlockId]) -> Vec<u32> {
    blocks.iter().map(|block| block.0).collect()
}

/// Three blocks of common tokens, then `n` times `token`.
fn common_prefix_and(token: TokenId, n: usize) -> Vec<TokenId> {
    let common = (0..3).flat_map(|block| std::iter::repeat_n(block, 16));
    common.chain(std::iter::repeat_n(token, n)).collect()
}
