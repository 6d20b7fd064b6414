// The plane of nibbles by octets: neighbours read neighbouring words.
@group(0) @binding(1) var<storage, read> weights: array<u32>;
fn raw_octet(at: u32) -> RawOctet { return weights[at]; }
