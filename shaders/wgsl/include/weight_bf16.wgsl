// Weights in bfloat16: [rows][cols / 8], eight of them in a vec4<u32>, the lower half first. Widening is exact.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

fn block_scale(block: u32) -> vec2<f32> { return vec2<f32>(0.0); }
fn widen(w: u32) -> vec2<f32> { return bitcast<vec2<f32>>(vec2<u32>(w << 16u, w & 0xffff0000u)); }
fn weights8(at: u32, scale: vec2<f32>) -> Vec8 {
    let w = weights[at];
    return Vec8(vec4<f32>(widen(w.x), widen(w.y)), vec4<f32>(widen(w.z), widen(w.w)));
}
