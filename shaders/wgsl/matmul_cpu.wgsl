// out = x W^T for software adapters: a lane computes COLS output columns for TILE rows of x.
//
// Such adapters run a subgroup as one vector register, where loads by lane are slow (less so when they are wide) and a
// shuffle is one instruction. So a subgroup loads a block of 32 x at once, a quad in each lane, and shuffles single
// elements to all lanes; no workgroup memory, no barrier. Every lane stays active to the end, or the shuffles would read
// undefined values.
struct Params {
    blocks: u32,     // columns of x / 32
    cols: u32,       // rows of the weight in this binding
    out_stride: u32, // columns of out
    out_offset: u32, // first of out's columns that this binding fills
    rows: u32,       // ROWS_TOKENS or ROWS_LOGITS
    accumulate: u32, // 1: add to out
    has_bias: u32,   // 1: add bias[column of out]
    grid_width: u32, // read by matvec only
}
var<immediate> params: Params;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;    // [R][blocks * 8]
@group(0) @binding(4) var<storage, read> bias: array<f32>;       // [out_stride]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;  // [R][out_stride]


@compute @workgroup_size(WG)
fn matmul_cpu(
    @builtin(local_invocation_index) li: u32,
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let rows = num_rows(params.rows);
    let first_col = wg.x * (WG * COLS) + li;
    let first_row = wg.y * TILE;
    var acc: array<f32, TILE * COLS>;
    for (var i = 0u; i < TILE * COLS; i++) { acc[i] = 0.0; }
    for (var block = 0u; block < params.blocks; block++) {
        var scale: array<vec2<f32>, COLS>;
        var raw: array<RawBlock, COLS>;
        for (var i = 0u; i < COLS; i++) {
            let at = block_index(min(first_col + i * WG, params.cols - 1u), block, params.blocks);
            scale[i] = block_scale(at);
            raw[i] = raw_block(at);
        }
        // Quad q of row j is in lane q % SUBGROUP_SIZE of xs[q / SUBGROUP_SIZE * TILE + j].
        var xs: array<vec4<f32>, TILE * X_REGISTERS>;
        for (var j = 0u; j < TILE; j++) {
            let at = (min(first_row + j, rows - 1u) * params.blocks + block) * 8u + lane;
            for (var h = 0u; h < X_REGISTERS; h++) { xs[h * TILE + j] = x[at + h * SUBGROUP_SIZE]; }
        }
        for (var octet = 0u; octet < 4u; octet++) {
            for (var e = 0u; e < 8u; e++) {
                var w: array<f32, COLS>;
                for (var i = 0u; i < COLS; i++) { w[i] = raw_weight(raw[i], e, scale[i]); }
                let quad = 2u * octet + e / 4u;
                let half = min(quad / SUBGROUP_SIZE, X_REGISTERS - 1u); // constant where there is one register
                for (var j = 0u; j < TILE; j++) {
                    let xe = subgroupShuffle(xs[half * TILE + j][e % 4u], quad % SUBGROUP_SIZE);
                    for (var i = 0u; i < COLS; i++) { acc[j * COLS + i] = fma(w[i], xe, acc[j * COLS + i]); }
                }
            }
            for (var i = 0u; i < COLS; i++) { raw[i] = next_octet(raw[i]); }
        }
    }
    for (var j = 0u; j < TILE; j++) {
        for (var i = 0u; i < COLS; i++) {
            let row = first_row + j;
            let col = first_col + i * WG;
            if (row < rows && col < params.cols) {
                let at = row * params.out_stride + params.out_offset + col;
                var value = acc[j * COLS + i];
                if (params.has_bias == 1u) { value += bias[params.out_offset + col]; }
                if (params.accumulate == 1u) { value += out[at]; }
                out[at] = value;
            }
        }
    }
}
