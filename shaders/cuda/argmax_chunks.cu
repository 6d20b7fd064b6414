// First stage of the argmax: the largest logit of each chunk of CHUNK columns, ties to the lowest column.
struct Params { u32 vocab, chunks; };

extern "C" __global__ void __launch_bounds__(WG) argmax_chunks(
    Step step,
    const float* __restrict__ logits, // [L][vocab]
    uint2* __restrict__ chunk_max,    // [L][chunks] (bits of the value, column)
    Params params
) {
    const u32 chunk = blockIdx.x;
    const u32 row = blockIdx.y;
    if (row >= step[NUM_LOGITS_ROWS]) return;
    const u32 end = least((chunk + 1u) * CHUNK, params.vocab);
    float best = LOWEST_FLOAT;
    u32 best_col = end;
    for (u32 col = chunk * CHUNK + threadIdx.x; col < end; col += WG) {
        const float v = logits[row * params.vocab + col];
        if (v > best || best_col == end) {
            best = fmaxf(v, LOWEST_FLOAT);
            best_col = col;
        }
    }
    const float top = workgroup_max(best);
    const u32 col = workgroup_min(best == top ? best_col : 0xffffffffu);
    if (threadIdx.x == 0u) chunk_max[row * params.chunks + chunk] = make_uint2(__float_as_uint(top), col);
}
