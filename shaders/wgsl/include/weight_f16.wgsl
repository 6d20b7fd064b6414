// Weights in f16: [rows][cols / 8], eight halves in a vec4<u32>, the lower half first.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

fn block_scale(block: u32) -> vec2<f32> { return vec2<f32>(0.0); }
fn weights8(at: u32, scale: vec2<f32>) -> Vec8 {
    let w = weights[at];
    return Vec8(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)), vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)));
}
