// KV elements are f32.
alias KvPair = vec2<f32>;
alias KvQuad = vec4<f32>;
struct KvOctet { lo: vec4<f32>, hi: vec4<f32> }
const OCTET_BYTES = 32u;
const SCALE_QUADS = 0u;
fn first_word(w: KvOctet) -> u32 { return bitcast<u32>(w.lo.x); }
fn pack_pair(v: vec2<f32>) -> KvPair { return v; }
fn pack_quad(v: vec4<f32>) -> KvQuad { return v; }
fn unpack_octet(w: KvOctet) -> Vec8 { return Vec8(w.lo, w.hi); }
