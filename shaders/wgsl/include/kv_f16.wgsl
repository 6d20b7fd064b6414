// KV elements are f16, two in a u32, the lower half first.
alias KvQuad = vec2<u32>;
alias KvOctet = vec4<u32>;
const SCALE_QUADS = 0u;
fn pack_quad(v: vec4<f32>) -> KvQuad {
    let c = clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    return vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw));
}
fn unpack_octet(w: KvOctet) -> Vec8 {
    return Vec8(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)), vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)));
}
