//! The echo device: a stand-in for model and GPU that turns every bookkeeping bug into an integer mismatch.

use super::{Batch, BlockId, BlockSwap, FedToken, SeqId, TokenId};

/// Its "KV cache" stores in each slot which token was written there, for which position. A step does what a device
/// does (swaps, block copies, then writes through the slot mapping, then reads through the block tables) and asserts that
/// every sequence reads exactly its own history. The next token is a hash of what was read.
#[derive(Debug, Clone)]
pub struct EchoDevice {
    block_size: u32,
    slots: Vec<EchoKv>,
    host_slots: Vec<EchoKv>,
    /// Those of the step, with the ones that are fed.
    token_ids: Vec<TokenId>,
}

/// What a slot holds in place of a key and a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EchoKv {
    token: TokenId,
    position: u32,
    tag: u32,
}

/// A slot that nobody may read: never written, or freed.
const POISON: EchoKv = EchoKv { token: u32::MAX, position: u32::MAX, tag: u32::MAX };

/// What a sequence must find in its slots.
#[derive(Debug, Clone, Copy)]
pub struct EchoHistory<'a> {
    /// Prompt and completion, without drafts; `None` for a sequence that has ended, when nobody looks at what it reads.
    pub token_ids: Option<&'a [TokenId]>,
    /// Stands for what else its keys and values depend on, or must not be shared across: adapter, salt.
    pub tag: u32,
}

/// A rolling hash of a token history: equal histories, and only they, have equal hashes (by any likelihood).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoHash(u64);

impl EchoHash {
    /// The hash of an empty history.
    pub const EMPTY: EchoHash = EchoHash(0x243F_6A88_85A3_08D3);

    /// The hash of the history with one more token.
    pub fn push(self, token: TokenId) -> Self {
        EchoHash(mix(self.0 ^ (u64::from(token) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// The hash of a whole history.
    pub fn of(token_ids: &[TokenId]) -> Self {
        token_ids.iter().fold(Self::EMPTY, |hash, &token| hash.push(token))
    }

    /// The token that the sequence `index` of a request draws after this history, out of `vocab_size`.
    pub fn next_token(self, index: u32, vocab_size: u32) -> TokenId {
        let drawn = mix(self.0.wrapping_add(u64::from(index).wrapping_mul(0xD1B5_4A32_D192_ED03)));
        (drawn % u64::from(vocab_size)) as TokenId
    }
}

/// A bijection on 64 bits that looks random (the finaliser of splitmix64, Steele et al. 2014).
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl EchoDevice {
    /// A device with `num_blocks` blocks of `block_size` slots, all poisoned.
    pub fn new(num_blocks: u32, block_size: u32) -> Self {
        Self::with_host_pool(num_blocks, block_size, 0)
    }

    /// The same with `num_host_blocks` blocks on the host for [`Batch::swap_outs`].
    pub fn with_host_pool(num_blocks: u32, block_size: u32, num_host_blocks: u32) -> Self {
        let poisoned = |num_blocks: u32| vec![POISON; (num_blocks * block_size) as usize];
        let (slots, host_slots) = (poisoned(num_blocks), poisoned(num_host_blocks));
        EchoDevice { block_size, slots, host_slots, token_ids: Vec::new() }
    }

    /// Poisons a block that nobody may read any more.
    pub fn poison(&mut self, block: BlockId) {
        let range = self.slots_of(block);
        // Blocks are filled from their first slot on, so a poisoned first slot says it all.
        if self.slots[range.start] != POISON {
            self.slots[range].fill(POISON);
        }
    }

    /// Runs one step, and puts the hash of each logits row, `[L]`, into `rows`. `fed` are the tokens of the step before, one
    /// for each of its sample rows.
    ///
    /// # Panics
    /// When a sequence reads anything but its own history.
    pub fn forward<'a>(
        &mut self,
        batch: &Batch,
        fed: &[TokenId],
        history: impl Fn(SeqId) -> EchoHistory<'a>,
        rows: &mut Vec<EchoHash>,
    ) {
        self.token_ids.clone_from(&batch.token_ids);
        for &FedToken { token, sample } in &batch.fed_tokens {
            self.token_ids[token as usize] = fed[sample as usize];
        }
        for &BlockSwap { device, host } in &batch.swap_outs {
            let (device, host) = (self.slots_of(device), self.slots_of(host));
            self.host_slots[host].copy_from_slice(&self.slots[device]);
        }
        for &BlockSwap { device, host } in &batch.swap_ins {
            let (device, host) = (self.slots_of(device), self.slots_of(host));
            self.slots[device].copy_from_slice(&self.host_slots[host.clone()]);
            self.host_slots[host].fill(POISON);
        }
        for copy in &batch.block_copies {
            let (src, dst) = (self.slots_of(copy.src), self.slots_of(copy.dst));
            self.slots.copy_within(src, dst.start);
        }
        for (i, scheduled) in batch.seqs.iter().enumerate() {
            let tag = history(scheduled.seq).tag;
            for t in batch.query_start_loc[i] as usize..batch.query_start_loc[i + 1] as usize {
                let (token, position) = (self.token_ids[t], batch.positions[t]);
                self.slots[batch.slot_mapping[t] as usize] = EchoKv { token, position, tag };
            }
        }
        rows.clear();
        for i in 0..batch.seqs.len() {
            let EchoHistory { token_ids, tag } = history(batch.seqs[i].seq);
            match token_ids {
                Some(token_ids) => self.read_back(batch, i, token_ids, tag, rows),
                None => rows.extend((0..batch.seqs[i].num_logits_rows).map(|_| EchoHash::EMPTY)),
            }
        }
        assert_eq!(rows.len(), batch.logits_indices.len(), "every logits row belongs to one sequence");
    }

    /// Reads the whole history of the batch's sequence `i` through its block table.
    fn read_back(&self, batch: &Batch, i: usize, token_ids: &[TokenId], tag: u32, rows: &mut Vec<EchoHash>) {
        let scheduled = &batch.seqs[i];
        let seq_len = scheduled.context_len + scheduled.query_len;
        let first_row_position = seq_len - scheduled.num_logits_rows;
        let table = &batch.block_tables[batch.block_table_start[i] as usize..batch.block_table_start[i + 1] as usize];
        assert_eq!(batch.seq_lens[i], seq_len, "length of sequence {}", scheduled.seq);
        assert_eq!(scheduled.first_logits_row as usize, rows.len(), "first logits row of sequence {}", scheduled.seq);
        let known = seq_len - scheduled.num_drafts;
        assert!(known as usize <= token_ids.len(), "sequence {} computes unknown tokens", scheduled.seq);
        let of_batch = |position: u32| batch.query_start_loc[i] + (position - scheduled.context_len);
        let mut hash = EchoHash::EMPTY;
        let mut position = 0;
        'table: for &block in table {
            for found in &self.slots[self.slots_of(BlockId(block))] {
                if position == seq_len {
                    break 'table;
                }
                let token = match position < known {
                    true => token_ids[position as usize],
                    false => batch.token_ids[of_batch(position) as usize],
                };
                let expected = EchoKv { token, position, tag };
                assert_eq!(*found, expected, "sequence {} reads a foreign slot in block {block}", scheduled.seq);
                hash = hash.push(found.token);
                if position >= first_row_position {
                    assert_eq!(batch.logits_indices[rows.len()], of_batch(position), "logits row {}", rows.len());
                    rows.push(hash);
                }
                position += 1;
            }
        }
        assert_eq!(position, seq_len, "the block table of sequence {} is too short", scheduled.seq);
    }

    fn slots_of(&self, block: BlockId) -> std::ops::Range<usize> {
        let start = (block.0 * self.block_size) as usize;
        start..start + self.block_size as usize
    }
}
