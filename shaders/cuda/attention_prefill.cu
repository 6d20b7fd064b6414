// Paged attention (Kwon et al. 2023) for prefill and chunked prefill: flash tiles (Dao et al. 2022, arXiv:2205.14135). A
// workgroup takes an item's query tokens times HEADS_PER_GROUP heads of one KV head, and walks the keys KEYS at a time, K and V
// staged in workgroup memory. A team of 16 lanes owns four rows: it computes their scores, a key in each lane, and then
// their weighted sum of V, every 16th quad of the head in each lane. Tokens of several sequences that share their keys give
// a partial result each.
constexpr u32 TEAM_ROWS = 4u;
constexpr u32 LANES = 16u;
constexpr u32 ROWS = WG / LANES * TEAM_ROWS; // those past the item's are not written
constexpr u32 LANE_KEYS = KEYS / LANES;
constexpr u32 REGISTERS = (QUADS + LANES - 1u) / LANES;

// A staged row. Room for eight scales at least, also where there are none, lets neighbouring rows begin in different banks.
constexpr u32 SCALE_ROOM = ROW_SCALES > 8u ? (ROW_SCALES + 7u) / 8u * 8u : 8u;
struct StagedRow { KvOctet octets[OCTETS]; u16 scales[SCALE_ROOM]; };
__device__ __forceinline__ float staged_scale(const StagedRow& row, u32 octet) {
    if (ROW_SCALES == 0u) return 1.0f;
    return half_to_float(row.scales[octet * 8u / SCALE_GROUP]);
}

__device__ __forceinline__ float team_max(float v) {
#pragma unroll
    for (u32 offset = LANES / 2u; offset > 0u; offset /= 2u) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, offset));
    return v;
}
__device__ __forceinline__ float team_sum(float v) {
#pragma unroll
    for (u32 offset = LANES / 2u; offset > 0u; offset /= 2u) v += __shfl_xor_sync(ALL_LANES, v, offset);
    return v;
}

extern "C" __global__ void __launch_bounds__(WG) attention_prefill(
    Step step,
    const float4* __restrict__ q,       // [T][HEADS][D / 4]
    const KvOctet* __restrict__ k_pool, // [block][KV_HEADS] pages
    const KvOctet* __restrict__ v_pool, // the same shape
    float4* __restrict__ out,           // [T][HEADS][D / 4]
    float4* __restrict__ partial_out,   // [partial][HEADS][D / 4], normalised
    float2* __restrict__ partial_stats, // [partial][HEADS] (max, sum)
    Params params
) {
    __shared__ float4 q_rows[ROWS][QUADS];
    __shared__ StagedRow k_rows[KEYS];
    __shared__ StagedRow v_rows[KEYS];
    __shared__ float weights[ROWS][KEYS];
    if (params.first_item + blockIdx.x >= step[NUM_PREFILL_ITEMS]) return;
    const WorkItem item = work_item(step, params.items_at, params.first_item + blockIdx.x);
    const u32 kv_head = blockIdx.y / (GROUP / HEADS_PER_GROUP);
    const u32 first_head = blockIdx.y * HEADS_PER_GROUP;
    for (u32 i = threadIdx.x; i < ROWS * QUADS; i += WG) {
        const u32 r = i / QUADS;
        const u32 token = query(step, item, r / HEADS_PER_GROUP).token;
        const float4 v = q[(token * HEADS + first_head + r % HEADS_PER_GROUP) * QUADS + i % QUADS];
        q_rows[r][i % QUADS] =
            make_float4(v.x * params.scale, v.y * params.scale, v.z * params.scale, v.w * params.scale);
    }
    const u32 first_row = threadIdx.x / LANES * TEAM_ROWS;
    const u32 lane = threadIdx.x % LANES;
    float4 acc[TEAM_ROWS][REGISTERS];
    float row_max[TEAM_ROWS];
    float row_sum[TEAM_ROWS];
    u32 last_key[TEAM_ROWS];
#pragma unroll
    for (u32 j = 0u; j < TEAM_ROWS; j++) {
        row_max[j] = LOWEST;
        row_sum[j] = 0.0f;
        last_key[j] = position(step, query(step, item, (first_row + j) / HEADS_PER_GROUP).token);
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) acc[j][i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    for (u32 first_key = item.key_begin; first_key < item.key_end; first_key += KEYS) {
        const u32 num_keys = least(KEYS, item.key_end - first_key);
        __syncthreads();
        for (u32 i = threadIdx.x; i < KEYS * OCTETS; i += WG) {
            // Slots past the end may hold NaN: stage a valid one instead.
            const KvRow row = row_of(step, item, kv_head, first_key + least(i / OCTETS, num_keys - 1u));
            const u32 at = first_octet(row) + i % OCTETS;
            k_rows[i / OCTETS].octets[i % OCTETS] = k_pool[at];
            v_rows[i / OCTETS].octets[i % OCTETS] = v_pool[at];
        }
        for (u32 key = threadIdx.x; ROW_SCALES > 0u && key < KEYS; key += WG) {
            const u32 at = first_scale(row_of(step, item, kv_head, first_key + least(key, num_keys - 1u)));
            for (u32 i = 0u; i < ROW_SCALES; i++) {
                k_rows[key].scales[i] = ((const u16*)k_pool)[at + i];
                v_rows[key].scales[i] = ((const u16*)v_pool)[at + i];
            }
        }
        __syncthreads();
        float s[TEAM_ROWS][LANE_KEYS] = {};
        for (u32 octet = 0u; octet < OCTETS; octet++) {
            Vec8 k[LANE_KEYS];
            float scale[LANE_KEYS];
#pragma unroll
            for (u32 i = 0u; i < LANE_KEYS; i++) {
                k[i] = unpack_octet(k_rows[i * LANES + lane].octets[octet]);
                scale[i] = staged_scale(k_rows[i * LANES + lane], octet);
            }
#pragma unroll
            for (u32 j = 0u; j < TEAM_ROWS; j++) {
                const Vec8 row = vec8(q_rows[first_row + j][2u * octet], q_rows[first_row + j][2u * octet + 1u]);
#pragma unroll
                for (u32 i = 0u; i < LANE_KEYS; i++) s[j][i] = dot_scaled(row, k[i], scale[i], s[j][i]);
            }
        }
#pragma unroll
        for (u32 j = 0u; j < TEAM_ROWS; j++) {
            float top = row_max[j];
#pragma unroll
            for (u32 i = 0u; i < LANE_KEYS; i++) {
                const u32 key = i * LANES + lane;
                if (key >= num_keys || first_key + key > last_key[j]) s[j][i] = LOWEST;
                top = fmaxf(top, s[j][i]);
            }
            top = team_max(top);
            const float factor = __expf(row_max[j] - top);
            row_max[j] = top;
            row_sum[j] *= factor; // each lane sums its own keys; the lanes merge at the end
#pragma unroll
            for (u32 i = 0u; i < LANE_KEYS; i++) {
                const float p = s[j][i] > LOWEST ? __expf(s[j][i] - top) : 0.0f;
                row_sum[j] += p;
                weights[first_row + j][i * LANES + lane] = p;
            }
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                acc[j][i].x *= factor;
                acc[j][i].y *= factor;
                acc[j][i].z *= factor;
                acc[j][i].w *= factor;
            }
        }
        __syncwarp(); // a team lies within one subgroup
        for (u32 key = 0u; key < KEYS; key++) {
            float p[TEAM_ROWS];
#pragma unroll
            for (u32 j = 0u; j < TEAM_ROWS; j++) p[j] = weights[first_row + j][key];
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                const u32 quad = least(i * LANES + lane, QUADS - 1u);
                const float4 v = unpack_quad(v_rows[key].octets[quad / 2u], quad % 2u);
                const float scale = staged_scale(v_rows[key], quad / 2u);
#pragma unroll
                for (u32 j = 0u; j < TEAM_ROWS; j++) {
                    const float weight = p[j] * scale;
                    acc[j][i].x = fmaf(weight, v.x, acc[j][i].x);
                    acc[j][i].y = fmaf(weight, v.y, acc[j][i].y);
                    acc[j][i].z = fmaf(weight, v.z, acc[j][i].z);
                    acc[j][i].w = fmaf(weight, v.w, acc[j][i].w);
                }
            }
        }
    }
#pragma unroll
    for (u32 j = 0u; j < TEAM_ROWS; j++) {
        const float sum = team_sum(row_sum[j]);
        const u32 row = first_row + j;
        if (row / HEADS_PER_GROUP >= item.num_queries) continue;
        const Query its = query(step, item, row / HEADS_PER_GROUP);
        const bool is_partial = its.partials != NO_PARTIAL;
        const u32 to = (is_partial ? its.partials + item.split : its.token) * HEADS + first_head + row % HEADS_PER_GROUP;
        float4* to_row = (is_partial ? partial_out : out) + to * QUADS;
        if (is_partial && lane == 0u) partial_stats[to] = make_float2(row_max[j], sum);
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) {
            const u32 quad = i * LANES + lane;
            if (quad < QUADS) {
                to_row[quad] = make_float4(acc[j][i].x / sum, acc[j][i].y / sum, acc[j][i].z / sum, acc[j][i].w / sum);
            }
        }
    }
}
