// The step's metadata, `step`: a header of counts and offsets, then the sections they point to. Written once per step.
const NUM_TOKENS = 0u;
const NUM_LOGITS_ROWS = 1u;
const NUM_BLOCK_COPIES = 2u;
const TOKEN_IDS_AT = 3u;
const POSITIONS_AT = 4u;
const SLOT_MAPPING_AT = 5u;
const BLOCK_TABLES_AT = 6u;
const LOGITS_INDICES_AT = 7u;
const BLOCK_COPIES_AT = 8u;
const DECODE_ITEMS_AT = 9u;
const PREFILL_ITEMS_AT = 10u;
const REDUCE_ITEMS_AT = 11u;
const NUM_TOP_K_ROWS = 12u;
const TOP_K = 13u;
const TOP_K_ROWS_AT = 14u;
const NUM_DECODE_ITEMS = 15u;
const NUM_PREFILL_ITEMS = 16u;
const NUM_REDUCE_ITEMS = 17u;
const DRAWS_AT = 18u;
const ADJUSTMENTS_AT = 19u;
const QUERIES_AT = 20u;
const NUM_FED_TOKENS = 21u;
const FED_TOKENS_AT = 22u;
const NUM_DRAWS = 23u;
const NUM_SCORED = 24u;
const SCORED_AT = 25u;

// Rows of an activation: ROWS_TOKENS or ROWS_LOGITS.
const ROWS_TOKENS = 0u;
const ROWS_LOGITS = 1u;

fn num_rows(rows: u32) -> u32 { return step[rows]; }
fn token_id(token: u32) -> u32 { return step[step[TOKEN_IDS_AT] + token]; }
fn position(token: u32) -> u32 { return step[step[POSITIONS_AT] + token]; }
fn slot(token: u32) -> u32 { return step[step[SLOT_MAPPING_AT] + token]; }
fn logits_index(row: u32) -> u32 { return step[step[LOGITS_INDICES_AT] + row]; }
fn top_k_row(i: u32) -> u32 { return step[step[TOP_K_ROWS_AT] + i]; }
// A token of the step before: where it goes among the token ids, and its row there, or its draw with DRAWN.
const DRAWN = 0x80000000u;
fn fed_token(i: u32) -> vec2<u32> { let at = step[FED_TOKENS_AT] + 2u * i; return vec2<u32>(step[at], step[at + 1u]); }
// A logits row, and the token of it that is scored: its id, ARGMAX, or its draw with DRAWN.
const ARGMAX = 0x40000000u;
fn scored_row(i: u32) -> vec2<u32> { let at = step[SCORED_AT] + 2u * i; return vec2<u32>(step[at], step[at + 1u]); }
fn block_copy(i: u32) -> vec2<u32> { let at = step[BLOCK_COPIES_AT] + 2u * i; return vec2<u32>(step[at], step[at + 1u]); }

// One attention work item: some query tokens over a range of keys that they have in common, those of one sequence or of
// several whose block tables begin with the same blocks.
const ITEM_WORDS = 6u;
struct WorkItem {
    first_query: u32, // index into the step's queries
    num_queries: u32,
    block_table: u32, // first entry of a sequence's block table, an index into `step`
    key_begin: u32,   // keys [key_begin, key_end), before the causal bound
    key_end: u32,
    split: u32,       // which of its queries' partial results it gives
}
fn work_item(items_at: u32, i: u32) -> WorkItem {
    let at = step[items_at] + i * ITEM_WORDS;
    return WorkItem(step[at], step[at + 1u], step[at + 2u], step[at + 3u], step[at + 4u], step[at + 5u]);
}
const QUERY_WORDS = 2u;
const NO_PARTIAL = 0xffffffffu;
struct Query {
    token: u32,    // index in the batch
    partials: u32, // row of its first partial result, or NO_PARTIAL: its only work item writes the output itself
}
// The item's query `i`; its last one for any i beyond.
fn query(item: WorkItem, i: u32) -> Query {
    let at = step[QUERIES_AT] + (item.first_query + min(i, item.num_queries - 1u)) * QUERY_WORDS;
    return Query(step[at], step[at + 1u]);
}
// The block that holds key `key` of a sequence.
fn block_of(block_table: u32, key: u32) -> u32 { return step[block_table + key / BLOCK_SIZE]; }

// One decode token whose keys were split: merge partials [first, first + count) into its output.
struct ReduceItem { token: u32, first: u32, count: u32 }
fn reduce_item(i: u32) -> ReduceItem {
    let at = step[REDUCE_ITEMS_AT] + i * 3u;
    return ReduceItem(step[at], step[at + 1u], step[at + 2u]);
}

// Eight consecutive elements.
struct Vec8 { lo: vec4<f32>, hi: vec4<f32> }
fn element(v: Vec8, i: u32) -> f32 {
    if (i < 4u) { return v.lo[i]; }
    return v.hi[i - 4u];
}
fn dot8(a: Vec8, b: Vec8) -> f32 { return dot(a.lo, b.lo) + dot(a.hi, b.hi); }
// The signed bytes of a word, the lowest first. Conversions of integers are slow on many GPUs. Under the exponents of 2^23 and
// 2^15 a fraction's bits 0 and 8 count by one, so that a byte q + 128 stands for itself there.
fn bytes4(w: u32) -> vec4<f32> {
    let fractions = vec4<u32>(vec2<u32>(w), vec2<u32>(w >> 16u)) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u);
    let above = bitcast<vec4<f32>>(fractions ^ vec4<u32>(0x4b000080u, 0x47008000u, 0x4b000080u, 0x47008000u));
    return above - vec4<f32>(8388736.0, 32896.0, 8388736.0, 32896.0);
}
