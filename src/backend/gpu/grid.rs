//! How many workgroups a kernel gets.

use super::super::Rows;
use super::step_words::{Items, Round, StepCounts};

/// Workgroups of a kernel in x and y, from the step's counts.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) enum Grid {
    /// `(x, ceil(rows / each))`.
    Columns { x: u32, rows: Rows, each: u32 },
    /// `(ceil(rows / each), y)`.
    RowGroups { rows: Rows, each: u32, y: u32 },
    /// The same in every step.
    Fixed { x: u32, y: u32 },
    /// `(work items of a round, y)`; only these differ between rounds.
    Items { of: ItemKind, y: u32 },
    /// `(x, copies)`.
    BlockCopies { x: u32 },
    /// `(x, rows whose likeliest tokens are wanted)`.
    TopKColumns { x: u32 },
    /// `(rows whose likeliest tokens are wanted, 1)`.
    TopKRows,
    /// `(x, draws)`.
    DrawColumns { x: u32 },
    /// `(draws, 1)`.
    Draws,
    /// `(scored tokens, 1)`.
    Scored,
    /// `(ceil(tokens of the step before / each), 1)`.
    FedTokens { each: u32 },
}

/// The work items of the attention's three kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum ItemKind {
    Decode,
    Prefill,
    Reduce,
}

impl ItemKind {
    fn items(self, round: &Round) -> Items {
        match self {
            Self::Decode => round.decode,
            Self::Prefill => round.prefill,
            Self::Reduce => round.reduce,
        }
    }
}

impl Grid {
    /// The first work item of the round, for kernels that have such.
    pub(in crate::backend) fn first_item(self, round: &Round) -> Option<u32> {
        match self {
            Self::Items { of, .. } => Some(of.items(round).first),
            _ => None,
        }
    }

    /// The workgroups in a round of a step; either may be 0.
    pub(in crate::backend) fn size(self, counts: &StepCounts, round: &Round) -> (u32, u32) {
        match self {
            Self::Columns { x, rows, each } => (x, counts.rows(rows).div_ceil(each)),
            Self::RowGroups { rows, each, y } => (counts.rows(rows).div_ceil(each), y),
            Self::Fixed { x, y } => (x, y),
            Self::Items { of, y } => (of.items(round).count, y),
            Self::BlockCopies { x } => (x, counts.block_copies),
            Self::TopKColumns { x } => (x, counts.top_k_rows),
            Self::TopKRows => (counts.top_k_rows, 1),
            Self::DrawColumns { x } => (x, counts.draws),
            Self::Draws => (counts.draws, 1),
            Self::Scored => (counts.scored, 1),
            Self::FedTokens { each } => (counts.fed_tokens.div_ceil(each), 1),
        }
    }
}
