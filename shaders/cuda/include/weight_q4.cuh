// Weights in Q4_1 (and Q4_0, whose minimum is -8 d exactly), repacked: a plane of nibbles [rows][cols / 8], eight
// consecutive ones in a word from its lowest bits up, and a plane of f16 pairs (d, m) [rows][cols / 32]. w = d * q + m.
#define WEIGHT_ARGUMENTS const u32* __restrict__ weights, const u32* __restrict__ scales
#define WEIGHT_PLANES Planes{weights, scales}
struct Planes { const u32* weights; const u32* scales; };
struct RawOctet { u32 quants, scale; };
constexpr bool WEIGHT_IS_HALVES = false;

__device__ __forceinline__ RawOctet raw_octet(Planes planes, u32 octet) {
    return RawOctet{__ldg(planes.weights + octet), __ldg(planes.scales + octet / 4u)};
}
// Nibbles become floats as bytes do in signed_bytes.
__device__ __forceinline__ Vec8 weights_of(const RawOctet& raw) {
    const float2 scale = unpack_halves(raw.scale);
    Vec8 out;
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) {
        const float quant = __uint_as_float(0x4b000000u | ((raw.quants >> (4u * i)) & 15u)) - 8388608.0f;
        out.e[i] = fmaf(quant, scale.x, scale.y);
    }
    return out;
}
