// KV elements are f32. A row is HEAD_DIM elements of one head and slot.
alias KvPair = vec2<f32>;
struct KvOctet { lo: vec4<f32>, hi: vec4<f32> }
fn unpack_pair(w: KvPair) -> vec2<f32> { return w; }
fn pack_pair(v: vec2<f32>) -> KvPair { return v; }
fn unpack_octet(w: KvOctet) -> Vec8 { return Vec8(w.lo, w.hi); }
