// Reductions over a workgroup: within each subgroup by shuffles, then over the subgroups through workgroup memory. Every
// invocation gets the same result.
constexpr u32 SUBGROUPS = WG / SUBGROUP;

__device__ __forceinline__ float workgroup_sum(float v) {
    __shared__ float parts[SUBGROUPS];
    v = subgroup_sum(v);
    __syncthreads();
    if (threadIdx.x % SUBGROUP == 0u) parts[threadIdx.x / SUBGROUP] = v;
    __syncthreads();
    float all = parts[0];
    for (u32 i = 1u; i < SUBGROUPS; i++) all += parts[i];
    return all;
}
__device__ __forceinline__ float workgroup_max(float v) {
    __shared__ float parts[SUBGROUPS];
    v = subgroup_max(v);
    __syncthreads();
    if (threadIdx.x % SUBGROUP == 0u) parts[threadIdx.x / SUBGROUP] = v;
    __syncthreads();
    float all = parts[0];
    for (u32 i = 1u; i < SUBGROUPS; i++) all = fmaxf(all, parts[i]);
    return all;
}
__device__ __forceinline__ u32 workgroup_min(u32 v) {
    __shared__ u32 parts[SUBGROUPS];
    v = subgroup_min(v);
    __syncthreads();
    if (threadIdx.x % SUBGROUP == 0u) parts[threadIdx.x / SUBGROUP] = v;
    __syncthreads();
    u32 all = parts[0];
    for (u32 i = 1u; i < SUBGROUPS; i++) all = least(all, parts[i]);
    return all;
}
