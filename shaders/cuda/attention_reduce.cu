// Merges the partial results of decode tokens whose keys were split, in split order.
struct Params { u32 first_item; /* of those that are launched */ };

extern "C" __global__ void __launch_bounds__(WG) attention_reduce(
    Step step,
    const float2* __restrict__ partial_out,   // [partial][HEADS][D / 2], normalised
    const float2* __restrict__ partial_stats, // [partial][HEADS] (max, sum)
    float2* __restrict__ out,                 // [T][HEADS][D / 2]
    Params params
) {
    if (params.first_item + blockIdx.x >= step[NUM_REDUCE_ITEMS]) return;
    const ReduceItem item = reduce_item(step, params.first_item + blockIdx.x);
    const u32 head = blockIdx.y;
    // Unrolled so that several loads are under way at once.
    float top = partial_stats[item.first * HEADS + head].x;
#pragma unroll 8
    for (u32 i = 1u; i < item.count; i++) top = fmaxf(top, partial_stats[(item.first + i) * HEADS + head].x);
    for (u32 d = threadIdx.x; d < HEAD_DIM / 2u; d += WG) {
        float sum = 0.0f;
        float2 value = make_float2(0.0f, 0.0f);
#pragma unroll 8
        for (u32 i = 0u; i < item.count; i++) {
            const u32 row = (item.first + i) * HEADS + head;
            const float2 stats = partial_stats[row];
            const float2 part = partial_out[row * (HEAD_DIM / 2u) + d];
            const float weight = __expf(stats.x - top) * stats.y;
            sum += weight;
            value.x = fmaf(weight, part.x, value.x);
            value.y = fmaf(weight, part.y, value.y);
        }
        out[(item.token * HEADS + head) * (HEAD_DIM / 2u) + d] = make_float2(value.x / sum, value.y / sum);
    }
}
