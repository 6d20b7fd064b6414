// A product as it is: one row of the weight for each column of out.
constexpr u32 PARTS = 1u;
constexpr u32 WIDTH = 1u;
#define OUTPUT_ARGUMENTS float* __restrict__ out
#define OUTPUTS Outputs{out}
struct Outputs { float* out; };
__device__ __forceinline__ u32 weight_row(const Params& params, u32 col, u32 part) { return least(col, params.cols - 1u); }
__device__ __forceinline__ void finish(
    Step step, const Params& params, const float* __restrict__ bias, Outputs to, u32 row, u32 col, const float (&sums)[1]
) {
    write_product(params, bias, to.out, row, col, sums[0]);
}
