// out = x W^T for software adapters, of int8 x and quantised weights: a lane sums over COLS rows of the weight for TILE rows
// of x, a block of 32 by integer products of four. Every lane reads the same x, so there is nothing to shuffle.
const OUT_COLS = COLS / PARTS;

@compute @workgroup_size(WG)
fn matmul_cpu_int8(@builtin(local_invocation_index) li: u32, @builtin(workgroup_id) wg: vec3<u32>) {
    let rows = num_rows(params.rows);
    let first_col = wg.x * (WG * OUT_COLS) + li;
    let first_row = wg.y * TILE;
    var acc: array<f32, TILE * COLS>;
    for (var i = 0u; i < TILE * COLS; i++) { acc[i] = 0.0; }
    for (var block = 0u; block < params.blocks; block++) {
        var scale: array<vec2<f32>, COLS>;
        var raw: array<RawBlock, COLS>;
        for (var i = 0u; i < COLS; i++) {
            let row = weight_row(first_col + (i % OUT_COLS) * WG, i / OUT_COLS);
            let at = block_index(row, block, params.blocks);
            scale[i] = block_scale(at);
            raw[i] = raw_block(at);
        }
        for (var j = 0u; j < TILE; j++) {
            let at = min(first_row + j, rows - 1u) * params.blocks + block;
            let step = steps[at];
            let q = array<vec4<u32>, 2>(quants[2u * at], quants[2u * at + 1u]);
            for (var i = 0u; i < COLS; i++) {
                var product = 0;
                for (var k = 0u; k < 8u; k++) { product += dot4I8Packed(raw_word(raw[i], k), q[k / 4u][k % 4u]); }
                acc[j * COLS + i] = add_product(acc[j * COLS + i], product, scale[i], step, 1.0);
            }
        }
    }
    for (var j = 0u; j < TILE; j++) {
        for (var i = 0u; i < OUT_COLS; i++) {
            let row = first_row + j;
            let col = first_col + i * WG;
            if (row < rows && col < params.cols) {
                write_out(row, col, combined(acc[j * COLS + i], acc[j * COLS + COLS - OUT_COLS + i]));
            }
        }
    }
}
