//! How many workgroups a kernel gets.

use super::super::Rows;
use super::step_words::StepCounts;

/// Workgroups of a kernel in x and y, from the step's counts.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) enum Grid {
    /// `(x, ceil(rows / each))`.
    Columns {
        x: u32,
        rows: Rows,
        each: u32,
    },
    /// `(ceil(rows / each), y)`.
    RowGroups {
        rows: Rows,
        each: u32,
        y: u32,
    },
    /// The same in every step.
    Fixed {
        x: u32,
        y: u32,
    },
    /// `(work items, y)`.
    DecodeItems {
        y: u32,
    },
    PrefillItems {
        y: u32,
    },
    ReduceItems {
        y: u32,
    },
    /// `(x, copies)`.
    BlockCopies {
        x: u32,
    },
    /// `(x, rows whose likeliest tokens are wanted)`.
    TopKColumns {
        x: u32,
    },
    /// `(rows whose likeliest tokens are wanted, 1)`.
    TopKRows,
    /// `(x, draws)`.
    DrawColumns {
        x: u32,
    },
    /// `(draws, 1)`.
    Draws,
    /// `(ceil(tokens of the step before / each), 1)`.
    FedTokens {
        each: u32,
    },
}

impl Grid {
    /// The workgroups in a step; either may be 0.
    pub(in crate::backend) fn size(self, counts: &StepCounts) -> (u32, u32) {
        match self {
            Self::Columns { x, rows, each } => (x, counts.rows(rows).div_ceil(each)),
            Self::RowGroups { rows, each, y } => (counts.rows(rows).div_ceil(each), y),
            Self::Fixed { x, y } => (x, y),
            Self::DecodeItems { y } => (counts.decode_items, y),
            Self::PrefillItems { y } => (counts.prefill_items, y),
            Self::ReduceItems { y } => (counts.reduce_items, y),
            Self::BlockCopies { x } => (x, counts.block_copies),
            Self::TopKColumns { x } => (x, counts.top_k_rows),
            Self::TopKRows => (counts.top_k_rows, 1),
            Self::DrawColumns { x } => (x, counts.draws),
            Self::Draws => (counts.draws, 1),
            Self::FedTokens { each } => (counts.fed_tokens.div_ceil(each), 1),
        }
    }
}
