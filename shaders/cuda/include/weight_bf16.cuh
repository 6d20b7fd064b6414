// Weights in bfloat16: [rows][cols / 8], eight of them in a uint4, the lower half first. Widening is exact.
#define WEIGHT_ARGUMENTS const uint4* __restrict__ weights
#define WEIGHT_PLANES Planes{weights}
struct Planes { const uint4* weights; };

__device__ __forceinline__ float low(u32 w) { return __uint_as_float(w << 16); }
__device__ __forceinline__ float high(u32 w) { return __uint_as_float(w & 0xffff0000u); }
__device__ __forceinline__ Vec8 weights8(Planes planes, u32 octet) {
    const uint4 w = __ldg(planes.weights + octet);
    return Vec8{{low(w.x), high(w.x), low(w.y), high(w.y), low(w.z), high(w.z), low(w.w), high(w.w)}};
}

// For tensor cores: an octet of bfloat16, exactly the weights.
#define WEIGHT_BF16 true
#define WEIGHT_HAS_SCALE false
#define WEIGHT_HAS_MINIMUM false
__device__ __forceinline__ uint4 halves8(Planes planes, u32 octet) { return __ldg(planes.weights + octet); }
__device__ __forceinline__ float2 block_scale(Planes, u32) { return make_float2(1.0f, 0.0f); }
