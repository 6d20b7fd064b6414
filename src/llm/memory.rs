//! How large the KV pool is.

use super::{LlmError, LlmOptions, PreemptionMode};
use crate::backend::{Backend, DeviceMemory, KvLayout, Program, Rows, StepLimits};
use crate::engine::DEFAULT_BLOCK_SIZE;
use crate::model::ModelConfig;
use std::fmt;

/// The KV pool in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvMemory {
    /// Blocks.
    pub num_blocks: u32,
    /// Tokens that fit, none of them shared.
    pub tokens: u64,
    /// Bytes of one block, K and V of every layer.
    pub block_bytes: u64,
    /// Bytes of the pool.
    pub total_bytes: u64,
    /// Longest sequence, in tokens.
    pub max_model_len: u32,
    /// The option that decides how large it is, as the command line spells it.
    pub sized_by: &'static str,
}

impl KvMemory {
    pub(super) fn new(layout: &KvLayout, max_model_len: u32, sized_by: &'static str) -> Self {
        Self {
            num_blocks: layout.num_blocks,
            tokens: u64::from(layout.num_blocks) * u64::from(layout.block_size),
            block_bytes: layout.block_bytes(),
            total_bytes: layout.total_bytes(),
            max_model_len,
            sized_by,
        }
    }

    /// How many sequences of the greatest length fit at the same time.
    pub fn max_concurrency(&self) -> f64 {
        self.tokens as f64 / f64::from(self.max_model_len)
    }
}

impl fmt::Display for KvMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KV pool: {} blocks of {DEFAULT_BLOCK_SIZE} tokens = {} tokens in {:.0} MiB; {:.2} sequences of {} tokens",
            self.num_blocks,
            self.tokens,
            self.total_bytes as f64 / MIB as f64,
            self.max_concurrency(),
            self.max_model_len
        )
    }
}

const MIB: u64 = 1 << 20;
const SHARE_OPTION: &str = "--gpu-memory-utilization";
/// Pool on a software adapter, whose memory is the machine's, unless asked for otherwise.
const SOFTWARE_BYTES: u64 = 512 * MIB;
/// Pool where the device does not tell how much memory it has.
const UNKNOWN_BYTES: u64 = 1024 * MIB;

/// Decides on the pool: as many blocks as asked for, or as the memory allows, but no more than `max_num_seqs` sequences of
/// the greatest length could use.
pub(super) fn plan(
    config: &ModelConfig,
    backend: &dyn Backend,
    options: &LlmOptions,
    max_model_len: u32,
    program: &Program,
    limits: &StepLimits,
) -> Result<KvLayout, LlmError> {
    let layout = |num_blocks| config.kv_layout(num_blocks, DEFAULT_BLOCK_SIZE, options.kv_cache_dtype);
    let block_bytes = layout(1).block_bytes();
    let memory = backend.memory();
    check_activations(program, limits, memory.max_buffer_bytes)?;
    // One layer's K (or V) is one binding.
    let most_blocks = (memory.max_buffer_bytes / layout(1).layer_bytes()).min(u64::from(u32::MAX / 32));
    let num_blocks = match (options.num_gpu_blocks_override, options.kv_cache_memory_bytes) {
        (Some(blocks), _) if u64::from(blocks) > most_blocks => {
            return Err(LlmError::Option {
                option: "--num-gpu-blocks-override",
                value: blocks.to_string(),
                allowed: format!("at most {most_blocks} on this device: one layer's keys must fit one binding"),
            });
        }
        (Some(blocks), _) => u64::from(blocks),
        (None, Some(bytes)) => bytes / block_bytes,
        (None, None) => {
            let bytes = match memory.total_bytes {
                _ if memory.is_software => SOFTWARE_BYTES,
                None => UNKNOWN_BYTES,
                Some(total) => {
                    let share = (total as f64 * options.gpu_memory_utilization) as u64;
                    let scratch_bytes = backend.scratch_bytes(program, &layout(1), limits);
                    share.saturating_sub(backend.allocated_bytes() + scratch_bytes)
                }
            };
            let useful = u64::from(options.max_num_seqs) * u64::from(max_model_len.div_ceil(DEFAULT_BLOCK_SIZE));
            (bytes / block_bytes).min(useful)
        }
    };
    let num_blocks = num_blocks.min(most_blocks);
    if num_blocks == 0 {
        let option = size_option(options, &memory);
        return Err(LlmError::KvMemory(format!(
            "no memory is left for the KV pool: one block takes {block_bytes} bytes; {}",
            match option {
                SHARE_OPTION => format!("use a smaller model, raise {option}, or lower --max-num-batched-tokens"),
                _ => format!("raise {option}"),
            }
        )));
    }
    Ok(layout(num_blocks as u32))
}

/// The option that decides how large the pool is.
pub(super) fn size_option(options: &LlmOptions, memory: &DeviceMemory) -> &'static str {
    let knows_share = memory.total_bytes.is_some() && !memory.is_software;
    match (options.num_gpu_blocks_override, options.kv_cache_memory_bytes) {
        (Some(_), _) => "--num-gpu-blocks-override",
        (None, None) if knows_share => SHARE_OPTION,
        (None, _) => "--kv-cache-memory-bytes",
    }
}

/// Blocks in the host pool: what [`LlmOptions::swap_space_bytes`] holds, but no more than sequences could use.
pub(super) fn num_host_blocks(layout: &KvLayout, options: &LlmOptions, max_model_len: u32) -> u32 {
    if options.preemption_mode == PreemptionMode::Recompute {
        return 0;
    }
    let useful = u64::from(options.max_num_seqs) * u64::from(max_model_len.div_ceil(layout.block_size));
    (options.swap_space_bytes / layout.block_bytes()).min(useful).min(u64::from(u32::MAX / layout.block_size)) as u32
}

/// Whether every activation fits one binding.
fn check_activations(program: &Program, limits: &StepLimits, max_buffer_bytes: u64) -> Result<(), LlmError> {
    for activation in &program.activations {
        let most = max_buffer_bytes / (4 * u64::from(activation.cols));
        let (option, rows) = match activation.rows {
            Rows::Tokens => ("--max-num-batched-tokens", limits.max_tokens),
            Rows::Logits => ("--max-num-seqs", limits.max_logits_rows),
        };
        if u64::from(rows) > most {
            let value = match activation.rows {
                Rows::Logits if rows > limits.max_seqs => {
                    format!("{} and {} drafts", limits.max_seqs, rows - limits.max_seqs)
                }
                _ => rows.to_string(),
            };
            let allowed = format!("at most {most} on this device: activations of this model must fit one binding");
            return Err(LlmError::Option { option, value, allowed });
        }
    }
    Ok(())
}
