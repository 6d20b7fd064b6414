// The step's metadata: a header of counts and offsets, then the sections they point to; the first argument of every
// kernel. Written once per step, in the words of the WGSL. A captured graph may launch more workgroups than a step has
// work, so that a kernel compares with the counts before it reads what a count is of.
constexpr u32 NUM_TOKENS = 0u;
constexpr u32 NUM_LOGITS_ROWS = 1u;
constexpr u32 NUM_BLOCK_COPIES = 2u;
constexpr u32 TOKEN_IDS_AT = 3u;
constexpr u32 POSITIONS_AT = 4u;
constexpr u32 SLOT_MAPPING_AT = 5u;
constexpr u32 BLOCK_TABLES_AT = 6u;
constexpr u32 LOGITS_INDICES_AT = 7u;
constexpr u32 BLOCK_COPIES_AT = 8u;
constexpr u32 DECODE_ITEMS_AT = 9u;
constexpr u32 PREFILL_ITEMS_AT = 10u;
constexpr u32 REDUCE_ITEMS_AT = 11u;
constexpr u32 NUM_TOP_K_ROWS = 12u;
constexpr u32 TOP_K = 13u;
constexpr u32 TOP_K_ROWS_AT = 14u;
constexpr u32 NUM_DECODE_ITEMS = 15u;
constexpr u32 NUM_PREFILL_ITEMS = 16u;
constexpr u32 NUM_REDUCE_ITEMS = 17u;
constexpr u32 DRAWS_AT = 18u;
constexpr u32 ADJUSTMENTS_AT = 19u;
constexpr u32 QUERIES_AT = 20u;
constexpr u32 NUM_FED_TOKENS = 21u;
constexpr u32 FED_TOKENS_AT = 22u;
constexpr u32 NUM_DRAWS = 23u;
constexpr u32 NUM_SCORED = 24u;
constexpr u32 SCORED_AT = 25u;

// Rows of an activation: ROWS_TOKENS or ROWS_LOGITS.
constexpr u32 ROWS_TOKENS = 0u;
constexpr u32 ROWS_LOGITS = 1u;

typedef const u32* __restrict__ Step;

__device__ __forceinline__ u32 num_rows(Step step, u32 rows) { return step[rows]; }
__device__ __forceinline__ u32 token_id(Step step, u32 token) { return step[step[TOKEN_IDS_AT] + token]; }
__device__ __forceinline__ u32 position(Step step, u32 token) { return step[step[POSITIONS_AT] + token]; }
__device__ __forceinline__ u32 slot(Step step, u32 token) { return step[step[SLOT_MAPPING_AT] + token]; }
__device__ __forceinline__ u32 logits_index(Step step, u32 row) { return step[step[LOGITS_INDICES_AT] + row]; }
__device__ __forceinline__ u32 top_k_row(Step step, u32 i) { return step[step[TOP_K_ROWS_AT] + i]; }
// A token of the step before: where it goes among the token ids, and its row there, or its draw with DRAWN.
constexpr u32 DRAWN = 0x80000000u;
__device__ __forceinline__ uint2 fed_token(Step step, u32 i) {
    const u32 at = step[FED_TOKENS_AT] + 2u * i;
    return make_uint2(step[at], step[at + 1u]);
}
// A logits row, and the token of it that is scored: its id, ARGMAX, or its draw with DRAWN.
constexpr u32 ARGMAX = 0x40000000u;
__device__ __forceinline__ uint2 scored_row(Step step, u32 i) {
    const u32 at = step[SCORED_AT] + 2u * i;
    return make_uint2(step[at], step[at + 1u]);
}
__device__ __forceinline__ uint2 block_copy(Step step, u32 i) {
    const u32 at = step[BLOCK_COPIES_AT] + 2u * i;
    return make_uint2(step[at], step[at + 1u]);
}

// One attention work item: some query tokens over a range of keys that they have in common, those of one sequence or of
// several whose block tables begin with the same blocks.
constexpr u32 ITEM_WORDS = 6u;
struct WorkItem {
    u32 first_query; // index into the step's queries
    u32 num_queries;
    u32 block_table; // first entry of the sequence's block table, an index into `step`
    u32 key_begin;   // keys [key_begin, key_end), before the causal bound
    u32 key_end;
    u32 split;       // which of its queries' partial results it gives
};
__device__ __forceinline__ WorkItem work_item(Step step, u32 items_at, u32 i) {
    const u32 at = step[items_at] + i * ITEM_WORDS;
    return WorkItem{step[at], step[at + 1u], step[at + 2u], step[at + 3u], step[at + 4u], step[at + 5u]};
}
constexpr u32 QUERY_WORDS = 2u;
constexpr u32 NO_PARTIAL = 0xffffffffu;
struct Query {
    u32 token;    // index in the batch
    u32 partials; // row of its first partial result, or NO_PARTIAL: its only work item writes the output itself
};
// The item's query `i`; its last one for any i beyond.
__device__ __forceinline__ Query query(Step step, const WorkItem& item, u32 i) {
    const u32 last = item.num_queries - 1u;
    const u32 at = step[QUERIES_AT] + (item.first_query + (i < last ? i : last)) * QUERY_WORDS;
    return Query{step[at], step[at + 1u]};
}
// The block that holds key `key` of a sequence.
__device__ __forceinline__ u32 block_of(Step step, u32 block_table, u32 key) {
    return step[block_table + key / BLOCK_SIZE];
}

// One decode token whose keys were split: merge partials [first, first + count) into its output.
struct ReduceItem { u32 token, first, count; };
__device__ __forceinline__ ReduceItem reduce_item(Step step, u32 i) {
    const u32 at = step[REDUCE_ITEMS_AT] + i * 3u;
    return ReduceItem{step[at], step[at + 1u], step[at + 2u]};
}
