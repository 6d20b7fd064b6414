// The plane of nibbles by blocks: one wide load for each.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
fn raw_octet(at: u32) -> RawOctet { return weights[at / 4u][at % 4u]; }
