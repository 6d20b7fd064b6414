// Token ids to embedding rows: out[t] = table[token_ids[t]], dequantised. A table that spans several bindings is read by
// one dispatch for each; a token whose row lies elsewhere is skipped.
struct Params {
    octets: u32,    // columns / 8
    first_row: u32, // of the table, in this binding
    num_rows: u32,
}
var<immediate> params: Params;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [T][octets * 2]

@compute @workgroup_size(32)
fn embed(@builtin(global_invocation_id) id: vec3<u32>) {
    let octet = id.x;
    let token = id.y;
    if (octet >= params.octets) { return; }
    let row = token_id(token) - params.first_row; // wraps when below
    if (row >= params.num_rows) { return; }
    let block = block_index(row, octet / 4u, params.octets / 4u);
    let w = weights8(block * 4u + octet % 4u, block_scale(block));
    let out_at = 2u * (token * params.octets + octet);
    out[out_at] = w.lo;
    out[out_at + 1u] = w.hi;
}
