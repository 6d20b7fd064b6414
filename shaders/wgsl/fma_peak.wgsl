// Multiply-adds and nothing else: what the arithmetic units reach. Twelve sums to an invocation, each waiting only for
// itself: with one factor and one summand they fill the sixteen vector registers of a processor.
struct Params {
    rounds: u32, // of 48 multiply-adds each
    factor: f32, // below 1, so that the sums stay finite
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // [invocations], so that the sums are needed

@compute @workgroup_size(64)
fn fma_peak(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = vec4<f32>(params.factor);
    let summand = vec4<f32>(f32(step[NUM_TOKENS]));
    var a = vec4<f32>(f32(id.x & 7u));
    var b = a + 1.0;
    var c = a + 2.0;
    for (var i = 0u; i < params.rounds; i++) {
        a = fma(a, factor, summand); b = fma(b, factor, summand); c = fma(c, factor, summand);
        a = fma(a, factor, summand); b = fma(b, factor, summand); c = fma(c, factor, summand);
        a = fma(a, factor, summand); b = fma(b, factor, summand); c = fma(c, factor, summand);
        a = fma(a, factor, summand); b = fma(b, factor, summand); c = fma(c, factor, summand);
    }
    let sum = a + b + c;
    out[id.x] = sum.x + sum.y + sum.z + sum.w;
}
