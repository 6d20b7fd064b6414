// KV elements are f32. A row is HEAD_DIM elements of one head and slot.
typedef float2 KvPair;
struct __align__(16) KvOctet { float4 lo, hi; };
__device__ __forceinline__ KvPair pack_pair(float2 v) { return v; }
__device__ __forceinline__ Vec8 unpack_octet(const KvOctet& w) { return vec8(w.lo, w.hi); }
__device__ __forceinline__ float4 unpack_quad(const KvOctet& w, u32 half) { return half ? w.hi : w.lo; }
__device__ __forceinline__ float2 unpack_pair(KvPair w) { return w; }
