// Where rows lie in a pool: a page is what one head has in one block, BLOCK_SIZE rows of HEAD_DIM elements and, in pools of
// bytes, the rows' scales behind them: ROW_SCALES halves for each row (else none), one for every SCALE_GROUP elements. A
// pair is two consecutive elements of a row, a quad four, an octet eight.
constexpr u32 QUADS = HEAD_DIM / 4u;
constexpr u32 OCTETS = HEAD_DIM / 8u;
constexpr u32 OCTETS_OF_ROWS = BLOCK_SIZE * OCTETS; // of a page
constexpr u32 PAGE_OCTETS = OCTETS_OF_ROWS + BLOCK_SIZE * ROW_SCALES * 2u / (u32)sizeof(KvOctet);

struct KvRow { u32 page, offset; };
__device__ __forceinline__ KvRow kv_row(u32 block, u32 kv_head, u32 offset) {
    return KvRow{block * KV_HEADS + kv_head, offset};
}
__device__ __forceinline__ u32 first_octet(KvRow row) { return row.page * PAGE_OCTETS + row.offset * OCTETS; }
// Where the row's scales stand, as halves of the pool.
__device__ __forceinline__ u32 first_scale(KvRow row) {
    return (row.page * PAGE_OCTETS + OCTETS_OF_ROWS) * ((u32)sizeof(KvOctet) / 2u) + row.offset * ROW_SCALES;
}

// What the elements of an octet are to be multiplied with.
__device__ __forceinline__ float octet_scale(const void* pool, KvRow row, u32 octet) {
    if (ROW_SCALES == 0u) return 1.0f;
    return half_to_float(((const u16*)pool)[first_scale(row) + octet * 8u / SCALE_GROUP]);
}
// sum + a . (scale * b)
__device__ __forceinline__ float dot_scaled(const Vec8& a, const Vec8& b, float scale, float sum) {
    if (ROW_SCALES == 0u) return dot8(a, b, sum);
    return fmaf(scale, dot8(a, b, 0.0f), sum);
}
