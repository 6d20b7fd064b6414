// out = x W^T for many rows of x: tiles of TILE rows of x and 64 of the weight staged through workgroup memory, 4 x 4 sums
// for each invocation, f32 accumulation.
//
// The columns of x may be split in SPLITS (split-K), each with workgroups of its own: then what split s sums of row r leaves
// as row s * rows + r of out.
const TILE_W = 64u;
const OUT_COLS = TILE_W / PARTS; // columns of out; rows of the tile beyond them are the second part's
const LOADS = TILE_W / TILE;     // rows of the weight that an invocation stages
var<workgroup> tile_x: array<vec4<f32>, TILE * 8u>;
var<workgroup> tile_w: array<vec4<f32>, TILE_W * 8u>;

// What an invocation stages of a block of 32 columns, as it is loaded.
struct Loaded {
    v: Vec8,
    words: array<RawOctet, LOADS>,
    scales: array<u32, LOADS>,
}

// Column of out, behind the first, that column c of the tile makes: those of an invocation, 16 apart, leave by WIDTH neighbours.
fn col_of(c: u32) -> u32 { return c / (16u * WIDTH) * (16u * WIDTH) + c % 16u * WIDTH + c / 16u % WIDTH; }

// Where a block of a row of the tile lies in the weight.
fn w_block(first_col: u32, row: u32, block: u32) -> u32 {
    return block_index(weight_row(first_col + col_of(row % OUT_COLS), row / OUT_COLS), block, params.blocks);
}
fn load(x_row: u32, first_col: u32, stage_row: u32, octet: u32, block: u32) -> Loaded {
    var loaded: Loaded;
    let x_at = (x_row * params.blocks + block) * 8u + octet * 2u;
    loaded.v = Vec8(x[x_at], x[x_at + 1u]);
    for (var l = 0u; l < LOADS; l++) {
        let at = w_block(first_col, stage_row + l * TILE, block);
        loaded.words[l] = raw_octet(at * 4u + octet);
        loaded.scales[l] = raw_scale(at);
    }
    return loaded;
}

@compute @workgroup_size(4u * TILE)
fn matmul(@builtin(local_invocation_index) li: u32, @builtin(workgroup_id) wg: vec3<u32>) {
    let rows = num_rows(params.rows);
    let first_row = wg.y * TILE;
    let first_col = wg.x / SPLITS * OUT_COLS;
    let split = wg.x % SPLITS;
    let first_block = split * params.blocks / SPLITS;
    let end_block = (split + 1u) * params.blocks / SPLITS;
    // Staging: invocation li loads octet li % 4 of row li / 4 of x, and of every TILE-th row of the weight from there on.
    // Quads are stored k-major, so that the product reads neighbouring rows from neighbouring addresses.
    let stage_row = li / 4u;
    let stage_octet = li % 4u;
    let x_row = min(first_row + stage_row, rows - 1u);
    let tile_row = li / 16u;
    let tile_col = li % 16u;
    var acc: array<vec4<f32>, 4>;
    for (var j = 0u; j < 4u; j++) { acc[j] = vec4<f32>(0.0); }
    var squares = 0.0;
    // Each block is loaded while the two before it are multiplied.
    var loaded = load(x_row, first_col, stage_row, stage_octet, first_block);
    var next = load(x_row, first_col, stage_row, stage_octet, min(first_block + 1u, end_block - 1u));
    for (var block = first_block; block < end_block; block++) {
        let quad = block * 8u + stage_octet * 2u;
        let v = loaded.v;
        squares = add_squares(add_squares(squares, v.lo), v.hi);
        workgroupBarrier();
        tile_x[(stage_octet * 2u) * TILE + stage_row] = weighted(v.lo, quad);
        tile_x[(stage_octet * 2u + 1u) * TILE + stage_row] = weighted(v.hi, quad + 1u);
        for (var l = 0u; l < LOADS; l++) {
            let row = stage_row + l * TILE;
            let w = unpack_weights(loaded.words[l], scale_of(loaded.scales[l], w_block(first_col, row, block)));
            tile_w[(stage_octet * 2u) * TILE_W + row] = w.lo;
            tile_w[(stage_octet * 2u + 1u) * TILE_W + row] = w.hi;
        }
        workgroupBarrier();
        loaded = next;
        next = load(x_row, first_col, stage_row, stage_octet, min(block + 2u, end_block - 1u));
        for (var k = 0u; k < 8u; k++) {
            let w0 = tile_w[k * TILE_W + tile_col];
            let w1 = tile_w[k * TILE_W + tile_col + 16u];
            let w2 = tile_w[k * TILE_W + tile_col + 32u];
            let w3 = tile_w[k * TILE_W + tile_col + 48u];
            for (var j = 0u; j < 4u; j++) {
                let xk = tile_x[k * TILE + tile_row + TILE / 4u * j];
                acc[j] += vec4<f32>(dot(xk, w0), dot(xk, w1), dot(xk, w2), dot(xk, w3));
            }
        }
    }
    var factors = vec4<f32>(1.0);
    if (NORMED) {
        // Four invocations have the squares of a row between them.
        workgroupBarrier();
        tile_x[li] = vec4<f32>(squares);
        workgroupBarrier();
        for (var j = 0u; j < 4u; j++) {
            let at = 4u * (tile_row + TILE / 4u * j);
            factors[j] = inverse_rms((tile_x[at].x + tile_x[at + 1u].x) + (tile_x[at + 2u].x + tile_x[at + 3u].x));
        }
    }
    for (var j = 0u; j < 4u; j++) {
        for (var i = 0u; i < 4u / PARTS; i += WIDTH) {
            let row = first_row + tile_row + TILE / 4u * j;
            let col = first_col + col_of(tile_col + 16u * i);
            var sums: Sums;
            for (var s = 0u; s < PARTS * WIDTH; s++) { sums[s] = acc[j][s / WIDTH * (4u / PARTS) + i + s % WIDTH] * factors[j]; }
            if (row < rows && col < params.cols) { finish(split * rows + row, col, sums); }
        }
    }
}
