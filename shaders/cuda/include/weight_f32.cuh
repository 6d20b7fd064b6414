// Weights in f32: [rows][cols / 8] pairs of float4.
#define WEIGHT_ARGUMENTS const float4* __restrict__ weights
#define WEIGHT_PLANES Planes{weights}
struct Planes { const float4* weights; };

struct RawOctet { float4 lo, hi; };

__device__ __forceinline__ RawOctet raw_octet(Planes planes, u32 octet) {
    return RawOctet{__ldg(planes.weights + 2u * octet), __ldg(planes.weights + 2u * octet + 1u)};
}
__device__ __forceinline__ Vec8 weights_of(const RawOctet& raw) { return vec8(raw.lo, raw.hi); }
