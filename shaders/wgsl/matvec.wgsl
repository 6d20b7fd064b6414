// out = x W^T for few rows of x: a workgroup computes COLS output columns for up to TILE rows, its invocations striding
// over the columns of x, so that each weight is read once.
struct Params {
    blocks: u32,     // columns of x / 32
    cols: u32,       // rows of the weight in this binding
    out_stride: u32, // columns of out
    out_offset: u32, // first of out's columns that this binding fills
    rows: u32,       // ROWS_TOKENS or ROWS_LOGITS
    accumulate: u32, // 1: add to out
    has_bias: u32,   // 1: add bias[column of out]
    grid_width: u32, // workgroups along x, since wide matrices fold into y
}
var<immediate> params: Params;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;    // [R][blocks * 8]
@group(0) @binding(4) var<storage, read> bias: array<f32>;       // [out_stride]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;  // [R][out_stride]

@compute @workgroup_size(REDUCE_WG)
fn matvec(inv: Invocation) {
    let rows = num_rows(params.rows);
    let octets = params.blocks * 4u;
    let first_col = (inv.workgroup.y * params.grid_width + inv.workgroup.x) * COLS;
    var acc: array<f32, TILE * COLS>;
    for (var i = 0u; i < TILE * COLS; i++) { acc[i] = 0.0; }
    for (var octet = inv.index; octet < octets; octet += REDUCE_WG) {
        var w: array<Vec8, COLS>;
        for (var i = 0u; i < COLS; i++) {
            let block = block_index(min(first_col + i, params.cols - 1u), octet / 4u, params.blocks);
            w[i] = weights8(block * 4u + octet % 4u, block_scale(block));
        }
        for (var j = 0u; j < TILE; j++) {
            let at = 2u * (min(j, rows - 1u) * octets + octet);
            let xs = Vec8(x[at], x[at + 1u]);
            for (var i = 0u; i < COLS; i++) { acc[j * COLS + i] += dot8(w[i], xs); }
        }
    }
    for (var j = 0u; j < TILE; j++) {
        for (var i = 0u; i < COLS; i++) {
            let sum = workgroup_sum(acc[j * COLS + i], inv);
            let col = first_col + i;
            if (inv.index == 0u && j < rows && col < params.cols) {
                let at = j * params.out_stride + params.out_offset + col;
                var value = sum;
                if (params.has_bias == 1u) { value += bias[params.out_offset + col]; }
                if (params.accumulate == 1u) { value += out[at]; }
                out[at] = value;
            }
        }
    }
}
