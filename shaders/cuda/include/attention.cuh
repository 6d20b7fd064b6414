// What the attention kernels share.
struct Params {
    float scale;
    u32 items_at; // DECODE_ITEMS_AT or PREFILL_ITEMS_AT
};

constexpr u32 OCTETS = HEAD_DIM / 8u;
constexpr float LOWEST = -3.0e38f; // below any score; finite, so that differences are

// First octet of the row of a key: K and V pool are [block][KV_HEADS][BLOCK_SIZE][D / 8].
__device__ __forceinline__ u32 row_of(Step step, const WorkItem& item, u32 kv_head, u32 key) {
    const u32 block = block_of(step, item.block_table, key);
    return ((block * KV_HEADS + kv_head) * BLOCK_SIZE + key % BLOCK_SIZE) * OCTETS;
}
