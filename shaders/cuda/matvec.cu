// out = x W^T for few rows of x: a subgroup sums over COLS rows of the weight for up to TILE rows of x, its lanes striding
// over the octets of x, so that each weight is read once, and no two subgroups wait for each other.
constexpr u32 OUT_COLS = COLS / PARTS;

extern "C" __global__ void __launch_bounds__(WG) matvec(
    Step step,
    WEIGHT_ARGUMENTS,
    INPUT_ARGUMENTS,                // [R][blocks * 8]
    const float* __restrict__ bias, // [rows of the weight]
    OUTPUT_ARGUMENTS,
    Params params
) {
    const u32 rows = num_rows(step, params.rows);
    const u32 octets = params.blocks * 4u;
    const u32 lane = threadIdx.x % SUBGROUP;
    const u32 group = blockIdx.y * params.grid_width + blockIdx.x;
    const u32 first_col = (group * (WG / SUBGROUP) + threadIdx.x / SUBGROUP) * OUT_COLS;
    if (first_col >= params.cols || rows == 0u) return;
    float acc[TILE][COLS];
    float squares[TILE];
#pragma unroll
    for (u32 j = 0u; j < TILE; j++) {
        squares[j] = 0.0f;
#pragma unroll
        for (u32 i = 0u; i < COLS; i++) acc[j][i] = 0.0f;
    }
    // Unrolled so that several loads are under way at once.
#pragma unroll UNROLL
    for (u32 octet = lane; octet < octets; octet += SUBGROUP) {
        Vec8 w[COLS];
#pragma unroll
        for (u32 i = 0u; i < COLS; i++) {
            const u32 row = weight_row(params, first_col + i % OUT_COLS, i / OUT_COLS);
            w[i] = weights_of(raw_octet(WEIGHT_PLANES, row * octets + octet));
        }
#pragma unroll
        for (u32 j = 0u; j < TILE; j++) {
            const float4* at = x + 2u * (least(j, rows - 1u) * octets + octet);
            const Vec8 v = vec8(__ldg(at), __ldg(at + 1));
            if (NORMED) squares[j] = dot8(v, v, squares[j]);
            const Vec8 xs = weighted(v, NORM_WEIGHT, octet);
#pragma unroll
            for (u32 i = 0u; i < COLS; i++) acc[j][i] = dot8(w[i], xs, acc[j][i]);
        }
    }
#pragma unroll
    for (u32 j = 0u; j < TILE; j++) {
        float factor = 1.0f;
        if (NORMED) factor = inverse_rms(subgroup_sum(squares[j]), params.blocks * 32u, params.norm_eps);
#pragma unroll
        for (u32 i = 0u; i < OUT_COLS; i += WIDTH) {
            float sums[PARTS * WIDTH];
#pragma unroll
            for (u32 s = 0u; s < PARTS * WIDTH; s++) {
                sums[s] = subgroup_sum(acc[j][s / WIDTH * OUT_COLS + i + s % WIDTH]) * factor;
            }
            // A lane for each, so that they are written side by side.
            if (lane == (j * OUT_COLS + i) / WIDTH && j < rows && first_col + i < params.cols) {
                finish(step, params, bias, OUTPUTS, j, first_col + i, sums);
            }
        }
    }
}
