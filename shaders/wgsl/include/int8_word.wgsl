// Four integers from -128 to 127 as one word, the first in its lowest byte. Not pack4xI8Clamp, which some drivers get wrong.
fn word(q: vec4<i32>) -> u32 {
    let bytes = (bitcast<vec4<u32>>(q) & vec4<u32>(255u)) << vec4<u32>(0u, 8u, 16u, 24u);
    return (bytes.x | bytes.y) | (bytes.z | bytes.w);
}
