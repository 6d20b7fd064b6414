// Parameters and epilogue of the matrix products.
struct Params {
    u32 blocks;     // columns of x / 32
    u32 cols;       // rows of the weight in this buffer
    u32 out_stride; // columns of out
    u32 out_offset; // first of out's columns that this buffer fills
    u32 rows;       // ROWS_TOKENS or ROWS_LOGITS
    u32 accumulate; // 1: add to out
    u32 has_bias;   // 1: add bias[column of out]
    u32 grid_width; // workgroups along x, where wide matrices fold into y
};

// One element of the result, in row `row` and the buffer's column `col`.
__device__ __forceinline__ void write_product(
    const Params& params, const float* __restrict__ bias, float* __restrict__ out, u32 row, u32 col, float value
) {
    const u32 column = params.out_offset + col;
    const u32 at = row * params.out_stride + column;
    if (params.has_bias == 1u) value += __ldg(bias + column);
    if (params.accumulate == 1u) value += out[at];
    out[at] = value;
}
