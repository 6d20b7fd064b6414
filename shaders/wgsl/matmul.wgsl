// out = x W^T for many rows of x: 64 x 64 tiles staged through workgroup memory, 4 x 4 outputs for each invocation, f32
// accumulation.
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

const TILE_ROWS = 64u;
const TILE_COLS = 64u;
var<workgroup> tile_x: array<vec4<f32>, 64u * 8u>;
var<workgroup> tile_w: array<vec4<f32>, 64u * 8u>;

@compute @workgroup_size(256)
fn matmul(@builtin(local_invocation_index) li: u32, @builtin(workgroup_id) wg: vec3<u32>) {
    let rows = num_rows(params.rows);
    let first_row = wg.y * TILE_ROWS;
    let first_col = wg.x * TILE_COLS;
    // Staging: invocation li loads octet li % 4 of row li / 4, of x and of the weight. Quads are stored k-major, so that
    // the product reads neighbouring rows from neighbouring addresses.
    let stage_row = li / 4u;
    let stage_octet = li % 4u;
    let x_row = min(first_row + stage_row, rows - 1u);
    let w_row = min(first_col + stage_row, params.cols - 1u);
    let tile_row = li / 16u;
    let tile_col = li % 16u;
    var acc: array<vec4<f32>, 4>;
    for (var j = 0u; j < 4u; j++) { acc[j] = vec4<f32>(0.0); }
    for (var block = 0u; block < params.blocks; block++) {
        let x_at = (x_row * params.blocks + block) * 8u + stage_octet * 2u;
        let w_at = block_index(w_row, block, params.blocks);
        let w = weights8(w_at * 4u + stage_octet, block_scale(w_at));
        workgroupBarrier();
        tile_x[(stage_octet * 2u) * 64u + stage_row] = x[x_at];
        tile_x[(stage_octet * 2u + 1u) * 64u + stage_row] = x[x_at + 1u];
        tile_w[(stage_octet * 2u) * 64u + stage_row] = w.lo;
        tile_w[(stage_octet * 2u + 1u) * 64u + stage_row] = w.hi;
        workgroupBarrier();
        for (var k = 0u; k < 8u; k++) {
            let w0 = tile_w[k * 64u + tile_col];
            let w1 = tile_w[k * 64u + tile_col + 16u];
            let w2 = tile_w[k * 64u + tile_col + 32u];
            let w3 = tile_w[k * 64u + tile_col + 48u];
            for (var j = 0u; j < 4u; j++) {
                let xk = tile_x[k * 64u + tile_row + 16u * j];
                acc[j] += vec4<f32>(dot(xk, w0), dot(xk, w1), dot(xk, w2), dot(xk, w3));
            }
        }
    }
    for (var j = 0u; j < 4u; j++) {
        for (var i = 0u; i < 4u; i++) {
            let row = first_row + tile_row + 16u * j;
            let col = first_col + tile_col + 16u * i;
            if (row < rows && col < params.cols) {
                let at = row * params.out_stride + params.out_offset + col;
                var value = acc[j][i];
                if (params.has_bias == 1u) { value += bias[params.out_offset + col]; }
                if (params.accumulate == 1u) { value += out[at]; }
                out[at] = value;
            }
        }
    }
}
