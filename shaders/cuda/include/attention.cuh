// What the attention kernels share.
struct Params {
    float scale;
    u32 items_at;   // DECODE_ITEMS_AT or PREFILL_ITEMS_AT
    u32 first_item; // of those that are launched
};

constexpr float LOWEST = -3.0e38f; // below any score; finite, so that differences are

// The row of a key.
__device__ __forceinline__ KvRow row_of(Step step, const WorkItem& item, u32 kv_head, u32 key) {
    return kv_row(block_of(step, item.block_table, key), kv_head, key % BLOCK_SIZE);
}
