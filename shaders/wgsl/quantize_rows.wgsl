// Rows of x to int8, for products with quantised weights: every block of 32 has a step of its own, d = max |x| / 127, and
// x = d * q. A norm before the product goes first. One workgroup for each row.
struct Params {
    blocks: u32,   // columns / 32
    norm_eps: f32, // read where x is normalised
}
var<immediate> params: Params;
@group(0) @binding(5) var<storage, read_write> quants: array<vec4<u32>>; // [R][blocks * 2]
@group(0) @binding(6) var<storage, read_write> steps: array<vec2<f32>>;  // [R][blocks]: d, d * sum of q

@compute @workgroup_size(REDUCE_WG)
fn quantize_rows(inv: Invocation) {
    let first_block = inv.workgroup.x * params.blocks;
    var factor = 1.0;
    if (NORMED) {
        var squares = 0.0;
        for (var quad = inv.index; quad < params.blocks * 8u; quad += REDUCE_WG) {
            squares = add_squares(squares, x[first_block * 8u + quad]);
        }
        factor = inverse_rms(workgroup_sum(squares, inv));
    }
    for (var block = inv.index; block < params.blocks; block += REDUCE_WG) {
        let at = first_block + block;
        var v: array<vec4<f32>, 8>;
        var most = vec4<f32>(0.0);
        for (var k = 0u; k < 8u; k++) {
            v[k] = weighted(x[at * 8u + k], block * 8u + k) * factor;
            most = max(most, abs(v[k]));
        }
        let largest = max(max(most.x, most.y), max(most.z, most.w));
        // A block too small to divide by is zero.
        let inverse = select(0.0, 127.0 / largest, largest > 1e-30);
        var words: array<u32, 8>;
        var sum = vec4<i32>(0);
        for (var octet = 0u; octet < 4u; octet++) {
            let a = vec4<i32>(round(v[2u * octet] * inverse));
            let b = vec4<i32>(round(v[2u * octet + 1u] * inverse));
            sum += a + b;
            let pair = octet_words(a, b);
            words[2u * octet] = pair.x;
            words[2u * octet + 1u] = pair.y;
        }
        quants[2u * at] = vec4<u32>(words[0], words[1], words[2], words[3]);
        quants[2u * at + 1u] = vec4<u32>(words[4], words[5], words[6], words[7]);
        let d = largest / 127.0;
        steps[at] = vec2<f32>(d, d * f32((sum.x + sum.y) + (sum.z + sum.w)));
    }
}
