// x as halves, after the norm that is folded into the product: what matmul_tensor multiplies. A workgroup for each row.
struct Params {
    u32 blocks; // columns / 32
    float norm_eps;
};

extern "C" __global__ void __launch_bounds__(WG) round_rows(
    Step step,
    INPUT_ARGUMENTS,            // [R][blocks * 8]
    uint4* __restrict__ halves, // [R][blocks * 4]
    Params params
) {
    const u32 octets = params.blocks * 4u;
    const u32 row = blockIdx.x * octets;
    float squares = 0.0f;
    if (NORMED) {
        for (u32 octet = threadIdx.x; octet < octets; octet += WG) {
            const Vec8 v = vec8(x[2u * (row + octet)], x[2u * (row + octet) + 1u]);
            squares = dot8(v, v, squares);
        }
        squares = workgroup_sum(squares);
    }
    const float factor = inverse_rms(squares, params.blocks * 32u, params.norm_eps);
    for (u32 octet = threadIdx.x; octet < octets; octet += WG) {
        Vec8 v = weighted(vec8(x[2u * (row + octet)], x[2u * (row + octet) + 1u]), NORM_WEIGHT, octet);
#pragma unroll
        for (u32 i = 0u; i < 8u; i++) v.e[i] *= factor;
        halves[row + octet] = pack_octet(in_range_of_f16(v));
    }
}
