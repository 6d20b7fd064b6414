// out = x W^T for few rows of x: a workgroup sums over COLS rows of the weight for up to TILE rows of x, its invocations
// striding over the columns of x, so that each weight is read once.

// What an invocation has of an octet of columns, as it is loaded.
struct Loaded {
    words: array<RawOctet, COLS>,
    scales: array<u32, COLS>,
}
fn load(first_blocks: array<u32, COLS>, octet: u32) -> Loaded {
    var loaded: Loaded;
    for (var i = 0u; i < COLS; i++) {
        loaded.words[i] = raw_octet(octet_index(first_blocks[i], octet));
        loaded.scales[i] = raw_scale(block_of_octet(first_blocks[i], octet));
    }
    return loaded;
}

@compute @workgroup_size(REDUCE_WG)
fn matvec(inv: Invocation) {
    let rows = num_rows(params.rows);
    let octets = params.blocks * 4u;
    let first_col = first_col_of(inv);
    var first_blocks: array<u32, COLS>;
    for (var i = 0u; i < COLS; i++) {
        first_blocks[i] = block_index(weight_row(first_col + i % OUT_COLS, i / OUT_COLS), 0u, params.blocks);
    }
    var acc: array<f32, SUMS>;
    for (var s = 0u; s < SUMS; s++) { acc[s] = 0.0; }
    // Each octet is loaded while the one before is multiplied.
    var next: Loaded;
    if (inv.index < octets) { next = load(first_blocks, inv.index); }
    for (var octet = inv.index; octet < octets; octet += REDUCE_WG) {
        let loaded = next;
        if (octet + REDUCE_WG < octets) { next = load(first_blocks, octet + REDUCE_WG); }
        var w: array<Vec8, COLS>;
        var scale: array<vec2<f32>, COLS>;
        for (var i = 0u; i < COLS; i++) {
            w[i] = quants8(loaded.words[i]);
            scale[i] = scale_of(loaded.scales[i], block_of_octet(first_blocks[i], octet));
        }
        for (var j = 0u; j < TILE; j++) {
            let at = 2u * (min(j, rows - 1u) * octets + octet);
            let v = Vec8(x[at], x[at + 1u]);
            let xs = Vec8(weighted(v.lo, 2u * octet), weighted(v.hi, 2u * octet + 1u));
            var x_sum = 0.0;
            if (HAS_MINIMUM) { x_sum = dot(xs.lo + xs.hi, vec4<f32>(1.0)); }
            for (var i = 0u; i < COLS; i++) {
                let sum = j * ROW_SUMS + i;
                acc[sum] = add_scaled(acc[sum], dot8(w[i], xs), x_sum, scale[i]);
            }
            if (NORMED) {
                let squares = j * ROW_SUMS + COLS;
                acc[squares] = add_squares(add_squares(acc[squares], v.lo), v.hi);
            }
        }
    }
    finish_all(&acc, rows, inv);
}
