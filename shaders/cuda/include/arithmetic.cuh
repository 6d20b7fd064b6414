// Small vectors, and reductions over a subgroup.

// Eight consecutive elements: an octet.
struct Vec8 { float e[8]; };

__device__ __forceinline__ Vec8 vec8(float4 lo, float4 hi) {
    return Vec8{{lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w}};
}
__device__ __forceinline__ float in_range_of_f16(float v) {
    return v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v; // keeps NaN
}
__device__ __forceinline__ Vec8 in_range_of_f16(const Vec8& v) {
    Vec8 out;
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) out.e[i] = in_range_of_f16(v.e[i]);
    return out;
}
__device__ __forceinline__ uint4 pack_octet(const Vec8& v) {
    return make_uint4(
        pack_halves(v.e[0], v.e[1]), pack_halves(v.e[2], v.e[3]), pack_halves(v.e[4], v.e[5]), pack_halves(v.e[6], v.e[7])
    );
}
// Integers become floats at a quarter of the rate of arithmetic. So each signed byte, its sign bit flipped, goes into the
// lowest bits of 2^23, and what was added comes off again: exact, and at full rate.
__device__ __forceinline__ u32 flip_signs(u32 bytes) { return bytes ^ 0x80808080u; }
__device__ __forceinline__ float flipped_byte(u32 flipped, u32 i) {
    return __uint_as_float(__byte_perm(flipped, 0x4b000000u, 0x7650u + i)) - 8388736.0f;
}
__device__ __forceinline__ Vec8 signed_bytes(uint2 w) {
    const u32 flipped[2] = {flip_signs(w.x), flip_signs(w.y)};
    Vec8 out;
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) out.e[i] = flipped_byte(flipped[i / 4u], i % 4u);
    return out;
}
__device__ __forceinline__ float dot8(const Vec8& a, const Vec8& b, float sum) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) sum = fmaf(a.e[i], b.e[i], sum);
    return sum;
}
// (a, b) turned by an angle.
__device__ __forceinline__ float2 turned(float a, float b, float cosine, float sine) {
    return make_float2(a * cosine - b * sine, a * sine + b * cosine);
}
__device__ __forceinline__ u32 least(u32 a, u32 b) { return a < b ? a : b; }
__device__ __forceinline__ u32 ceil_div(u32 a, u32 b) { return (a + b - 1u) / b; }
constexpr float LOWEST_FLOAT = -3.4028234663852886e38f; // the lowest finite f32

__device__ __forceinline__ float subgroup_sum(float v) {
#pragma unroll
    for (u32 offset = SUBGROUP / 2u; offset > 0u; offset /= 2u) v += __shfl_xor_sync(ALL_LANES, v, offset);
    return v;
}
__device__ __forceinline__ float subgroup_max(float v) {
#pragma unroll
    for (u32 offset = SUBGROUP / 2u; offset > 0u; offset /= 2u) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, offset));
    return v;
}
__device__ __forceinline__ u32 subgroup_min(u32 v) {
#pragma unroll
    for (u32 offset = SUBGROUP / 2u; offset > 0u; offset /= 2u) v = least(v, __shfl_xor_sync(ALL_LANES, v, offset));
    return v;
}
