// KV elements are f32.
typedef float2 KvPair;
typedef float4 KvQuad;
struct __align__(16) KvOctet { float4 lo, hi; };
__device__ __forceinline__ KvPair pack_pair(float a, float b) { return make_float2(a, b); }
__device__ __forceinline__ KvQuad pack_quad(float4 v) { return v; }
__device__ __forceinline__ Vec8 unpack_octet(const KvOctet& w) { return vec8(w.lo, w.hi); }
__device__ __forceinline__ float4 unpack_quad(const KvOctet& w, u32 half) { return half ? w.hi : w.lo; }
__device__ __forceinline__ float2 unpack_pair(KvPair w) { return w; }
