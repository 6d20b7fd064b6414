// A product's input rounded to int8 by `quantize_rows`: 32 of a block in two vec4, and the block's (d, d * sum of q), x = d * q.
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>; // [R][blocks * 2]
@group(0) @binding(4) var<storage, read> steps: array<vec2<f32>>;  // [R][blocks]
