// Paged attention (Kwon et al. 2023) for decode, a block at a time: a subgroup takes one query token against the keys of a
// whole block at once, two lanes to a key; then its lanes share the elements of V. The subgroups of a workgroup take turns
// at the blocks of a work item, and merge at the end. It is measured against attention_decode, which has the same arguments.
constexpr u32 PAIRS = HEAD_DIM / 2u;
constexpr u32 REGISTERS = (PAIRS + SUBGROUP - 1u) / SUBGROUP;
constexpr u32 KEY_LANES = SUBGROUP / BLOCK_SIZE; // lanes that share a key

extern "C" __global__ void __launch_bounds__(WG) attention_decode_block(
    Step step,
    const float4* __restrict__ q,       // [T][HEADS][D / 4]
    const KvOctet* __restrict__ k_pool, // [block][KV_HEADS] pages
    const KvPair* __restrict__ v_pool,  // the same elements
    float4* __restrict__ out,           // [T][HEADS][D / 4]
    float4* __restrict__ partial_out,   // [partial][HEADS][D / 4], normalised
    float2* __restrict__ partial_stats, // [partial][HEADS] (max, sum)
    Params params
) {
    __shared__ Results results;
    __shared__ float4 q_rows[HEADS_PER_GROUP][HEAD_DIM / 4u];
    if (params.first_item + blockIdx.x >= step[NUM_DECODE_ITEMS]) return;
    const WorkItem item = work_item(step, params.items_at, params.first_item + blockIdx.x);
    const Query its = query(step, item, 0u);
    const u32 kv_head = blockIdx.y / (GROUP / HEADS_PER_GROUP);
    const u32 first_head = blockIdx.y * HEADS_PER_GROUP;
    const u32 lane = threadIdx.x % SUBGROUP;
    const u32 subgroup = threadIdx.x / SUBGROUP;
    for (u32 i = threadIdx.x; i < HEADS_PER_GROUP * (HEAD_DIM / 4u); i += WG) {
        const float4 v = q[(its.token * HEADS + first_head) * (HEAD_DIM / 4u) + i];
        q_rows[i / (HEAD_DIM / 4u)][i % (HEAD_DIM / 4u)] =
            make_float4(v.x * params.scale, v.y * params.scale, v.z * params.scale, v.w * params.scale);
    }
    __syncthreads();
    float top[HEADS_PER_GROUP];
    float sum[HEADS_PER_GROUP];
    float2 acc[HEADS_PER_GROUP][REGISTERS];
#pragma unroll
    for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
        top[g] = LOWEST;
        sum[g] = 0.0f;
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) acc[g][i] = make_float2(0.0f, 0.0f);
    }
    const u32 end_block = ceil_div(item.key_end, BLOCK_SIZE);
    for (u32 block = item.key_begin / BLOCK_SIZE + subgroup; block < end_block; block += SUBGROUPS) {
        // Keys outside are read as the last one, since what lies there may be NaN, and weigh nothing.
        const u32 wanted = block * BLOCK_SIZE + lane / KEY_LANES;
        const bool valid = wanted >= item.key_begin && wanted < item.key_end;
        const KvRow k_row = row_of(step, item, kv_head, least(wanted, item.key_end - 1u));
        float p[HEADS_PER_GROUP];
#pragma unroll
        for (u32 g = 0u; g < HEADS_PER_GROUP; g++) p[g] = 0.0f;
#pragma unroll 2
        for (u32 octet = lane % KEY_LANES; octet < OCTETS; octet += KEY_LANES) {
            const Vec8 k = unpack_octet(k_pool[first_octet(k_row) + octet]);
            const float scale = octet_scale(k_pool, k_row, octet);
#pragma unroll
            for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
                p[g] = dot_scaled(vec8(q_rows[g][2u * octet], q_rows[g][2u * octet + 1u]), k, scale, p[g]);
            }
        }
#pragma unroll
        for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
            p[g] += __shfl_xor_sync(ALL_LANES, p[g], 1u);
            const float score = valid ? p[g] : LOWEST;
            const float new_top = fmaxf(top[g], subgroup_max(score));
            const float factor = __expf(top[g] - new_top);
            p[g] = valid ? __expf(score - new_top) : 0.0f;
            // Each key's weight stands in KEY_LANES lanes.
            sum[g] = fmaf(sum[g], factor, subgroup_sum(p[g]) / (float)KEY_LANES);
            top[g] = new_top;
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                acc[g][i].x *= factor;
                acc[g][i].y *= factor;
            }
        }
#pragma unroll 4
        for (u32 j = 0u; j < BLOCK_SIZE; j++) {
            const u32 key = least(block * BLOCK_SIZE + j, item.key_end - 1u);
            const KvRow v_row = row_of(step, item, kv_head, key);
            float weight[HEADS_PER_GROUP];
#pragma unroll
            for (u32 g = 0u; g < HEADS_PER_GROUP; g++) weight[g] = __shfl_sync(ALL_LANES, p[g], j * KEY_LANES);
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                const u32 pair = least(i * SUBGROUP + lane, PAIRS - 1u);
                const float2 v = unpack_pair(v_pool[first_octet(v_row) * 4u + pair]);
                const float scale = octet_scale(v_pool, v_row, pair / 4u);
#pragma unroll
                for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
                    acc[g][i].x = fmaf(weight[g], v.x * scale, acc[g][i].x);
                    acc[g][i].y = fmaf(weight[g], v.y * scale, acc[g][i].y);
                }
            }
        }
    }
#pragma unroll
    for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
        if (lane == 0u) results.stats[subgroup][g] = make_float2(top[g], sum[g]);
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) {
            const u32 pair = i * SUBGROUP + lane;
            if (pair < PAIRS) {
                results.acc[subgroup][g][2u * pair] = acc[g][i].x;
                results.acc[subgroup][g][2u * pair + 1u] = acc[g][i].y;
            }
        }
    }
    __syncthreads();
    merge_subgroups(results, item, its, first_head, out, partial_out, partial_stats);
}
