// Paged attention (Kwon et al. 2023) for decode: a workgroup takes one query token and one KV head's HEADS_PER_GROUP query
// heads over a work item's keys. A team of LANES lanes shares a key, each lane with every LANES-th octet of the head; a
// team takes KEYS keys at once (`keys_*.cuh` says how), and keeps its own running softmax, so that the loop needs no
// barrier; the teams merge at the end, in a fixed order.
struct Softmax {
    float top[HEADS_PER_GROUP]; // largest score so far
    float sum[HEADS_PER_GROUP]; // of exp(score - top)
    Vec8 acc[HEADS_PER_GROUP][REGISTERS];
};

// Takes KEYS more scores of head g; s becomes their weights.
__device__ __forceinline__ void rescale(Softmax& state, u32 g, float (&s)[KEYS][HEADS_PER_GROUP]) {
    float top = state.top[g];
#pragma unroll
    for (u32 u = 0u; u < KEYS; u++) top = fmaxf(top, s[u][g]);
    const float factor = __expf(state.top[g] - top);
    float sum = state.sum[g] * factor;
#pragma unroll
    for (u32 u = 0u; u < KEYS; u++) {
        s[u][g] = s[u][g] > LOWEST ? __expf(s[u][g] - top) : 0.0f;
        sum += s[u][g];
    }
    state.top[g] = top;
    state.sum[g] = sum;
#pragma unroll
    for (u32 i = 0u; i < REGISTERS; i++) {
#pragma unroll
        for (u32 e = 0u; e < 8u; e++) state.acc[g][i].e[e] *= factor;
    }
}

// Merges the teams of a subgroup: afterwards all of them hold the same.
__device__ __forceinline__ void merge_teams(Softmax& state) {
#pragma unroll
    for (u32 offset = LANES; offset < SUBGROUP; offset *= 2u) {
#pragma unroll
        for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
            const float top = fmaxf(state.top[g], __shfl_xor_sync(ALL_LANES, state.top[g], offset));
            const float factor = __expf(state.top[g] - top);
            state.top[g] = top;
            state.sum[g] *= factor;
            state.sum[g] += __shfl_xor_sync(ALL_LANES, state.sum[g], offset);
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
#pragma unroll
                for (u32 e = 0u; e < 8u; e++) {
                    const float mine = state.acc[g][i].e[e] * factor;
                    state.acc[g][i].e[e] = mine + __shfl_xor_sync(ALL_LANES, mine, offset);
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(WG) attention_decode(
    Step step,
    const float4* __restrict__ q,       // [T][HEADS][D / 4]
    const KvOctet* __restrict__ k_pool, // [block][KV_HEADS] pages
    const KvOctet* __restrict__ v_pool, // the same shape
    float4* __restrict__ out,           // [T][HEADS][D / 4]
    float4* __restrict__ partial_out,   // [partial][HEADS][D / 4], normalised
    float2* __restrict__ partial_stats, // [partial][HEADS] (max, sum)
    Params params
) {
    __shared__ Results results;
    if (params.first_item + blockIdx.x >= step[NUM_DECODE_ITEMS]) return;
    const WorkItem item = work_item(step, params.items_at, params.first_item + blockIdx.x);
    const Query its = query(step, item, 0u);
    const u32 kv_head = blockIdx.y / (GROUP / HEADS_PER_GROUP);
    const u32 first_head = blockIdx.y * HEADS_PER_GROUP;
    const u32 lane = threadIdx.x % LANES;
    const u32 team = threadIdx.x / LANES;
    Keys keys = begin_keys(KeySource{step, item, kv_head, k_pool, v_pool});
    Vec8 q_row[HEADS_PER_GROUP][REGISTERS];
    Softmax state;
#pragma unroll
    for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
        state.top[g] = LOWEST;
        state.sum[g] = 0.0f;
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) {
            const u32 octet = i * LANES + lane;
            const float4* at = q + (its.token * HEADS + first_head + g) * (HEAD_DIM / 4u) + 2u * least(octet, OCTETS - 1u);
            q_row[g][i] = vec8(at[0], at[1]);
            const float scale = octet < OCTETS ? params.scale : 0.0f;
#pragma unroll
            for (u32 e = 0u; e < 8u; e++) {
                q_row[g][i].e[e] *= scale;
                state.acc[g][i].e[e] = 0.0f;
            }
        }
    }
    for (u32 first = item.key_begin; first < item.key_end; first += ROUND_KEYS) {
        const Round round = take_round(keys, first);
        float s[KEYS][HEADS_PER_GROUP];
#pragma unroll
        for (u32 u = 0u; u < KEYS; u++) {
#pragma unroll
            for (u32 g = 0u; g < HEADS_PER_GROUP; g++) s[u][g] = 0.0f;
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                const Vec8 row = unpack_octet(round.k[u][i]);
#pragma unroll
                for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
                    s[u][g] = dot_scaled(q_row[g][i], row, round.k_scale[u][i], s[u][g]);
                }
            }
        }
#pragma unroll
        for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
#pragma unroll
            for (u32 u = 0u; u < KEYS; u++) {
#pragma unroll
                for (u32 offset = LANES / 2u; offset > 0u; offset /= 2u) {
                    s[u][g] += __shfl_xor_sync(ALL_LANES, s[u][g], offset);
                }
                if (first + u * TEAMS + team >= item.key_end) s[u][g] = LOWEST;
            }
            rescale(state, g, s);
        }
#pragma unroll
        for (u32 u = 0u; u < KEYS; u++) {
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                const Vec8 row = unpack_octet(round.v[u][i]);
#pragma unroll
                for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
                    const float weight = s[u][g] * round.v_scale[u][i];
#pragma unroll
                    for (u32 e = 0u; e < 8u; e++) {
                        state.acc[g][i].e[e] = fmaf(weight, row.e[e], state.acc[g][i].e[e]);
                    }
                }
            }
        }
    }
    merge_teams(state);
    // Every team of a subgroup holds the same: its first one shows it.
    if (threadIdx.x % SUBGROUP < LANES) {
        const u32 subgroup = threadIdx.x / SUBGROUP;
#pragma unroll
        for (u32 g = 0u; g < HEADS_PER_GROUP; g++) {
            if (lane == 0u) results.stats[subgroup][g] = make_float2(state.top[g], state.sum[g]);
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                const u32 octet = i * LANES + lane;
                if (octet < OCTETS) {
#pragma unroll
                    for (u32 e = 0u; e < 8u; e++) results.acc[subgroup][g][octet * 8u + e] = state.acc[g][i].e[e];
                }
            }
        }
    }
    __syncthreads();
    merge_subgroups(results, item, its, first_head, out, partial_out, partial_stats);
}
