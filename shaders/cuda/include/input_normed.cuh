// A product's input under RMS normalisation (Zhang and Sennrich 2019): the norm's weight goes to each x, and the inverse root
// of the mean square, the same for a whole row, to the finished sum. So the squares are summed on the way.
#define INPUT_ARGUMENTS const float4* __restrict__ x, const float4* __restrict__ norm_weight
#define NORM_WEIGHT norm_weight
constexpr bool NORMED = true;
__device__ __forceinline__ Vec8 weighted(const Vec8& v, const float4* norm_weight, u32 octet) {
    const Vec8 weight = vec8(__ldg(norm_weight + 2u * octet), __ldg(norm_weight + 2u * octet + 1u));
    Vec8 out;
#pragma unroll
    for (u32 i = 0u; i < 8u; i++) out.e[i] = v.e[i] * weight.e[i];
    return out;
}
__device__ __forceinline__ float inverse_rms(float squares, u32 cols, float eps) {
    return 1.0f / sqrtf(squares / (float)cols + eps);
}
