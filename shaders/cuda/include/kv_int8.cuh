// KV elements are signed bytes, four in a word, the lowest first; an element is its byte times the scale of its group. What
// is unpacked here is the bytes, not yet times their scale.
typedef u16 KvPair;
typedef u32 KvQuad;
typedef uint2 KvOctet;
__device__ __forceinline__ Vec8 unpack_octet(const KvOctet& w) { return signed_bytes(w); }
__device__ __forceinline__ float4 unpack_quad(const KvOctet& w, u32 half) {
    const u32 flipped = flip_signs(half ? w.y : w.x);
    return make_float4(
        flipped_byte(flipped, 0u), flipped_byte(flipped, 1u), flipped_byte(flipped, 2u), flipped_byte(flipped, 3u)
    );
}
__device__ __forceinline__ float2 unpack_pair(KvPair w) {
    const u32 flipped = flip_signs(w);
    return make_float2(flipped_byte(flipped, 0u), flipped_byte(flipped, 1u));
}
