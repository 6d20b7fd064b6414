// Rotates q and k and writes k and v to their slots in a KV pool of floats.
extern "C" __global__ void __launch_bounds__(WG) rope_and_cache(
    Step step,
    const float4* __restrict__ qkv,  // [T][(HEADS + 2 KV_HEADS) * D / 4]
    const float4* __restrict__ rope, // [max_positions][D / 4] (cos, sin, cos, sin)
    float4* __restrict__ q,          // [T][HEADS * D / 4]
    KvQuad* __restrict__ k_pool,     // [block][KV_HEADS] pages
    KvQuad* __restrict__ v_pool,     // the same shape
    Params params
) {
    const u32 id = blockIdx.x * WG + threadIdx.x;
    const u32 head = id / LANES;
    const u32 j = id % LANES;
    const u32 token = blockIdx.y;
    if (head >= ALL_HEADS || token >= step[NUM_TOKENS]) return;
    const Quads v = rotated(step, qkv, rope, params, token, head, j);
    if (head < HEADS) {
        write_q(q, token, head, j, v);
        return;
    }
    KvQuad* pool = head < HEADS + KV_HEADS ? k_pool : v_pool;
    const u32 at = first_octet(row_to_write(step, token, head)) * 2u + j;
    pool[at] = pack_quad(v.lo);
    pool[at + HALF] = pack_quad(v.hi);
}
