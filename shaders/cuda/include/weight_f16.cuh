// Weights in f16: [rows][cols / 8], eight halves in a uint4, the lower half first.
#define WEIGHT_ARGUMENTS const uint4* __restrict__ weights
#define WEIGHT_PLANES Planes{weights}
struct Planes { const uint4* weights; };

typedef uint4 RawOctet;
constexpr bool WEIGHT_IS_HALVES = true;

__device__ __forceinline__ RawOctet raw_octet(Planes planes, u32 octet) { return __ldg(planes.weights + octet); }
__device__ __forceinline__ Vec8 weights_of(const RawOctet& w) {
    const float2 a = unpack_halves(w.x), b = unpack_halves(w.y), c = unpack_halves(w.z), d = unpack_halves(w.w);
    return Vec8{{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}
