// out = x W^T for many rows of x: tiles of TILE rows of x and TILE_W, 64, of the weight staged through workgroup memory, 8 x 4 sums
// for each invocation, f32 accumulation.
//
// The columns of x may be split in SPLITS (split-K), each with workgroups of its own: then what split s sums of row r leaves
// as row s * rows + r of out.
const WG = 2u * TILE;
const OUT_COLS = TILE_W / PARTS;
const ROWS = 8u;           // of x, for each invocation
const APART = TILE / ROWS; // from one of them to the next
var<workgroup> tile_x: array<vec4<f32>, TILE * 8u>;
var<workgroup> tile_w: array<vec4<f32>, TILE_W * 8u>;

// Those of an invocation, 16 apart, leave by WIDTH neighbours; rows beyond OUT_COLS are the second part's.
fn tile_col(row: u32) -> vec2<u32> {
    let c = row % OUT_COLS;
    return vec2<u32>(col_of(c), row / OUT_COLS);
}
fn col_of(c: u32) -> u32 { return c / (16u * WIDTH) * (16u * WIDTH) + c % 16u * WIDTH + c / 16u % WIDTH; }

@compute @workgroup_size(WG)
fn matmul(@builtin(local_invocation_index) li: u32, @builtin(workgroup_id) wg: vec3<u32>) {
    let rows = num_rows(params.rows);
    let first_row = wg.y * TILE;
    let first_col = wg.x / SPLITS * OUT_COLS;
    let split = wg.x % SPLITS;
    let first_block = split * params.blocks / SPLITS;
    let end_block = (split + 1u) * params.blocks / SPLITS;
    // Quads are staged k-major, so that the product reads neighbouring rows from neighbouring addresses, and rows of each octet in
    // an order of their own, so that neighbours store to different banks.
    let stage_row = li / 4u;
    let octet = li % 4u;
    let places = places_of(li, first_row, rows, first_col);
    let sum_row = li / 16u;
    let sum_col = li % 16u;
    var acc: array<vec4<f32>, ROWS>;
    for (var j = 0u; j < ROWS; j++) { acc[j] = vec4<f32>(0.0); }
    var squares: array<f32, X_LOADS>;
    for (var l = 0u; l < X_LOADS; l++) { squares[l] = 0.0; }
    // Each block is loaded while the two before it are multiplied.
    var loaded = load(places, octet, first_block);
    var next = load(places, octet, min(first_block + 1u, end_block - 1u));
    for (var block = first_block; block < end_block; block++) {
        let quad = block * 8u + octet * 2u;
        workgroupBarrier();
        for (var l = 0u; l < X_LOADS; l++) {
            let v = loaded.xs[l];
            let row = stage_row + l * STAGED;
            squares[l] = add_squares(add_squares(squares[l], v.lo), v.hi);
            let at = octet * 2u * TILE + (row ^ (octet * 2u));
            tile_x[at] = weighted(v.lo, quad);
            tile_x[at + TILE] = weighted(v.hi, quad + 1u);
        }
        for (var l = 0u; l < W_LOADS; l++) {
            let row = stage_row + l * STAGED;
            let w = unpack_weights(loaded.words[l], scale_of(loaded.scales[l], w_block(places, l, block)));
            let at = octet * 2u * TILE_W + (row ^ (octet * 2u));
            tile_w[at] = w.lo;
            tile_w[at + TILE_W] = w.hi;
        }
        workgroupBarrier();
        loaded = next;
        next = load(places, octet, min(block + 2u, end_block - 1u));
        for (var k = 0u; k < 8u; k++) {
            let swapped = k / 2u * 2u;
            let w_at = k * TILE_W + (sum_col ^ swapped);
            let w0 = tile_w[w_at];
            let w1 = tile_w[w_at + 16u];
            let w2 = tile_w[w_at + 32u];
            let w3 = tile_w[w_at + 48u];
            // Turned round, so that a product and its sum are one instruction.
            let wx = vec4<f32>(w0.x, w1.x, w2.x, w3.x);
            let wy = vec4<f32>(w0.y, w1.y, w2.y, w3.y);
            let wz = vec4<f32>(w0.z, w1.z, w2.z, w3.z);
            let ww = vec4<f32>(w0.w, w1.w, w2.w, w3.w);
            for (var j = 0u; j < ROWS; j++) {
                let v = tile_x[k * TILE + ((sum_row + APART * j) ^ swapped)];
                let half = fma(vec4<f32>(v.y), wy, fma(vec4<f32>(v.x), wx, acc[j]));
                acc[j] = fma(vec4<f32>(v.w), ww, fma(vec4<f32>(v.z), wz, half));
            }
        }
    }
    var factors: array<f32, ROWS>;
    for (var j = 0u; j < ROWS; j++) { factors[j] = 1.0; }
    if (NORMED) {
        // Four invocations have the squares of a row between them.
        workgroupBarrier();
        for (var l = 0u; l < X_LOADS; l++) { tile_x[li + l * WG] = vec4<f32>(squares[l]); }
        workgroupBarrier();
        for (var j = 0u; j < ROWS; j++) {
            let at = 4u * (sum_row + APART * j);
            factors[j] = inverse_rms((tile_x[at].x + tile_x[at + 1u].x) + (tile_x[at + 2u].x + tile_x[at + 3u].x));
        }
    }
    for (var j = 0u; j < ROWS; j++) {
        for (var i = 0u; i < 4u / PARTS; i += WIDTH) {
            let row = first_row + sum_row + APART * j;
            let col = first_col + col_of(sum_col + 16u * i);
            var sums: Sums;
            for (var s = 0u; s < PARTS * WIDTH; s++) { sums[s] = acc[j][s / WIDTH * (4u / PARTS) + i + s % WIDTH] * factors[j]; }
            if (row < rows && col < params.cols) { finish(split * rows + row, col, sums); }
        }
    }
}
