//! The kernels that look at finished logits: argmax, the likeliest tokens, and draws.

use super::super::buffers::LOGITS_CHUNK;
use super::{Kernel, MAP_THREADS, REDUCE_THREADS, cuda, params};

params! {
    /// Parameters of `argmax_chunks`.
    ArgmaxChunksParams { vocab: u32, chunks: u32 }
}

/// Grid: (chunks, logits rows).
pub(in super::super) fn argmax_chunks() -> Kernel {
    Kernel::new::<ArgmaxChunksParams>("argmax_chunks", cuda!("argmax_chunks.cu"), REDUCE_THREADS, 2)
        .reduce()
        .constant("CHUNK", LOGITS_CHUNK)
}

params! {
    /// Parameters of `argmax_rows`.
    ArgmaxRowsParams { chunks: u32 }
}

/// Grid: (logits rows / threads, 1).
pub(in super::super) fn argmax_rows() -> Kernel {
    Kernel::new::<ArgmaxRowsParams>("argmax_rows", cuda!("argmax_rows.cu"), 32, 2)
}

params! {
    /// Parameters of `top_k_chunks`.
    TopKChunksParams { vocab: u32, chunks: u32 }
}

/// Grid: (chunks, rows whose likeliest tokens are wanted).
pub(in super::super) fn top_k_chunks() -> Kernel {
    Kernel::new::<TopKChunksParams>("top_k_chunks", cuda!("top_k_chunks.cu"), REDUCE_THREADS, 3)
        .reduce()
        .include(cuda!("include/ranked.cuh"))
        .constant("CHUNK", LOGITS_CHUNK)
}

params! {
    /// Parameters of `top_k_rows`.
    TopKRowsParams { chunks: u32 }
}

/// Grid: (rows whose likeliest tokens are wanted, 1).
pub(in super::super) fn top_k_rows() -> Kernel {
    Kernel::new::<TopKRowsParams>("top_k_rows", cuda!("top_k_rows.cu"), REDUCE_THREADS, 3)
        .reduce()
        .include(cuda!("include/ranked.cuh"))
}

params! {
    /// Parameters of `draw_blocks`.
    DrawBlocksParams { vocab: u32, blocks: u32 }
}

/// Grid: (blocks * `DRAW_BLOCK` / threads, draws).
pub(in super::super) fn draw_blocks() -> Kernel {
    Kernel::new::<DrawBlocksParams>("draw_blocks", cuda!("draw_blocks.cu"), MAP_THREADS, 3)
        .include(cuda!("include/draw.cuh"))
}

params! {
    /// Parameters of `draw_rows`.
    DrawRowsParams { blocks: u32 }
}

/// Grid: (draws, 1).
pub(in super::super) fn draw_rows() -> Kernel {
    Kernel::new::<DrawRowsParams>("draw_rows", cuda!("draw_rows.cu"), REDUCE_THREADS, 3)
        .reduce()
        .include(cuda!("include/draw.cuh"))
}

params! {
    /// Parameters of `score_rows`.
    ScoreRowsParams { vocab: u32 }
}

/// Grid: (scored tokens, 1).
pub(in super::super) fn score_rows() -> Kernel {
    Kernel::new::<ScoreRowsParams>("score_rows", cuda!("score_rows.cu"), REDUCE_THREADS, 4).reduce()
}
