// First stage of the likeliest tokens, for each chunk of CHUNK columns: its largest logits in order, ties to the lowest
// column, and the sum of exp(logit - largest).
struct Params { u32 vocab, chunks; };

extern "C" __global__ void __launch_bounds__(WG) top_k_chunks(
    Step step,
    const float* __restrict__ logits, // [L][vocab]
    float* __restrict__ chunk_sums,   // [rows][chunks]
    uint2* __restrict__ chunk_top,    // [rows][chunks][k] (bits of the value, column)
    Params params
) {
    if (blockIdx.y >= step[NUM_TOP_K_ROWS]) return;
    const u32 chunk = blockIdx.x;
    const u32 row = top_k_row(step, blockIdx.y) * params.vocab;
    const u32 out = blockIdx.y * params.chunks + chunk;
    const u32 begin = chunk * CHUNK + threadIdx.x;
    const u32 end = least((chunk + 1u) * CHUNK, params.vocab);
    const u32 k = step[TOP_K];
    float largest = LOWEST_FLOAT;
    Ranked last = {LOWEST_FLOAT, NO_COLUMN};
    for (u32 i = 0u; i < k; i++) {
        Ranked best = {LOWEST_FLOAT, NO_COLUMN};
        for (u32 col = begin; col < end; col += WG) {
            const float v = fmaxf(logits[row + col], LOWEST_FLOAT);
            if ((i == 0u || comes_after(v, col, last)) && (v > best.value || best.column == NO_COLUMN)) best = {v, col};
        }
        const float top = workgroup_max(best.value);
        last = {top, workgroup_min(best.value == top ? best.column : NO_COLUMN)};
        if (i == 0u) largest = top;
        if (threadIdx.x == 0u) chunk_top[out * k + i] = make_uint2(__float_as_uint(last.value), last.column);
    }
    float sum = 0.0f;
    for (u32 col = begin; col < end; col += WG) sum += expf(logits[row + col] - largest);
    sum = workgroup_sum(sum);
    if (threadIdx.x == 0u) chunk_sums[out] = sum;
}
