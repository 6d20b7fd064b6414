// Multiply-adds and nothing else: what the arithmetic units reach. Twelve sums to an invocation, each waiting only for itself.
struct Params {
    u32 rounds;   // of 48 multiply-adds each
    float factor; // below 1, so that the sums stay finite
};

extern "C" __global__ void __launch_bounds__(WG) fma_peak(
    Step step,
    float* __restrict__ out, // [invocations], so that the sums are needed
    Params params
) {
    const u32 id = blockIdx.x * WG + threadIdx.x;
    const float summand = (float)step[NUM_TOKENS];
    float sums[12];
#pragma unroll
    for (u32 i = 0u; i < 12u; i++) sums[i] = (float)((id & 7u) + i);
    for (u32 round = 0u; round < params.rounds; round++) {
#pragma unroll
        for (u32 turn = 0u; turn < 4u; turn++) {
#pragma unroll
            for (u32 i = 0u; i < 12u; i++) sums[i] = fmaf(sums[i], params.factor, summand);
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0u; i < 12u; i++) sum += sums[i];
    out[id] = sum;
}
