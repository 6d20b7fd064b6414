// SwiGLU's product (Shazeer 2020): gate and up are the two halves of one weight, out = silu(gate) * up.
constexpr u32 PARTS = 2u;
constexpr u32 WIDTH = 1u;
#define OUTPUT_ARGUMENTS float* __restrict__ out
#define OUTPUTS Outputs{out}
struct Outputs { float* out; };
__device__ __forceinline__ u32 weight_row(const Params& params, u32 col, u32 part) {
    return part * params.cols + least(col, params.cols - 1u);
}
__device__ __forceinline__ void finish(
    Step step, const Params& params, const float* __restrict__ bias, Outputs to, u32 row, u32 col, const float (&sums)[2]
) {
    write_product(params, bias, to.out, row, col, sums[0] / (1.0f + expf(-sums[0])) * sums[1]);
}
