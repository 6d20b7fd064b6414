// out = x W^T for few rows of x that `quantize_rows` has rounded to int8, and quantised weights: as `matvec`, but that four
// products are one of integers, exact within an octet, and their sums are f32.
@compute @workgroup_size(REDUCE_WG)
fn matvec_int8(inv: Invocation) {
    let rows = num_rows(params.rows);
    let first_col = first_col_of(inv);
    var acc: array<f32, SUMS>;
    for (var s = 0u; s < SUMS; s++) { acc[s] = 0.0; }
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
                acc[j * ROW_SUMS + i] = add_product(acc[j * ROW_SUMS + i], product, scale[i], step, octet);
            }
        }
    }
    finish_all(&acc, rows, inv);
}
