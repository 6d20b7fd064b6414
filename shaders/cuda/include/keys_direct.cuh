// How a team of attention_decode gets its keys: straight into registers, those of one round under way at once.
typedef KeySource Keys;

__device__ __forceinline__ Keys begin_keys(const KeySource& from) { return from; }
__device__ __forceinline__ Round take_round(const Keys& keys, u32 first) {
    KvRow rows[KEYS];
    Round round;
#pragma unroll
    for (u32 u = 0u; u < KEYS; u++) {
        rows[u] = row_of(keys.step, keys.item, keys.kv_head, key_of_team(keys.item, first, u));
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) {
            const u32 octet = octet_of_lane(i);
            round.k[u][i] = keys.k_pool[first_octet(rows[u]) + octet];
            round.k_scale[u][i] = octet_scale(keys.k_pool, rows[u], octet);
        }
    }
#pragma unroll
    for (u32 u = 0u; u < KEYS; u++) {
#pragma unroll
        for (u32 i = 0u; i < REGISTERS; i++) {
            const u32 octet = octet_of_lane(i);
            round.v[u][i] = keys.v_pool[first_octet(rows[u]) + octet];
            round.v_scale[u][i] = octet_scale(keys.v_pool, rows[u], octet);
        }
    }
    return round;
}
