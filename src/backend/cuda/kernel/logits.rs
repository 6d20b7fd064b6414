//! The kernels that look at finished logits: argmax and the likeliest tokens.

use super::{Kernel, REDUCE_THREADS, cuda, params};

/// Columns that one workgroup of `argmax_chunks` or `top_k_chunks` looks at.
pub(in super::super) const LOGITS_CHUNK: u32 = 4096;

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
