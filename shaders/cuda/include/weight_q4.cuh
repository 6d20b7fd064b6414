// Weights in Q4_1 (and Q4_0, whose minimum is -8 d exactly), repacked: a plane of nibbles [rows][cols / 8], eight
// consecutive ones in a word from its lowest bits up, and a plane of f16 pairs (d, m) [rows][cols / 32]. w = d * q + m.
#define WEIGHT_ARGUMENTS const u32* __restrict__ weights, const u32* __restrict__ scales
#define WEIGHT_PLANES Planes{weights, scales}
struct Planes { const u32* weights; const u32* scales; };

// The integers q of an octet; nibbles become floats as bytes do in weight_q8.cuh.
__device__ __forceinline__ Vec8 quants8(Planes planes, u32 octet) {
    const u32 w = __ldg(planes.weights + octet);
    Vec8 out;
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) out.e[i] = __uint_as_float(0x4b000000u | ((w >> (4u * i)) & 15u)) - 8388608.0f;
    return out;
}
__device__ __forceinline__ float2 block_scale(Planes planes, u32 block) {
    return unpack_halves(__ldg(planes.scales + block));
}
__device__ __forceinline__ Vec8 weights8(Planes planes, u32 octet) {
    Vec8 out = quants8(planes, octet);
    const float2 scale = block_scale(planes, octet / 4u);
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) out.e[i] = fmaf(out.e[i], scale.x, scale.y);
    return out;
}

// For tensor cores: the integers, exactly, as halves.
#define WEIGHT_BF16 false
#define WEIGHT_HAS_SCALE true
#define WEIGHT_HAS_MINIMUM true
__device__ __forceinline__ uint4 halves8(Planes planes, u32 octet) { return pack_octet(quants8(planes, octet)); }
