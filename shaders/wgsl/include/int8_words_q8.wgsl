// Eight elements of x as two words, as they come, like the bytes of Q8_0.
fn octet_words(a: vec4<i32>, b: vec4<i32>) -> vec2<u32> { return vec2<u32>(word(a), word(b)); }
