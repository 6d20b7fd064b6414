// KV elements are signed bytes, four in a u32, the lowest first; an element is its byte times the scale of its row. The
// scales are f16, two in a u32, behind the rows of a page.
alias KvQuad = u32;
alias KvOctet = vec2<u32>;
const OCTET_BYTES = 8u;
const SCALE_QUADS = BLOCK_SIZE / 2u;
fn first_word(w: KvOctet) -> u32 { return w.x; }
// The bytes of an octet, not yet times their scale.
fn unpack_octet(w: KvOctet) -> Vec8 { return Vec8(bytes4(w.x), bytes4(w.y)); }
