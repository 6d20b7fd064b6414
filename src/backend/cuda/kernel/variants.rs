//! Every kernel, for tests that compile them.

use super::super::super::{AttentionShape, KvDtype, RopePairing};
use super::super::driver::DeviceTraits;
use super::super::folded::{Epilogue, Folded};
use super::super::repack::DeviceFormat;
use super::{
    DecodeKernel, Kernel, MatMulKernel, argmax_chunks, argmax_rows, attention_decode, attention_prefill,
    attention_reduce, attention_tiling, copy_blocks, draw_blocks, draw_rows, embed, feed_tokens, fma_peak, rms_norm,
    rope_and_cache, round_rows, score_rows, select_logits_rows, silu_mul, top_k_chunks, top_k_rows,
};

/// Query heads, key heads, elements of a head.
const SHAPES: [(u32, u32, u32); 8] =
    [(9, 3, 64), (32, 8, 128), (8, 2, 256), (4, 1, 80), (40, 40, 96), (6, 3, 16), (14, 2, 64), (7, 1, 128)];

/// What a product's kernel may fold, each part of it at least once.
fn foldings(choice: MatMulKernel) -> Vec<Folded> {
    let rope = |(num_heads, num_kv_heads, head_dim), kv, pairing| {
        let shape = AttentionShape { num_heads, num_kv_heads, head_dim, scale: 0.125 };
        Epilogue::RopeAndCache { shape, kv, pairing }
    };
    let of_vectors = [
        (false, Epilogue::Plain),
        (true, Epilogue::Plain),
        (true, Epilogue::Gate),
        (true, rope(SHAPES[0], KvDtype::F16, RopePairing::Halves)),
        (false, rope(SHAPES[3], KvDtype::F32, RopePairing::Interleaved)),
    ];
    let all = match choice {
        MatMulKernel::Vector { .. } => &of_vectors[..],
        MatMulKernel::Tensor(_) => &[(false, Epilogue::Plain), (false, Epilogue::Gate)],
        MatMulKernel::Tiled => &[(false, Epilogue::Plain)],
    };
    all.iter().map(|&(norm, epilogue)| Folded { norm, epilogue }).collect()
}

/// Kernels of products with a weight of this format, each once: with tensor cores and without, for weights that wide tiles
/// suit and for others.
fn products(format: DeviceFormat) -> Vec<MatMulKernel> {
    let mut distinct = Vec::new();
    let devices = [(u32::MAX, 227 << 10), (u32::MAX, 99 << 10), (0, 48 << 10)];
    for ((compute_capability, max_shared_bytes), weight_rows) in devices.into_iter().flat_map(|d| [(d, 8), (d, 8192)]) {
        let traits = DeviceTraits { compute_capability, multiprocessors: 64, max_shared_bytes };
        for (_, choice) in MatMulKernel::choices(format, weight_rows, &traits, false) {
            if !distinct.contains(&choice) {
                distinct.push(choice);
            }
        }
    }
    distinct
}

/// Every kernel in every variant, weight format and dtype of the KV pool, over a range of head shapes, and what to call it.
pub fn kernel_variants() -> Vec<(String, Kernel)> {
    let plain = [
        feed_tokens(),
        fma_peak(),
        rms_norm(),
        select_logits_rows(),
        silu_mul(),
        copy_blocks(),
        argmax_chunks(),
        argmax_rows(),
        top_k_chunks(),
        top_k_rows(),
        draw_blocks(),
        draw_rows(),
        score_rows(),
    ];
    let mut all: Vec<(String, Kernel)> = plain.map(|kernel| (kernel.name.to_owned(), kernel)).into();
    all.extend([false, true].map(|normed| (format!("round_rows, normed: {normed}"), round_rows(normed))));
    for format in DeviceFormat::ALL {
        all.push((format!("embed, {format:?}"), embed(format)));
        for choice in products(format) {
            for folded in foldings(choice) {
                all.push((format!("{choice:?}, {format:?}, {folded:?}"), choice.kernel(format, folded)));
            }
        }
    }
    for (num_heads, num_kv_heads, head_dim) in SHAPES {
        for dtype in KvDtype::ALL {
            let shape = AttentionShape { num_heads, num_kv_heads, head_dim, scale: 0.125 };
            let label = format!("{num_heads}/{num_kv_heads}x{head_dim} {dtype:?}");
            let mut push = |kernel: Kernel, what: &str| {
                all.push((format!("{}, {label}{what}", kernel.name), kernel));
            };
            // With tensor cores and without.
            let tilings = [u32::MAX, 0].map(|capability| attention_tiling(&shape, dtype, capability, false, true));
            for which in DecodeKernel::ALL {
                if which != DecodeKernel::Async || dtype != KvDtype::Int8 {
                    push(attention_decode(which, &shape, dtype, &tilings[0], u32::MAX), &format!(" {which}"));
                }
            }
            push(attention_prefill(&shape, dtype, &tilings[1], 0), "");
            if tilings[0] != tilings[1] {
                push(attention_prefill(&shape, dtype, &tilings[0], u32::MAX), "");
            }
            push(attention_reduce(&shape, dtype), "");
            for pairing in [RopePairing::Halves, RopePairing::Interleaved] {
                for has_norm in [false, true] {
                    push(rope_and_cache(&shape, dtype, pairing, has_norm), &format!(" {pairing:?}, norm {has_norm}"));
                }
            }
        }
    }
    all
}
