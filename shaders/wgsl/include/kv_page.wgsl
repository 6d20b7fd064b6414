// Where rows lie in a pool: a page is what one head has in one block, BLOCK_SIZE rows of HEAD_DIM elements and, in pools of
// bytes, the rows' scales behind them. A pair is two consecutive elements of a row, a quad four, an octet eight.
const ROW_QUADS = HEAD_DIM / 4u;
const ROW_OCTETS = HEAD_DIM / 8u;
const PAGE_QUADS = BLOCK_SIZE * ROW_QUADS + SCALE_QUADS;

fn page_of(block: u32, kv_head: u32) -> u32 { return block * KV_HEADS + kv_head; }
// The first quad, or octet, of a row.
fn quad_at(page: u32, offset: u32) -> u32 { return page * PAGE_QUADS + offset * ROW_QUADS; }
fn octet_at(page: u32, offset: u32) -> u32 { return page * (PAGE_QUADS / 2u) + offset * ROW_OCTETS; }
