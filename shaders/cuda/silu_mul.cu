// SwiGLU's product (Shazeer 2020): out = silu(gate) * up, gate and up side by side in one row.
struct Params { u32 quads; /* columns of out / 4 */ };

__device__ __forceinline__ float silu(float gate) { return gate / (1.0f + expf(-gate)); }

extern "C" __global__ void __launch_bounds__(WG) silu_mul(
    Step step,
    const float4* __restrict__ gate_up, // [R][2 quads]
    float4* __restrict__ out,           // [R][quads]
    Params params
) {
    const u32 i = blockIdx.x * WG + threadIdx.x;
    if (i >= params.quads) return;
    const u32 at = blockIdx.y * 2u * params.quads + i;
    const float4 gate = gate_up[at];
    const float4 up = gate_up[at + params.quads];
    out[blockIdx.y * params.quads + i] =
        make_float4(silu(gate.x) * up.x, silu(gate.y) * up.y, silu(gate.z) * up.z, silu(gate.w) * up.w);
}
