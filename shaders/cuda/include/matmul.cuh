// What the matrix products have in common.
struct Params {
    u32 blocks;     // columns of x / 32
    u32 cols;       // columns that this buffer of the weight makes
    u32 out_stride; // columns of out
    u32 first_row;  // of the weight in this buffer
    u32 rows;       // ROWS_TOKENS or ROWS_LOGITS
    u32 flags;      // ACCUMULATE, BIAS
    u32 grid_width; // workgroups along x, where wide matrices fold into y
    float norm_eps; // read where x is normalised
};
constexpr u32 ACCUMULATE = 1u; // add to out
constexpr u32 BIAS = 2u;       // add bias[row of the weight]

__device__ __forceinline__ float bias_of(const Params& params, const float* __restrict__ bias, u32 weight_row) {
    return (params.flags & BIAS) != 0u ? __ldg(bias + weight_row) : 0.0f;
}

// One element of the result, in row `row` and the buffer's column `col`.
__device__ __forceinline__ void write_product(
    const Params& params, const float* __restrict__ bias, float* __restrict__ out, u32 row, u32 col, float value
) {
    const u32 column = params.first_row + col;
    const u32 at = row * params.out_stride + column;
    value += bias_of(params, bias, column);
    if ((params.flags & ACCUMULATE) != 0u) value += out[at];
    out[at] = value;
}
