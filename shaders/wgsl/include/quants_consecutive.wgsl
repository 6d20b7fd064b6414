// Elements of x lie as they come, four to a word, as those of Q8_0 do.
fn octet_words(a: vec4<i32>, b: vec4<i32>) -> vec2<u32> { return vec2<u32>(word(a), word(b)); }
