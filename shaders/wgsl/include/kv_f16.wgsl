// KV elements are f16, two in a u32, the lower half first. A row is HEAD_DIM elements of one head and slot.
alias KvPair = u32;
alias KvOctet = vec4<u32>;
fn unpack_pair(w: KvPair) -> vec2<f32> { return unpack2x16float(w); }
fn pack_pair(v: vec2<f32>) -> KvPair { return pack2x16float(clamp(v, vec2<f32>(-65504.0), vec2<f32>(65504.0))); }
fn unpack_octet(w: KvOctet) -> Vec8 {
    return Vec8(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)), vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)));
}
