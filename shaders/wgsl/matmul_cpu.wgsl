// out = x W^T for software adapters: a lane sums over COLS rows of the weight for TILE rows of x.
//
// Such adapters run a subgroup as one vector register, where loads by lane are slow (less so when they are wide) and a
// shuffle is one instruction. So a subgroup loads a block of 32 x at once, a quad in each lane, and shuffles single
// elements to all lanes; no workgroup memory, no barrier. Every lane stays active to the end, or the shuffles would read
// undefined values.
const OUT_COLS = COLS / PARTS;

// Column i of those of a lane, behind its first: WIDTH neighbours, then the next of the workgroup.
fn col_of(i: u32) -> u32 { return i / WIDTH * WIDTH * WG + i % WIDTH; }

@compute @workgroup_size(WG)
fn matmul_cpu(
    @builtin(local_invocation_index) li: u32,
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let rows = num_rows(params.rows);
    let first_col = wg.x * (WG * OUT_COLS) + li * WIDTH;
    let first_row = wg.y * TILE;
    var acc: array<Cols, TILE>;
    for (var j = 0u; j < TILE; j++) { acc[j] = Cols(0.0); }
    var squares: array<f32, TILE>;
    for (var j = 0u; j < TILE; j++) { squares[j] = 0.0; }
    // Quad q of row j is in lane q % SUBGROUP_SIZE of xs[q / SUBGROUP_SIZE * TILE + j]. Not of the loop, as w is: naga 30 would
    // write the zeros of both, types of one name in HLSL, as one function twice.
    var xs: array<vec4<f32>, TILE * X_REGISTERS>;
    for (var block = 0u; block < params.blocks; block++) {
        var scale: array<vec2<f32>, COLS>;
        var held: array<HeldBlock, COLS>;
        for (var i = 0u; i < COLS; i++) {
            let row = weight_row(first_col + col_of(i % OUT_COLS), i / OUT_COLS);
            let at = block_index(row, block, params.blocks);
            scale[i] = block_scale(at);
            held[i] = hold_block(at);
        }
        for (var j = 0u; j < TILE; j++) {
            let row_at = min(first_row + j, rows - 1u) * params.blocks * 8u;
            for (var h = 0u; h < X_REGISTERS; h++) {
                let quad = block * 8u + h * SUBGROUP_SIZE + lane;
                let v = x[row_at + quad];
                squares[j] = add_squares(squares[j], v);
                xs[h * TILE + j] = weighted(v, quad);
            }
        }
        for (var octet = 0u; octet < 4u; octet++) {
            var w: array<Cols, 8>;
            for (var i = 0u; i < COLS; i++) {
                let eight = held_octet(held[i], scale[i]);
                for (var e = 0u; e < 4u; e++) {
                    w[e][i] = eight.lo[e];
                    w[4u + e][i] = eight.hi[e];
                }
                held[i] = after_octet(held[i]);
            }
            for (var j = 0u; j < TILE; j++) {
                for (var e = 0u; e < 8u; e++) {
                    let quad = 2u * octet + e / 4u;
                    let half = min(quad / SUBGROUP_SIZE, X_REGISTERS - 1u); // constant where there is one register
                    let xe = subgroupShuffle(xs[half * TILE + j][e % 4u], quad % SUBGROUP_SIZE);
                    acc[j] = fma(w[e], Cols(xe), acc[j]);
                }
            }
        }
    }
    for (var j = 0u; j < TILE; j++) {
        var factor = 1.0;
        if (NORMED) { factor = inverse_rms(subgroupAdd(squares[j])); }
        for (var i = 0u; i < OUT_COLS; i += WIDTH) {
            let row = first_row + j;
            let col = first_col + col_of(i);
            var sums: Sums;
            for (var s = 0u; s < PARTS * WIDTH; s++) { sums[s] = acc[j][s / WIDTH * OUT_COLS + i + s % WIDTH] * factor; }
            if (row < rows && col < params.cols) { finish(row, col, sums); }
        }
    }
}
