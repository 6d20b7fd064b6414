// Weights in bfloat16: [rows][cols / 8], eight of them in a uint4, the lower half first. Widening is exact.
#define WEIGHT_ARGUMENTS const uint4* __restrict__ weights
#define WEIGHT_PLANES Planes{weights}
struct Planes { const uint4* weights; };

typedef uint4 RawOctet;
constexpr bool WEIGHT_IS_HALVES = false;

__device__ __forceinline__ RawOctet raw_octet(Planes planes, u32 octet) { return __ldg(planes.weights + octet); }
__device__ __forceinline__ float low(u32 w) { return __uint_as_float(w << 16); }
__device__ __forceinline__ float high(u32 w) { return __uint_as_float(w & 0xffff0000u); }
__device__ __forceinline__ Vec8 weights_of(const RawOctet& w) {
    return Vec8{{low(w.x), high(w.x), low(w.y), high(w.y), low(w.z), high(w.z), low(w.w), high(w.w)}};
}
