// Weights in f32: [rows][cols / 8] pairs of float4.
#define WEIGHT_ARGUMENTS const float4* __restrict__ weights
#define WEIGHT_PLANES Planes{weights}
struct Planes { const float4* weights; };

__device__ __forceinline__ Vec8 weights8(Planes planes, u32 octet) {
    return vec8(__ldg(planes.weights + 2u * octet), __ldg(planes.weights + 2u * octet + 1u));
}
