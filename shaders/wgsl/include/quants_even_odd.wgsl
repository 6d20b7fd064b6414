// Of eight elements of x the even ones are a word and the odd ones another, as a word of nibbles gives them by one mask.
fn octet_words(a: vec4<i32>, b: vec4<i32>) -> vec2<u32> {
    return vec2<u32>(word(vec4<i32>(a.xz, b.xz)), word(vec4<i32>(a.yw, b.yw)));
}
