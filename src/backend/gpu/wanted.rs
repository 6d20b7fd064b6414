//! What comes back of a step.

use super::super::{Program, StepInput, StepOutput};

/// Bytes that come back of each kind, in this order.
pub(in crate::backend) struct WantedBytes {
    pub(in crate::backend) argmax: u64,
    pub(in crate::backend) drawn: u64,
    pub(in crate::backend) top_k: u64,
    pub(in crate::backend) scores: u64,
    /// Of all wanted rows of the logits.
    pub(in crate::backend) logits: u64,
    /// Of one of them.
    pub(in crate::backend) logits_row: u64,
}

impl WantedBytes {
    /// Nothing comes back of a program without logits.
    pub(in crate::backend) fn of(input: &StepInput<'_>, program: &Program) -> Self {
        let vocab = program.logits.map_or(0, |logits| program.activations[logits.0 as usize].cols);
        let each = u64::from(vocab > 0);
        let logits_row = 4 * u64::from(vocab);
        Self {
            argmax: 4 * each * input.logits_indices.len() as u64,
            drawn: 4 * each * input.draws.len() as u64,
            top_k: 8 * each * input.top_k_rows.len() as u64 * u64::from(input.top_k),
            scores: 8 * each * input.scored.len() as u64,
            logits: logits_row * input.read_logits_rows.len() as u64,
            logits_row,
        }
    }

    /// Bytes of all kinds.
    pub(in crate::backend) fn total(&self) -> u64 {
        self.argmax + self.drawn + self.top_k + self.scores + self.logits
    }

    /// Appends what the bytes hold to the output.
    pub(in crate::backend) fn split(&self, bytes: &[u8], output: &mut StepOutput) {
        let (argmax, rest) = bytes.split_at(self.argmax as usize);
        let (drawn, rest) = rest.split_at(self.drawn as usize);
        let (top_k, rest) = rest.split_at(self.top_k as usize);
        let (scores, logits) = rest.split_at(self.scores as usize);
        append(&mut output.argmax, argmax);
        append(&mut output.drawn, drawn);
        append(&mut output.top_k, top_k);
        append(&mut output.scores, scores);
        append(&mut output.logits, logits);
    }
}

/// Appends values to `to`; where `bytes` begin in memory is any address.
fn append<T: bytemuck::AnyBitPattern>(to: &mut Vec<T>, bytes: &[u8]) {
    to.extend(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>));
}
