// Weights in f16: [rows][cols / 8], eight halves in a uint4, the lower half first.
#define WEIGHT_ARGUMENTS const uint4* __restrict__ weights
#define WEIGHT_PLANES Planes{weights}
struct Planes { const uint4* weights; };

__device__ __forceinline__ Vec8 weights8(Planes planes, u32 octet) {
    const uint4 w = __ldg(planes.weights + octet);
    const float2 a = unpack_halves(w.x), b = unpack_halves(w.y), c = unpack_halves(w.z), d = unpack_halves(w.w);
    return Vec8{{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}

// For tensor cores: an octet of halves, exactly the weights.
#define WEIGHT_BF16 false
#define WEIGHT_HAS_SCALE false
#define WEIGHT_HAS_MINIMUM false
__device__ __forceinline__ uint4 halves8(Planes planes, u32 octet) { return __ldg(planes.weights + octet); }
__device__ __forceinline__ float2 block_scale(Planes, u32) { return make_float2(1.0f, 0.0f); }
