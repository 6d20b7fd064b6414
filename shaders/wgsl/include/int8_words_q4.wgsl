// Eight elements of x as two words, the even ones and the odd ones, as one mask leaves the nibbles of Q4_1.
fn octet_words(a: vec4<i32>, b: vec4<i32>) -> vec2<u32> {
    return vec2<u32>(word(vec4<i32>(a.xz, b.xz)), word(vec4<i32>(a.yw, b.yw)));
}
