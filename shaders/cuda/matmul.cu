// out = x W^T for many rows of x: 64 x 64 tiles staged through workgroup memory, 4 x 4 outputs for each invocation, f32
// accumulation.
constexpr u32 TILE_ROWS = 64u;
constexpr u32 TILE_COLS = 64u;
constexpr u32 STRIDE = 68u; // of a staged row: whole quads, and not all in the same banks

extern "C" __global__ void __launch_bounds__(WG) matmul(
    Step step,
    WEIGHT_ARGUMENTS,
    const float4* __restrict__ x,   // [R][blocks * 8]
    const float* __restrict__ bias, // [out_stride]
    float* __restrict__ out,        // [R][out_stride]
    Params params
) {
    // [k][row of the tile], so that the product reads neighbouring rows from neighbouring addresses.
    __shared__ __align__(16) float tile_x[32][STRIDE];
    __shared__ __align__(16) float tile_w[32][STRIDE];
    const u32 rows = num_rows(step, params.rows);
    const u32 octets = params.blocks * 4u;
    const u32 first_row = blockIdx.y * TILE_ROWS;
    const u32 first_col = blockIdx.x * TILE_COLS;
    if (first_row >= rows) return;
    // Staging: an invocation loads octet `stage_octet` of row `stage_row`, of x and of the weight.
    const u32 stage_row = threadIdx.x / 4u;
    const u32 stage_octet = threadIdx.x % 4u;
    const u32 x_at = least(first_row + stage_row, rows - 1u) * octets + stage_octet;
    const u32 w_at = least(first_col + stage_row, params.cols - 1u) * octets + stage_octet;
    const u32 tile_row = threadIdx.x / 16u * 4u;
    const u32 tile_col = threadIdx.x % 16u * 4u;
    float acc[4][4] = {};
    for (u32 octet = 0u; octet < octets; octet += 4u) {
        const Vec8 w = weights_of(raw_octet(WEIGHT_PLANES, w_at + octet));
        const float4* from = x + 2u * (x_at + octet);
        const Vec8 xs = vec8(__ldg(from), __ldg(from + 1));
        __syncthreads();
#pragma unroll
        for (u32 e = 0u; e < 8u; e++) {
            tile_x[stage_octet * 8u + e][stage_row] = xs.e[e];
            tile_w[stage_octet * 8u + e][stage_row] = w.e[e];
        }
        __syncthreads();
#pragma unroll
        for (u32 k = 0u; k < 32u; k++) {
            const float4 xk = *(const float4*)&tile_x[k][tile_row];
            const float4 wk = *(const float4*)&tile_w[k][tile_col];
            const float xr[4] = {xk.x, xk.y, xk.z, xk.w};
            const float wc[4] = {wk.x, wk.y, wk.z, wk.w};
#pragma unroll
            for (u32 j = 0u; j < 4u; j++) {
#pragma unroll
                for (u32 i = 0u; i < 4u; i++) acc[j][i] = fmaf(xr[j], wc[i], acc[j][i]);
            }
        }
    }
#pragma unroll
    for (u32 j = 0u; j < 4u; j++) {
#pragma unroll
        for (u32 i = 0u; i < 4u; i++) {
            const u32 row = first_row + tile_row + j;
            const u32 col = first_col + tile_col + i;
            if (row < rows && col < params.cols) write_product(params, bias, out, row, col, acc[j][i]);
        }
    }
}
