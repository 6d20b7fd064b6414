// Root mean square normalisation (Zhang and Sennrich 2019): one workgroup for each row.
struct Params {
    u32 quads; // columns / 4
    float eps;
};

extern "C" __global__ void __launch_bounds__(WG) rms_norm(
    Step step,
    const float4* __restrict__ x,      // [R][quads]
    const float4* __restrict__ weight, // [quads]
    float4* __restrict__ out,          // [R][quads]
    Params params
) {
    const u32 row = blockIdx.x * params.quads;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < params.quads; i += WG) {
        const float4 v = x[row + i];
        sum = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, sum))));
    }
    const float mean = workgroup_sum(sum) / (float)(params.quads * 4u);
    const float scale = 1.0f / sqrtf(mean + params.eps);
    for (u32 i = threadIdx.x; i < params.quads; i += WG) {
        const float4 v = x[row + i];
        const float4 w = __ldg(weight + i);
        out[row + i] = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    }
}
