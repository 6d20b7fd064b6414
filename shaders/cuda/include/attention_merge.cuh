// The end of the decode kernels: each subgroup has a softmax over keys of its own, and they merge in their order.
constexpr u32 SUBGROUPS = WG / SUBGROUP;

struct __align__(16) Results {
    float acc[SUBGROUPS][HEADS_PER_GROUP][HEAD_DIM]; // sums of V, weighted by exp(score - max)
    float2 stats[SUBGROUPS][HEADS_PER_GROUP];        // (max, sum of the weights)
};

__device__ __forceinline__ void merge_subgroups(
    const Results& results,
    const WorkItem& item,
    const Query& its,
    u32 first_head,
    float4* __restrict__ out,
    float4* __restrict__ partial_out,
    float2* __restrict__ partial_stats
) {
    // An invocation for each head and quad of elements.
    for (u32 i = threadIdx.x; i < HEADS_PER_GROUP * (HEAD_DIM / 4u); i += WG) {
        const u32 g = i / (HEAD_DIM / 4u);
        const u32 quad = i % (HEAD_DIM / 4u);
        float top = LOWEST;
        for (u32 t = 0u; t < SUBGROUPS; t++) top = fmaxf(top, results.stats[t][g].x);
        float sum = 0.0f;
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (u32 t = 0u; t < SUBGROUPS; t++) {
            const float2 stats = results.stats[t][g];
            const float weight = __expf(stats.x - top);
            const float4 part = *(const float4*)&results.acc[t][g][quad * 4u];
            sum = fmaf(weight, stats.y, sum);
            value.x = fmaf(weight, part.x, value.x);
            value.y = fmaf(weight, part.y, value.y);
            value.z = fmaf(weight, part.z, value.z);
            value.w = fmaf(weight, part.w, value.w);
        }
        value = make_float4(value.x / sum, value.y / sum, value.z / sum, value.w / sum);
        const u32 head = first_head + g;
        const u32 partial = its.partials + item.split;
        if (its.partials == NO_PARTIAL) {
            out[(its.token * HEADS + head) * (HEAD_DIM / 4u) + quad] = value;
        } else {
            partial_out[(partial * HEADS + head) * (HEAD_DIM / 4u) + quad] = value;
            if (quad == 0u) partial_stats[partial * HEADS + head] = make_float2(top, sum);
        }
    }
}
