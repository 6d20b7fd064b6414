// What the matrix products out = x W^T have in common, apart from x and from how their sums leave: PARTS rows of the weight
// make one column, and WIDTH columns leave at once.
struct Params {
    blocks: u32,     // columns of x / 32
    cols: u32,       // columns that this binding of the weight makes
    out_stride: u32, // columns of out
    first_row: u32,  // of the weight in this binding
    rows: u32,       // ROWS_TOKENS or ROWS_LOGITS
    flags: u32,      // ACCUMULATE, BIAS
    grid_width: u32, // workgroups along x, since wide matrices fold into y: read by matvec only
    norm_eps: f32,   // read where x is normalised
}
var<immediate> params: Params;
@group(0) @binding(5) var<storage, read> bias: array<f32>;      // [rows of the weight]
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // [R][out_stride]

const ACCUMULATE = 1u; // add to out
const BIAS = 2u;       // add bias[row of the weight]

// Those of WIDTH columns: their first parts, then their last.
alias Sums = array<f32, PARTS * WIDTH>;

fn bias_of(weight_row: u32) -> f32 {
    if ((params.flags & BIAS) == 0u) { return 0.0; }
    return bias[weight_row];
}

fn write_out(row: u32, col: u32, product: f32) {
    let column = params.first_row + col;
    let at = row * params.out_stride + column;
    var value = product + bias_of(column);
    if ((params.flags & ACCUMULATE) != 0u) { value += out[at]; }
    out[at] = value;
}
