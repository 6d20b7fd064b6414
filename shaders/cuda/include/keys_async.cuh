// How a team of attention_decode gets its keys: through a ring of STAGES rounds in workgroup memory, brought by asynchronous
// copies, so that more is under way than registers could hold. Each lane reads what it has copied itself, and waits for no
// other. For pools without scales.
static_assert(ROW_SCALES == 0u, "scales are not brought");
constexpr u32 COPIES = sizeof(KvOctet) / 16u;         // of an octet
constexpr u32 SLOTS = KEYS * REGISTERS * 2u * COPIES; // copies of a lane in a round
static_assert(STAGES * SLOTS * WG * 16u == SHARED_BYTES, "the host asks for as much");

struct Keys {
    KeySource from;
    uint4* ring; // [stage][slot][invocation]
    u32 stage;   // of the next round
};

// Where copy c of the lane's octet i of key u goes, of K (0) or V (1).
__device__ __forceinline__ uint4* slot_of(const Keys& keys, u32 stage, u32 pool, u32 u, u32 i, u32 c) {
    return keys.ring + (stage * SLOTS + ((pool * KEYS + u) * REGISTERS + i) * COPIES + c) * WG + threadIdx.x;
}
// Begins to bring the round of key `first`, if there is one.
__device__ __forceinline__ void bring(const Keys& keys, u32 first, u32 stage) {
    const KeySource& from = keys.from;
    if (first < from.item.key_end) {
#pragma unroll
        for (u32 u = 0u; u < KEYS; u++) {
            const u32 row = first_octet(row_of(from.step, from.item, from.kv_head, key_of_team(from.item, first, u)));
#pragma unroll
            for (u32 i = 0u; i < REGISTERS; i++) {
                const u32 at = row + octet_of_lane(i);
#pragma unroll
                for (u32 c = 0u; c < COPIES; c++) {
                    copy_async(slot_of(keys, stage, 0u, u, i, c), (const uint4*)(from.k_pool + at) + c);
                    copy_async(slot_of(keys, stage, 1u, u, i, c), (const uint4*)(from.v_pool + at) + c);
                }
            }
        }
    }
    close_copies();
}
__device__ __forceinline__ KvOctet octet_in(const Keys& keys, u32 pool, u32 u, u32 i) {
    union { uint4 words[COPIES]; KvOctet octet; } read;
#pragma unroll
    for (u32 c = 0u; c < COPIES; c++) read.words[c] = *slot_of(keys, keys.stage, pool, u, i, c);
    return read.octet;
}

__device__ __forceinline__ Keys begin_keys(const KeySource& from) {
    SHARED_MEMORY(shared);
    const Keys keys{from, (uint4*)shared, 0u};
#pragma unroll
    for (u32 stage = 0u; stage < STAGES; stage++) bring(keys, from.item.key_begin + stage * ROUND_KEYS, stage);
    return keys;
}
__device__ __forceinline__ Round take_round(Keys& keys, u32 first) {
    wait_for_copies<STAGES - 1u>();
    Round round;
#pragma unroll
    for (u32 u = 0u; u < KEYS; u++) {
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) {
            round.k[u][i] = octet_in(keys, 0u, u, i);
            round.v[u][i] = octet_in(keys, 1u, u, i);
            round.k_scale[u][i] = round.v_scale[u][i] = 1.0f;
        }
    }
    bring(keys, first + STAGES * ROUND_KEYS, keys.stage);
    keys.stage = keys.stage + 1u == STAGES ? 0u : keys.stage + 1u;
    return round;
}
