// Weights in Q8_0, repacked: a plane of signed bytes [rows][cols / 8], eight in a uint2, and a plane of f16 scales
// [rows * cols / 32]. w = d * q.
#define WEIGHT_ARGUMENTS const uint2* __restrict__ weights, const u16* __restrict__ scales
#define WEIGHT_PLANES Planes{weights, scales}
struct Planes { const uint2* weights; const u16* scales; };
struct RawOctet { uint2 quants; u16 scale; };
constexpr bool WEIGHT_IS_HALVES = false;

__device__ __forceinline__ RawOctet raw_octet(Planes planes, u32 octet) {
    return RawOctet{__ldg(planes.weights + octet), __ldg(planes.scales + octet / 4u)};
}
__device__ __forceinline__ Vec8 weights_of(const RawOctet& raw) {
    Vec8 out = signed_bytes(raw.quants);
    const float scale = half_to_float(raw.scale);
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) out.e[i] *= scale;
    return out;
}
