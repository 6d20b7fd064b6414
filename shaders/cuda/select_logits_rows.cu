// The rows whose logits are wanted: out[i] = x[logits_indices[i]].
struct Params { u32 quads; /* columns / 4 */ };

extern "C" __global__ void __launch_bounds__(WG) select_logits_rows(
    Step step,
    const float4* __restrict__ x, // [T][quads]
    float4* __restrict__ out,     // [L][quads]
    Params params
) {
    const u32 i = blockIdx.x * WG + threadIdx.x;
    if (i >= params.quads || blockIdx.y >= step[NUM_LOGITS_ROWS]) return;
    out[blockIdx.y * params.quads + i] = x[logits_index(step, blockIdx.y) * params.quads + i];
}
