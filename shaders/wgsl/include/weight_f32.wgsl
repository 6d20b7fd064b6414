// Weights in f32: [rows][cols / 8] pairs of vec4.
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;

fn block_scale(block: u32) -> vec2<f32> { return vec2<f32>(0.0); }
fn weights8(at: u32, scale: vec2<f32>) -> Vec8 { return Vec8(weights[2u * at], weights[2u * at + 1u]); }
