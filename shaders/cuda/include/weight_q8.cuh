// Weights in Q8_0, repacked: a plane of signed bytes [rows][cols / 8], eight in a uint2, and a plane of f16 scales
// [rows * cols / 32]. w = d * q.
#define WEIGHT_ARGUMENTS const uint2* __restrict__ weights, const u16* __restrict__ scales
#define WEIGHT_PLANES Planes{weights, scales}
struct Planes { const uint2* weights; const u16* scales; };

// The integers q of an octet.
__device__ __forceinline__ Vec8 quants8(Planes planes, u32 octet) { return signed_bytes(__ldg(planes.weights + octet)); }
__device__ __forceinline__ float2 block_scale(Planes planes, u32 block) {
    return make_float2(half_to_float(__ldg(planes.scales + block)), 0.0f);
}
__device__ __forceinline__ Vec8 weights8(Planes planes, u32 octet) {
    Vec8 out = quants8(planes, octet);
    const float scale = block_scale(planes, octet / 4u).x;
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) out.e[i] *= scale;
    return out;
}

// For tensor cores: the integers, exactly, as halves.
#define WEIGHT_BF16 false
#define WEIGHT_HAS_SCALE true
#define WEIGHT_HAS_MINIMUM false
__device__ __forceinline__ uint4 halves8(Planes planes, u32 octet) { return pack_octet(quants8(planes, octet)); }
