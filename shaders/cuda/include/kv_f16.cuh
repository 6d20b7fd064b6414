// KV elements are f16, two in a word, the lower half first.
typedef u32 KvPair;
typedef uint2 KvQuad;
typedef uint4 KvOctet;
__device__ __forceinline__ u32 pack_pair(float a, float b) { return pack_halves(in_range_of_f16(a), in_range_of_f16(b)); }
__device__ __forceinline__ KvQuad pack_quad(float4 v) { return make_uint2(pack_pair(v.x, v.y), pack_pair(v.z, v.w)); }
__device__ __forceinline__ Vec8 unpack_octet(const KvOctet& w) {
    const float2 a = unpack_halves(w.x), b = unpack_halves(w.y), c = unpack_halves(w.z), d = unpack_halves(w.w);
    return Vec8{{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}
__device__ __forceinline__ float4 unpack_quad(const KvOctet& w, u32 half) {
    const float2 a = unpack_halves(half ? w.z : w.x), b = unpack_halves(half ? w.w : w.y);
    return make_float4(a.x, a.y, b.x, b.y);
}
__device__ __forceinline__ float2 unpack_pair(KvPair w) { return unpack_halves(w); }
