// Rotary position embedding (Su et al. 2021) of one head, normalised before if the model does, for the kernels that then
// write K and V to their slots. An invocation takes elements 4j to 4j + 3 and D/2 + 4j to D/2 + 4j + 3 of one head: with
// those it can rotate in either pairing, and writes whole quads. A workgroup holds whole heads.
struct Params { u32 qkv_stride; float norm_eps; };

constexpr u32 ALL_HEADS = HEADS + 2u * KV_HEADS;
constexpr u32 LANES = HEAD_DIM / 8u; // invocations of one head
constexpr u32 HALF = HEAD_DIM / 8u;  // quads in half a head

// The two quads of an invocation.
struct Quads { float4 lo, hi; };

// `v` with its pairs (x, y) and (z, w) turned by the angles in `a`.
__device__ __forceinline__ float4 turn_pairs(float4 v, float4 a) {
    const float2 first = turned(v.x, v.y, a.x, a.y), second = turned(v.z, v.w, a.z, a.w);
    return make_float4(first.x, first.y, second.x, second.y);
}
__device__ __forceinline__ float square_sum(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
__device__ __forceinline__ float4 scaled(float4 v, float scale, float4 w) {
    return make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
}
// `v`, quad j of each half of a head, after the head's RMSNorm, which all invocations of a workgroup make together.
__device__ __forceinline__ Quads normed(
    const Quads& v, const float4* __restrict__ head_norm, Params params, u32 head, u32 j
) {
    __shared__ float squares[WG];
    squares[threadIdx.x] = square_sum(v.lo) + square_sum(v.hi);
    __syncthreads();
    float sum = 0.0f;
    for (u32 i = 0u; i < LANES; i++) sum += squares[threadIdx.x - j + i];
    const float scale = 1.0f / sqrtf(sum / (float)HEAD_DIM + params.norm_eps);
    const float4* weight = head_norm + (head >= HEADS ? QUADS : 0u) + j;
    return Quads{scaled(v.lo, scale, __ldg(weight)), scaled(v.hi, scale, __ldg(weight + HALF))};
}
// Quad j of each half of a head (query heads, then key heads, then value heads), all but value heads normalised and rotated.
__device__ __forceinline__ Quads rotated(
    Step step, const float4* __restrict__ qkv, const float4* __restrict__ rope, const float4* __restrict__ head_norm,
    Params params, u32 token, u32 head, u32 j
) {
    const float4* its = qkv + token * (params.qkv_stride / 4u) + head * QUADS;
    const Quads plain = {its[j], its[HALF + j]};
    const Quads v = HEAD_NORM ? normed(plain, head_norm, params, head, j) : plain;
    if (head >= HEADS + KV_HEADS) return plain;
    const float4* angles = rope + position(step, token) * QUADS;
    if (INTERLEAVED) return Quads{turn_pairs(v.lo, __ldg(angles + j)), turn_pairs(v.hi, __ldg(angles + HALF + j))};
    const float4 a = __ldg(angles + 2u * j), b = __ldg(angles + 2u * j + 1u);
    const float2 x = turned(v.lo.x, v.hi.x, a.x, a.y), y = turned(v.lo.y, v.hi.y, a.z, a.w);
    const float2 z = turned(v.lo.z, v.hi.z, b.x, b.y), w = turned(v.lo.w, v.hi.w, b.z, b.w);
    return Quads{make_float4(x.x, y.x, z.x, w.x), make_float4(x.y, y.y, z.y, w.y)};
}
__device__ __forceinline__ void write_q(float4* __restrict__ q, u32 token, u32 head, u32 j, const Quads& v) {
    float4* to = q + (token * HEADS + head) * QUADS + j;
    to[0] = v.lo;
    to[HALF] = v.hi;
}
// Where the token's row goes, of a head behind the query heads.
__device__ __forceinline__ KvRow row_to_write(Step step, u32 token, u32 head) {
    const u32 s = slot(step, token);
    return kv_row(s / BLOCK_SIZE, (head - HEADS) % KV_HEADS, s % BLOCK_SIZE);
}
