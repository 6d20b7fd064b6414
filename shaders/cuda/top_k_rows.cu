// Second stage of the likeliest tokens: those of all chunks of a row, and their log probabilities.
struct Params { u32 chunks; };

extern "C" __global__ void __launch_bounds__(WG) top_k_rows(
    Step step,
    const float* __restrict__ chunk_sums, // [rows][chunks]
    const uint2* __restrict__ chunk_top,  // [rows][chunks][k] (bits of the value, column)
    uint2* __restrict__ scores,           // [rows][k] (token, bits of its log probability)
    Params params
) {
    if (blockIdx.x >= step[NUM_TOP_K_ROWS]) return;
    const u32 first_chunk = blockIdx.x * params.chunks;
    const u32 k = step[TOP_K];
    float largest = LOWEST_FLOAT;
    for (u32 c = threadIdx.x; c < params.chunks; c += WG) {
        largest = fmaxf(largest, __uint_as_float(chunk_top[(first_chunk + c) * k].x));
    }
    largest = workgroup_max(largest);
    float sum = 0.0f;
    for (u32 c = threadIdx.x; c < params.chunks; c += WG) {
        const float chunk_largest = __uint_as_float(chunk_top[(first_chunk + c) * k].x);
        sum += chunk_sums[first_chunk + c] * expf(chunk_largest - largest);
    }
    const float log_sum = logf(workgroup_sum(sum));

    const u32 begin = first_chunk * k;
    const u32 end = begin + params.chunks * k;
    Ranked last = {LOWEST_FLOAT, NO_COLUMN};
    for (u32 i = 0u; i < k; i++) {
        Ranked best = {LOWEST_FLOAT, NO_COLUMN};
        for (u32 at = begin + threadIdx.x; at < end; at += WG) {
            const float v = __uint_as_float(chunk_top[at].x);
            const u32 col = chunk_top[at].y;
            // Chunks stand in the order of their columns, so of equals the first is the lowest.
            if ((i == 0u || comes_after(v, col, last)) && (v > best.value || best.column == NO_COLUMN)) best = {v, col};
        }
        const float top = workgroup_max(best.value);
        last = {top, workgroup_min(best.value == top ? best.column : NO_COLUMN)};
        if (threadIdx.x == 0u) {
            scores[blockIdx.x * k + i] = make_uint2(last.column, __float_as_uint(top - largest - log_sum));
        }
    }
}
