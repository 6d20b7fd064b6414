// out = x W^T for few rows of x: a subgroup computes COLS output columns for up to TILE rows, its lanes striding over the
// octets of x, so that each weight is read once, and no two subgroups wait for each other.
extern "C" __global__ void __launch_bounds__(WG) matvec(
    Step step,
    WEIGHT_ARGUMENTS,
    const float4* __restrict__ x,   // [R][blocks * 8]
    const float* __restrict__ bias, // [out_stride]
    float* __restrict__ out,        // [R][out_stride]
    Params params
) {
    const u32 rows = num_rows(step, params.rows);
    const u32 octets = params.blocks * 4u;
    const u32 lane = threadIdx.x % SUBGROUP;
    const u32 group = blockIdx.y * params.grid_width + blockIdx.x;
    const u32 first_col = (group * (WG / SUBGROUP) + threadIdx.x / SUBGROUP) * COLS;
    if (first_col >= params.cols || rows == 0u) return;
    float acc[TILE][COLS];
#pragma unroll
    for (u32 j = 0u; j < TILE; j++) {
#pragma unroll
        for (u32 i = 0u; i < COLS; i++) acc[j][i] = 0.0f;
    }
    // Unrolled so that several loads are under way at once.
#pragma unroll UNROLL
    for (u32 octet = lane; octet < octets; octet += SUBGROUP) {
        Vec8 w[COLS];
#pragma unroll
        for (u32 i = 0u; i < COLS; i++) {
            w[i] = weights8(WEIGHT_PLANES, least(first_col + i, params.cols - 1u) * octets + octet);
        }
#pragma unroll
        for (u32 j = 0u; j < TILE; j++) {
            const float4* at = x + 2u * (least(j, rows - 1u) * octets + octet);
            const Vec8 xs = vec8(__ldg(at), __ldg(at + 1));
#pragma unroll
            for (u32 i = 0u; i < COLS; i++) acc[j][i] = dot8(w[i], xs, acc[j][i]);
        }
    }
#pragma unroll
    for (u32 j = 0u; j < TILE; j++) {
#pragma unroll
        for (u32 i = 0u; i < COLS; i++) {
            const float sum = subgroup_sum(acc[j][i]);
            // A lane for each element, so that they are written side by side.
            if (lane == j * COLS + i && j < rows && first_col + i < params.cols) {
                write_product(params, bias, out, j, first_col + i, sum);
            }
        }
    }
}
