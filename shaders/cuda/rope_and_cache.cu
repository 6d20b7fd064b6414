// Rotates q and k and writes k and v to their slots in a KV pool of floats.
extern "C" __global__ void __launch_bounds__(WG) rope_and_cache(
    Step step,
    const float4* __restrict__ qkv,  // [T][(HEADS + 2 KV_HEADS) * D / 4]
    const float4* __restrict__ rope, // [max_positions][D / 4] (cos, sin, cos, sin)
    float4* __restrict__ q,          // [T][HEADS * D / 4]
    KvQuad* __restrict__ k_pool,     // [block][KV_HEADS] pages
    KvQuad* __restrict__ v_pool,     // the same shape
    const float4* __restrict__ head_norm, // [2][D / 4]: of query heads, of key heads; if HEAD_NORM
    Params params
) {
    const u32 token = blockIdx.y;
    if (token >= step[NUM_TOKENS]) return;
    const u32 wanted = blockIdx.x * (WG / LANES) + threadIdx.x / LANES;
    const u32 head = least(wanted, ALL_HEADS - 1u);
    const u32 j = threadIdx.x % LANES;
    const Quads v = rotated(step, qkv, rope, head_norm, params, token, head, j);
    if (wanted >= ALL_HEADS) return;
    if (head < HEADS) {
        write_q(q, token, head, j, v);
        return;
    }
    KvQuad* pool = head < HEADS + KV_HEADS ? k_pool : v_pool;
    const u32 at = first_octet(row_to_write(step, token, head)) * 2u + j;
    pool[at] = pack_quad(v.lo);
    pool[at + HALF] = pack_quad(v.hi);
}
