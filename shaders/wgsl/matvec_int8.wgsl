// out = x W^T for few rows of x that `quantize_rows` has rounded to int8, and quantised weights: as `matvec`, but that four
// products are one of integers, exact within an octet, and their sums are f32.
const OUT_COLS = COLS / PARTS;

@compute @workgroup_size(REDUCE_WG)
fn matvec_int8(inv: Invocation) {
    let rows = num_rows(params.rows);
    let first_col = (inv.workgroup.y * params.grid_width + inv.workgroup.x) * OUT_COLS;
    var acc: array<f32, TILE * COLS>;
    for (var i = 0u; i < TILE * COLS; i++) { acc[i] = 0.0; }
    for (var at = inv.index; at < params.blocks * 4u; at += REDUCE_WG) {
        let block = at / 4u;
        let octet = at % 4u;
        var scale: array<vec2<f32>, COLS>;
        var w: array<vec2<u32>, COLS>;
        for (var i = 0u; i < COLS; i++) {
            let w_at = block_index(weight_row(first_col + i % OUT_COLS, i / OUT_COLS), block, params.blocks);
            scale[i] = block_scale(w_at);
            w[i] = weight_words(w_at, octet);
        }
        for (var j = 0u; j < TILE; j++) {
            let x_at = min(j, rows - 1u) * params.blocks + block;
            let step = steps[x_at];
            let four = quants[2u * x_at + octet / 2u];
            let q = select(four.xy, four.zw, (octet & 1u) == 1u);
            for (var i = 0u; i < COLS; i++) {
                let product = dot4I8Packed(w[i].x, q.x) + dot4I8Packed(w[i].y, q.y);
                acc[j * COLS + i] = add_product(acc[j * COLS + i], product, scale[i], step, octet);
            }
        }
    }
    for (var j = 0u; j < TILE; j++) {
        for (var i = 0u; i < OUT_COLS; i += WIDTH) {
            var sums: Sums;
            for (var s = 0u; s < PARTS * WIDTH; s++) {
                sums[s] = workgroup_sum(acc[j * COLS + s / WIDTH * OUT_COLS + i + s % WIDTH], inv);
            }
            let col = first_col + i;
            if (inv.index == 0u && j < rows && col < params.cols) { finish(j, col, sums); }
        }
    }
}
