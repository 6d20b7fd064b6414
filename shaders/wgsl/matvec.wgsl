// out = x W^T for few rows of x: a workgroup sums over COLS rows of the weight for up to TILE rows of x, its invocations
// striding over the columns of x, so that each weight is read once.
@compute @workgroup_size(REDUCE_WG)
fn matvec(inv: Invocation) {
    let rows = num_rows(params.rows);
    let octets = params.blocks * 4u;
    let first_col = first_col_of(inv);
    var acc: array<f32, SUMS>;
    for (var s = 0u; s < SUMS; s++) { acc[s] = 0.0; }
    for (var octet = inv.index; octet < octets; octet += REDUCE_WG) {
        var w: array<Vec8, COLS>;
        for (var i = 0u; i < COLS; i++) {
            let row = weight_row(first_col + i % OUT_COLS, i / OUT_COLS);
            let block = block_index(row, octet / 4u, params.blocks);
            w[i] = weights8(block * 4u + octet % 4u, block_scale(block));
        }
        for (var j = 0u; j < TILE; j++) {
            let at = 2u * (min(j, rows - 1u) * octets + octet);
            let v = Vec8(x[at], x[at + 1u]);
            let xs = Vec8(weighted(v.lo, 2u * octet), weighted(v.hi, 2u * octet + 1u));
            for (var i = 0u; i < COLS; i++) { acc[j * ROW_SUMS + i] += dot8(w[i], xs); }
            if (NORMED) {
                let squares = j * ROW_SUMS + COLS;
                acc[squares] = add_squares(add_squares(acc[squares], v.lo), v.hi);
            }
        }
    }
    finish_all(&acc, rows, inv);
}
