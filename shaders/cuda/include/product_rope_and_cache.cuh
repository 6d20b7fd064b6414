// The product that makes q, k and v, or whole heads of them, and what rope_and_cache would do with them. The parts of a column
// are two elements that RoPE turns together; columns leave by two, because two neighbouring elements of the KV pool may share
// a word.
constexpr u32 PARTS = 2u;
constexpr u32 WIDTH = 2u;
constexpr u32 HALF = HEAD_DIM / 2u; // columns of a head
#define OUTPUT_ARGUMENTS float* __restrict__ q, const float4* __restrict__ rope, KvPair* __restrict__ k_pool, KvPair* __restrict__ v_pool
#define OUTPUTS Outputs{q, rope, k_pool, v_pool}
struct Outputs {
    float* q;           // [T][HEADS * D]
    const float4* rope; // [max_positions][D / 4] (cos, sin, cos, sin)
    KvPair* k_pool;     // [block][KV_HEADS] pages
    KvPair* v_pool;     // the same shape
};
__device__ __forceinline__ u32 weight_row(const Params& params, u32 col, u32 part) {
    const u32 c = least(col, params.cols - 1u);
    if (INTERLEAVED) return 2u * c + part;
    return (c / HALF * 2u + part) * HALF + c % HALF;
}
__device__ __forceinline__ void finish(
    Step step, const Params& params, const float* __restrict__ bias, Outputs to, u32 row, u32 col, const float (&sums)[4]
) {
    const u32 head = params.first_row / HEAD_DIM + col / HALF;
    const u32 i = col % HALF;
    // (first part, last part) of each of the two columns.
    float2 pair[2];
#pragma unroll
    for (u32 c = 0u; c < 2u; c++) {
        const float first = sums[c] + bias_of(params, bias, params.first_row + weight_row(params, col + c, 0u));
        const float last = sums[2u + c] + bias_of(params, bias, params.first_row + weight_row(params, col + c, 1u));
        pair[c] = make_float2(first, last);
    }
    if (head < HEADS + KV_HEADS) {
        const float4 a = __ldg(to.rope + position(step, row) * QUADS + i / 2u);
        pair[0] = turned(pair[0].x, pair[0].y, a.x, a.y);
        pair[1] = turned(pair[1].x, pair[1].y, a.z, a.w);
    }
    // Two pairs of neighbours: elements e and e + 1, and those `apart` behind them.
    const u32 e = INTERLEAVED ? 2u * i : i;
    const u32 apart = INTERLEAVED ? 2u : HALF;
    const float2 lo = INTERLEAVED ? pair[0] : make_float2(pair[0].x, pair[1].x);
    const float2 hi = INTERLEAVED ? pair[1] : make_float2(pair[0].y, pair[1].y);
    if (head < HEADS) {
        float2* at = (float2*)(to.q + row * params.out_stride + head * HEAD_DIM + e);
        at[0] = lo;
        at[apart / 2u] = hi;
        return;
    }
    const u32 s = slot(step, row);
    const KvRow its = kv_row(s / BLOCK_SIZE, (head - HEADS) % KV_HEADS, s % BLOCK_SIZE);
    KvPair* at = (head < HEADS + KV_HEADS ? to.k_pool : to.v_pool) + first_octet(its) * 4u + e / 2u;
    at[0] = pack_pair(lo.x, lo.y);
    at[apart / 2u] = pack_pair(hi.x, hi.y);
}
