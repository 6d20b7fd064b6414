// What a team of attention_decode takes at once, a round: KEYS keys, every LANES-th octet of them in each lane.
constexpr u32 REGISTERS = (OCTETS + LANES - 1u) / LANES;
constexpr u32 TEAMS = WG / LANES;
constexpr u32 ROUND_KEYS = TEAMS * KEYS; // of all teams

// Where keys and values come from.
struct KeySource {
    Step step;
    WorkItem item;
    u32 kv_head;
    const KvOctet* k_pool;
    const KvOctet* v_pool;
};
struct Round {
    KvOctet k[KEYS][REGISTERS], v[KEYS][REGISTERS];
    float k_scale[KEYS][REGISTERS], v_scale[KEYS][REGISTERS];
};
// Key u of the team in the round of key `first`. Past the end it is the last one, since what lies there may be NaN; it weighs
// nothing.
__device__ __forceinline__ u32 key_of_team(const WorkItem& item, u32 first, u32 u) {
    return least(first + u * TEAMS + threadIdx.x / LANES, item.key_end - 1u);
}
// Octet i of the lane; heads that do not fill their lanes repeat the last one.
__device__ __forceinline__ u32 octet_of_lane(u32 i) { return least(i * LANES + threadIdx.x % LANES, OCTETS - 1u); }
