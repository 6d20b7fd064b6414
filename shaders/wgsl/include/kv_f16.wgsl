// KV elements are f16, two in a u32, the lower half first.
alias KvPair = u32;
alias KvQuad = vec2<u32>;
alias KvOctet = vec4<u32>;
const OCTET_BYTES = 16u;
const SCALE_QUADS = 0u;
fn first_word(w: KvOctet) -> u32 { return w.x; }
fn pack_pair(v: vec2<f32>) -> KvPair { return pack2x16float(clamp(v, vec2<f32>(-65504.0), vec2<f32>(65504.0))); }
fn pack_quad(v: vec4<f32>) -> KvQuad { return vec2<u32>(pack_pair(v.xy), pack_pair(v.zw)); }
fn unpack_octet(w: KvOctet) -> Vec8 {
    return Vec8(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)), vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)));
}
