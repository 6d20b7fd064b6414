// The product that makes q, k and v, or whole heads of them, and what rope_and_cache would do with them. The parts of a column
// are two elements that RoPE turns together; columns leave by two, because two neighbouring elements of the KV pool may share
// a word.
const PARTS = 2u;
const WIDTH = 2u;
const HALF = HEAD_DIM / 2u; // columns of a head
@group(0) @binding(7) var<storage, read> rope: array<vec4<f32>>;      // [max_positions][D / 4] (cos, sin, cos, sin)
@group(0) @binding(8) var<storage, read_write> k_pool: array<KvPair>; // [block][KV_HEADS] pages
@group(0) @binding(9) var<storage, read_write> v_pool: array<KvPair>; // the same shape

fn weight_row(col: u32, part: u32) -> u32 {
    let c = min(col, params.cols - 1u);
    if (INTERLEAVED) { return 2u * c + part; }
    return (c / HALF * 2u + part) * HALF + c % HALF;
}

fn biased(sum: f32, col: u32, part: u32) -> f32 { return sum + bias_of(params.first_row + weight_row(col, part)); }

fn finish(row: u32, col: u32, sums: Sums) {
    let head = params.first_row / HEAD_DIM + col / HALF;
    let i = col % HALF;
    var first = vec2<f32>(biased(sums[0], col, 0u), biased(sums[1], col + 1u, 0u));
    var last = vec2<f32>(biased(sums[2], col, 1u), biased(sums[3], col + 1u, 1u));
    if (head < HEADS + KV_HEADS) {
        let a = rope[position(row) * ROW_QUADS + i / 2u];
        let turned = first * a.xz - last * a.yw;
        last = first * a.yw + last * a.xz;
        first = turned;
    }
    // Two pairs of neighbours: elements e and e + 1, and those `apart` behind them.
    var e = i;
    var apart = HALF;
    var lo = first;
    var hi = last;
    if (INTERLEAVED) {
        e = 2u * i;
        apart = 2u;
        lo = vec2<f32>(first.x, last.x);
        hi = vec2<f32>(first.y, last.y);
    }
    if (head < HEADS) {
        let at = row * params.out_stride + head * HEAD_DIM + e;
        out[at] = lo.x;
        out[at + 1u] = lo.y;
        out[at + apart] = hi.x;
        out[at + apart + 1u] = hi.y;
        return;
    }
    let s = slot(row);
    let at = 2u * quad_at(page_of(s / BLOCK_SIZE, (head - HEADS) % KV_HEADS), s % BLOCK_SIZE) + e / 2u;
    if (head < HEADS + KV_HEADS) {
        k_pool[at] = pack_pair(lo);
        k_pool[at + apart / 2u] = pack_pair(hi);
    } else {
        v_pool[at] = pack_pair(lo);
        v_pool[at + apart / 2u] = pack_pair(hi);
    }
}
