// Log probabilities and ranks of tokens under their rows of logits, a workgroup for each: tokens that the host knows, or what
// this step has sampled.
struct Params { vocab: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;             // [L][vocab]
@group(0) @binding(2) var<storage, read> ids: array<u32>;                // [L] argmax
@group(0) @binding(3) var<storage, read> drawn: array<u32>;              // [draws]
@group(0) @binding(4) var<storage, read_write> scores: array<vec2<u32>>; // [scored] (bits of the log probability, rank)

@compute @workgroup_size(REDUCE_WG)
fn score_rows(inv: Invocation) {
    let scored = scored_row(inv.workgroup.x);
    var token = scored.y;
    if (scored.y >= DRAWN) { token = drawn[scored.y - DRAWN]; }
    else if (scored.y == ARGMAX) { token = ids[scored.x]; }
    let row = scored.x * params.vocab;
    // A draw may have given none.
    let own = logits[row + min(token, params.vocab - 1u)];
    var largest = logits[row];
    for (var col = inv.index; col < params.vocab; col += REDUCE_WG) { largest = max(largest, logits[row + col]); }
    largest = workgroup_max(largest, inv);
    var sums = vec3<f32>(0.0);
    for (var col = inv.index; col < params.vocab; col += REDUCE_WG) {
        let logit = logits[row + col];
        sums.x += exp(logit - largest);
        sums.y += select(0.0, 1.0, logit > own);
    }
    sums = workgroup_sum3(sums, inv);
    if (inv.index == 0u) {
        scores[inv.workgroup.x] = vec2<u32>(bitcast<u32>(own - largest - log(sums.x)), 1u + u32(sums.y));
    }
}
