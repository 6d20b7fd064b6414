// Paged attention (Kwon et al. 2023) for prefill on tensor cores, for pools of f16 and of bytes: flash tiles (Dao et al. 2022,
// arXiv:2205.14135). A workgroup takes an item's query tokens times HEADS_PER_GROUP heads of one KV head, a subgroup 16 of
// these rows; K and V are staged in workgroup memory, KEYS at a time, those of the next tile on their way while one is
// multiplied. They are exact halves there, q and the weights of V are rounded; a row's scale goes to its score, and to its
// weight. Lane 4 g + t has the scores of rows g and g + 8, which become a factor of V where they are.
constexpr u32 STEPS = HEAD_DIM / 16u; // products of 16 elements in a score
constexpr u32 TILES = HEAD_DIM / 8u;  // products of 8 columns in a row of the result
constexpr u32 KEY_TILES = KEYS / 8u;
constexpr u32 STRIDE = HEAD_DIM + 8u; // halves of a staged row: neighbouring rows begin in different banks
static_assert(ROW_SCALES <= 1u, "a key has one scale");
// Weights times scales of bytes are 127 times smaller than values; times this they keep their precision as halves, and stay in
// range.
constexpr float V_FACTOR = ROW_SCALES == 0u ? 1.0f : 64.0f;

struct Tile {
    u16 k[KEYS][STRIDE];
    u16 v[KEYS][STRIDE];
    float k_scale[KEYS], v_scale[KEYS]; // of pools that have them
};
// What an invocation brings of a tile; bytes, which become halves, pass through its registers.
constexpr u32 OWN_OCTETS = (KEYS * OCTETS + WG - 1u) / WG;
struct Coming {
    KvOctet k[OWN_OCTETS], v[OWN_OCTETS];
    float k_scale, v_scale;
};
// Begins to bring the keys from `first_key` on. Slots past the end may hold NaN: a valid one stands there instead.
__device__ __forceinline__ void begin_tile(
    Tile& tile, Coming& coming, Step step, const WorkItem& item, u32 kv_head, u32 first_key,
    const KvOctet* k_pool, const KvOctet* v_pool
) {
    const auto row_at = [&](u32 i) { return row_of(step, item, kv_head, least(first_key + i, item.key_end - 1u)); };
#pragma unroll
    for (u32 i = 0u; i < OWN_OCTETS; i++) {
        const u32 octet = least(i * WG + threadIdx.x, KEYS * OCTETS - 1u);
        const u32 at = first_octet(row_at(octet / OCTETS)) + octet % OCTETS;
        if (ROW_SCALES == 0u) {
            copy_async(&tile.k[octet / OCTETS][octet % OCTETS * 8u], k_pool + at);
            copy_async(&tile.v[octet / OCTETS][octet % OCTETS * 8u], v_pool + at);
        } else {
            coming.k[i] = k_pool[at];
            coming.v[i] = v_pool[at];
        }
    }
    if (ROW_SCALES > 0u) {
        const KvRow row = row_at(threadIdx.x % KEYS);
        coming.k_scale = octet_scale(k_pool, row, 0u);
        coming.v_scale = fminf(V_FACTOR * octet_scale(v_pool, row, 0u), 65504.0f);
    }
    close_copies();
}
__device__ __forceinline__ void end_tile(Tile& tile, const Coming& coming) {
    if (ROW_SCALES == 0u) return;
#pragma unroll
    for (u32 i = 0u; i < OWN_OCTETS; i++) {
        const u32 octet = least(i * WG + threadIdx.x, KEYS * OCTETS - 1u);
        *(uint4*)&tile.k[octet / OCTETS][octet % OCTETS * 8u] = pack_octet(unpack_octet(coming.k[i]));
        *(uint4*)&tile.v[octet / OCTETS][octet % OCTETS * 8u] = pack_octet(unpack_octet(coming.v[i]));
    }
    tile.k_scale[threadIdx.x % KEYS] = coming.k_scale;
    tile.v_scale[threadIdx.x % KEYS] = coming.v_scale;
}

// Over the four lanes that share a row.
__device__ __forceinline__ float row_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 1u));
    return fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 2u));
}
__device__ __forceinline__ float row_sum(float v) {
    v += __shfl_xor_sync(ALL_LANES, v, 1u);
    return v + __shfl_xor_sync(ALL_LANES, v, 2u);
}

extern "C" __global__ void __launch_bounds__(WG) attention_prefill_tensor(
    Step step,
    const float2* __restrict__ q,       // [T][HEADS][D / 2]
    const KvOctet* __restrict__ k_pool, // [block][KV_HEADS] pages
    const KvOctet* __restrict__ v_pool, // the same shape
    float2* __restrict__ out,           // [T][HEADS][D / 2]
    float2* __restrict__ partial_out,   // [partial][HEADS][D / 2], normalised
    float2* __restrict__ partial_stats, // [partial][HEADS] (max, sum)
    Params params
) {
    __shared__ __align__(16) Tile tiles[2];
    if (params.first_item + blockIdx.x >= step[NUM_PREFILL_ITEMS]) return;
    const WorkItem item = work_item(step, params.items_at, params.first_item + blockIdx.x);
    const u32 kv_head = blockIdx.y / (GROUP / HEADS_PER_GROUP);
    const u32 first_head = blockIdx.y * HEADS_PER_GROUP;
    const u32 lane = threadIdx.x % SUBGROUP;
    const u32 t = lane % 4u;
    Coming coming;
    begin_tile(tiles[0], coming, step, item, kv_head, item.key_begin, k_pool, v_pool);
    end_tile(tiles[0], coming);

    // The lane's two rows; those past the item's queries repeat its last one, and are not written.
    u32 number[2], head[2], last_key[2];
    Query its[2];
    float top[2], sum[2];
#pragma unroll
    for (u32 r = 0u; r < 2u; r++) {
        const u32 row = threadIdx.x / SUBGROUP * 16u + lane / 4u + r * 8u;
        number[r] = row / HEADS_PER_GROUP;
        its[r] = query(step, item, number[r]);
        head[r] = first_head + row % HEADS_PER_GROUP;
        last_key[r] = position(step, its[r].token);
        top[r] = LOWEST;
        sum[r] = 0.0f;
    }
    u32 factors[STEPS][4]; // q, scaled
#pragma unroll
    for (u32 s = 0u; s < STEPS; s++) {
#pragma unroll
        for (u32 i = 0u; i < 4u; i++) {
            const u32 at = (its[i % 2u].token * HEADS + head[i % 2u]) * (HEAD_DIM / 2u);
            const float2 v = q[at + s * 8u + t + i / 2u * 4u];
            factors[s][i] = pack_halves(in_range_of_f16(v.x * params.scale), in_range_of_f16(v.y * params.scale));
        }
    }
    float acc[TILES][4] = {};
    u32 current = 0u;
    for (u32 first_key = item.key_begin; first_key < item.key_end; first_key += KEYS) {
        const u32 num_keys = least(KEYS, item.key_end - first_key);
        wait_for_copies<0u>();
        __syncthreads(); // all have brought their part of this tile, and nobody reads the other any more
        const Tile& tile = tiles[current];
        current ^= 1u;
        const bool has_next = first_key + KEYS < item.key_end;
        if (has_next) begin_tile(tiles[current], coming, step, item, kv_head, first_key + KEYS, k_pool, v_pool);
        float scores[KEY_TILES][4] = {};
#pragma unroll
        for (u32 j = 0u; j < KEY_TILES; j++) {
#pragma unroll
            for (u32 s = 0u; s < STEPS; s += 2u) {
                u32 k[4]; // of two products, or one and nothing
                load_matrices(k, &tile.k[j * 8u + lane % 8u][least(s * 16u + lane / 8u * 8u, HEAD_DIM - 8u)]);
                const u32 first[2] = {k[0], k[1]}, second[2] = {k[2], k[3]};
                multiply_f16(scores[j], factors[s], first);
                if (s + 1u < STEPS) multiply_f16(scores[j], factors[s + 1u < STEPS ? s + 1u : s], second);
            }
        }
#pragma unroll
        for (u32 r = 0u; r < 2u; r++) {
            float new_top = top[r];
#pragma unroll
            for (u32 j = 0u; j < KEY_TILES; j++) {
#pragma unroll
                for (u32 c = 0u; c < 2u; c++) {
                    float& score = scores[j][2u * r + c];
                    const u32 key = j * 8u + 2u * t + c;
                    if (ROW_SCALES > 0u) score *= tile.k_scale[key];
                    if (key >= num_keys || first_key + key > last_key[r]) score = LOWEST;
                    new_top = fmaxf(new_top, score);
                }
            }
            new_top = row_max(new_top);
            const float factor = __expf(top[r] - new_top);
            top[r] = new_top;
            sum[r] *= factor; // each lane sums its own keys; the lanes merge at the end
#pragma unroll
            for (u32 j = 0u; j < KEY_TILES; j++) {
#pragma unroll
                for (u32 c = 0u; c < 2u; c++) {
                    float& score = scores[j][2u * r + c];
                    score = score > LOWEST ? __expf(score - new_top) : 0.0f;
                    sum[r] += score;
                    if (ROW_SCALES > 0u) score *= tile.v_scale[j * 8u + 2u * t + c];
                }
            }
#pragma unroll
            for (u32 n = 0u; n < TILES; n++) {
                acc[n][2u * r] *= factor;
                acc[n][2u * r + 1u] *= factor;
            }
        }
#pragma unroll
        for (u32 j = 0u; j < KEY_TILES; j += 2u) {
            u32 weights[4];
#pragma unroll
            for (u32 i = 0u; i < 4u; i++) {
                const float* pair = &scores[j + i / 2u][i % 2u * 2u];
                weights[i] = pack_halves(pair[0], pair[1]);
            }
#pragma unroll
            for (u32 n = 0u; n < TILES; n += 2u) {
                u32 v[4];
                load_matrices_transposed(v, &tile.v[j * 8u + lane % 16u][n * 8u + lane / 16u * 8u]);
                const u32 first[2] = {v[0], v[1]}, second[2] = {v[2], v[3]};
                multiply_f16(acc[n], weights, first);
                multiply_f16(acc[n + 1u], weights, second);
            }
        }
        if (has_next) end_tile(tiles[current], coming);
    }
#pragma unroll
    for (u32 r = 0u; r < 2u; r++) {
        const float total = row_sum(sum[r]);
        if (number[r] >= item.num_queries) continue;
        const bool is_partial = its[r].partials != NO_PARTIAL;
        const u32 to = (is_partial ? its[r].partials + item.split : its[r].token) * HEADS + head[r];
        const float factor = 1.0f / (V_FACTOR * total);
        float2* row = (is_partial ? partial_out : out) + to * (HEAD_DIM / 2u);
        if (is_partial && t == 0u) partial_stats[to] = make_float2(top[r], total);
#pragma unroll
        for (u32 n = 0u; n < TILES; n++) {
            row[n * 4u + t] = make_float2(acc[n][2u * r] * factor, acc[n][2u * r + 1u] * factor);
        }
    }
}
