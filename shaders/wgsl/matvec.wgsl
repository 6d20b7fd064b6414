// out = x W^T for few rows of x: a workgroup sums over COLS rows of the weight for up to TILE rows of x, its invocations
// striding over the columns of x, so that each weight is read once.
const OUT_COLS = COLS / PARTS;

@compute @workgroup_size(REDUCE_WG)
fn matvec(inv: Invocation) {
    let rows = num_rows(params.rows);
    let octets = params.blocks * 4u;
    let first_col = (inv.workgroup.y * params.grid_width + inv.workgroup.x) * OUT_COLS;
    var acc: array<f32, TILE * COLS>;
    for (var i = 0u; i < TILE * COLS; i++) { acc[i] = 0.0; }
    var squares: array<f32, TILE>;
    for (var j = 0u; j < TILE; j++) { squares[j] = 0.0; }
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
            squares[j] = add_squares(add_squares(squares[j], v.lo), v.hi);
            let xs = Vec8(weighted(v.lo, 2u * octet), weighted(v.hi, 2u * octet + 1u));
            for (var i = 0u; i < COLS; i++) { acc[j * COLS + i] += dot8(w[i], xs); }
        }
    }
    for (var j = 0u; j < TILE; j++) {
        var factor = 1.0;
        if (NORMED) { factor = inverse_rms(workgroup_sum(squares[j], inv)); }
        for (var i = 0u; i < OUT_COLS; i += WIDTH) {
            var sums: Sums;
            for (var s = 0u; s < PARTS * WIDTH; s++) {
                sums[s] = workgroup_sum(acc[j * COLS + s / WIDTH * OUT_COLS + i + s % WIDTH], inv) * factor;
            }
            let col = first_col + i;
            if (inv.index == 0u && j < rows && col < params.cols) { finish(j, col, sums); }
        }
    }
}
