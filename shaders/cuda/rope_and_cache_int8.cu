// Rotates q and k and writes k and v to their slots in a KV pool of bytes, with their scales: that of a group follows from
// its largest element, which the invocations of a head show each other.
constexpr float INT8_MAX = 127.0f;
constexpr u32 GROUP_QUADS = SCALE_GROUP / 4u;

__device__ __forceinline__ float largest_of(float4 v) {
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}
// Ties to even, as the reference rounds.
__device__ __forceinline__ u32 byte_of(float v, float scale) {
    return (u32)(int)fminf(fmaxf(rintf(v / scale), -INT8_MAX), INT8_MAX) & 0xffu;
}
__device__ __forceinline__ KvQuad pack_bytes(float4 v, float scale) {
    if (scale == 0.0f) return 0u;
    return byte_of(v.x, scale) | byte_of(v.y, scale) << 8 | byte_of(v.z, scale) << 16 | byte_of(v.w, scale) << 24;
}
// Writes a quad of a head whose quads have these largest elements, and the scale of its group if it is the first in it.
__device__ __forceinline__ void write_quad(KvQuad* pool, KvRow row, const float* largest, u32 quad, float4 v) {
    const u32 group = quad / GROUP_QUADS;
    float most = 0.0f;
    for (u32 i = group * GROUP_QUADS; i < least((group + 1u) * GROUP_QUADS, QUADS); i++) most = fmaxf(most, largest[i]);
    const u16 half_bits = (u16)pack_halves(fminf(most / INT8_MAX, 65504.0f), 0.0f);
    pool[first_octet(row) * 2u + quad] = pack_bytes(v, half_to_float(half_bits)); // by the scale that readers will see
    if (quad % GROUP_QUADS == 0u) ((u16*)pool)[first_scale(row) + group] = half_bits;
}

extern "C" __global__ void __launch_bounds__(WG) rope_and_cache_int8(
    Step step,
    const float4* __restrict__ qkv,  // [T][(HEADS + 2 KV_HEADS) * D / 4]
    const float4* __restrict__ rope, // [max_positions][D / 4] (cos, sin, cos, sin)
    float4* __restrict__ q,          // [T][HEADS * D / 4]
    KvQuad* __restrict__ k_pool,     // [block][KV_HEADS] pages
    KvQuad* __restrict__ v_pool,     // the same shape
    const float4* __restrict__ head_norm, // [2][D / 4]: of query heads, of key heads; if HEAD_NORM
    Params params
) {
    __shared__ float largest[WG / LANES][QUADS];
    const u32 token = blockIdx.y;
    if (token >= step[NUM_TOKENS]) return;
    const u32 wanted = blockIdx.x * (WG / LANES) + threadIdx.x / LANES;
    const u32 head = least(wanted, ALL_HEADS - 1u);
    const u32 j = threadIdx.x % LANES;
    const Quads v = rotated(step, qkv, rope, head_norm, params, token, head, j);
    float* its = largest[threadIdx.x / LANES];
    its[j] = largest_of(v.lo);
    its[HALF + j] = largest_of(v.hi);
    __syncthreads();
    if (wanted >= ALL_HEADS) return;
    if (head < HEADS) {
        write_q(q, token, head, j, v);
        return;
    }
    KvQuad* pool = head < HEADS + KV_HEADS ? k_pool : v_pool;
    const KvRow row = row_to_write(step, token, head);
    write_quad(pool, row, its, j, v.lo);
    write_quad(pool, row, its, HALF + j, v.hi);
}
