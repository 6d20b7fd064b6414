// Rotary position embedding of q and k (Su et al. 2021), and the write of k and v to their slots in the KV pool.
// An invocation takes elements 2i, 2i+1, D/2 + 2i and D/2 + 2i + 1 of one head: with those it can rotate in either pairing
// and writes whole pairs.
struct Params { u32 qkv_stride; };

constexpr u32 PAIRS = HEAD_DIM / 2u;

__device__ __forceinline__ float2 rotate(float a, float b, float2 cs) {
    return make_float2(a * cs.x - b * cs.y, a * cs.y + b * cs.x);
}

extern "C" __global__ void __launch_bounds__(WG) rope_and_cache(
    Step step,
    const float2* __restrict__ qkv,  // [T][(HEADS + 2 KV_HEADS) * D / 2]
    const float2* __restrict__ rope, // [max_positions][D / 2] (cos, sin)
    float2* __restrict__ q,          // [T][HEADS * D / 2]
    KvPair* __restrict__ k_pool,     // [block][KV_HEADS][BLOCK_SIZE][D / 2]
    KvPair* __restrict__ v_pool,     // the same shape
    Params params
) {
    const u32 id = blockIdx.x * WG + threadIdx.x;
    const u32 head = id / (PAIRS / 2u);
    const u32 i = id % (PAIRS / 2u);
    const u32 token = blockIdx.y;
    if (head >= HEADS + 2u * KV_HEADS || token >= step[NUM_TOKENS]) return;
    const u32 at = token * (params.qkv_stride / 2u) + head * PAIRS + i;
    float2 lo = qkv[at];
    float2 hi = qkv[at + PAIRS / 2u];
    if (head < HEADS + KV_HEADS) {
        const float2* angles = rope + position(step, token) * PAIRS;
        if (INTERLEAVED) {
            lo = rotate(lo.x, lo.y, __ldg(angles + i));
            hi = rotate(hi.x, hi.y, __ldg(angles + PAIRS / 2u + i));
        } else {
            const float2 first = rotate(lo.x, hi.x, __ldg(angles + 2u * i));
            const float2 second = rotate(lo.y, hi.y, __ldg(angles + 2u * i + 1u));
            lo = make_float2(first.x, second.x);
            hi = make_float2(first.y, second.y);
        }
    }
    if (head < HEADS) {
        const u32 q_at = (token * HEADS + head) * PAIRS + i;
        q[q_at] = lo;
        q[q_at + PAIRS / 2u] = hi;
        return;
    }
    const u32 s = slot(step, token);
    const u32 kv_head = (head - HEADS) % KV_HEADS;
    const u32 kv_at = (((s / BLOCK_SIZE) * KV_HEADS + kv_head) * BLOCK_SIZE + s % BLOCK_SIZE) * PAIRS + i;
    KvPair* pool = head < HEADS + KV_HEADS ? k_pool : v_pool;
    pool[kv_at] = pack_pair(lo);
    pool[kv_at + PAIRS / 2u] = pack_pair(hi);
}
