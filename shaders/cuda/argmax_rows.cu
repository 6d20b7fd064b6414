// Second stage of the argmax: the best chunk of each row, ties to the first.
struct Params { u32 chunks; };

extern "C" __global__ void __launch_bounds__(WG) argmax_rows(
    Step step,
    const uint2* __restrict__ chunk_max, // [L][chunks] (bits of the value, column)
    u32* __restrict__ ids,               // [L]
    Params params
) {
    const u32 row = blockIdx.x * WG + threadIdx.x;
    if (row >= num_rows(step, ROWS_LOGITS)) return;
    uint2 best = chunk_max[row * params.chunks];
    for (u32 i = 1u; i < params.chunks; i++) {
        const uint2 c = chunk_max[row * params.chunks + i];
        if (__uint_as_float(c.x) > __uint_as_float(best.x)) best = c;
    }
    ids[row] = best.y;
}
