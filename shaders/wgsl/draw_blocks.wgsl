// First stage of the draws, an invocation for each block of columns: adjusts its logits and keeps their keys, the largest of
// them, and the sum of exp((logit - largest) / temperature).
struct Params { vocab: u32, blocks: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;             // [L][vocab]
@group(0) @binding(2) var<storage, read_write> keys: array<u32>;         // [draws][blocks][DRAW_BLOCK]
@group(0) @binding(3) var<storage, read_write> stats: array<vec2<u32>>;  // [draws][blocks] (largest key, bits of the sum)

// The draw's first adjustment of this token or a later one.
fn adjustment_from(draw: TokenDraw, token: u32) -> u32 {
    var low = draw.first_adjustment;
    var high = low + draw.num_adjustments;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (logit_adjustment(middle).token < token) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}

// The key of a finite logit after its adjustment.
fn adjusted_key(logit: f32, draw: TokenDraw, by: LogitAdjustment) -> u32 {
    if (bitcast<u32>(by.bias) == 0xff800000u) { return KEY_EXCLUDED; }
    var x = logit + by.bias;
    if (by.seen != 0u) { x = select(x * draw.repetition_penalty, x / draw.repetition_penalty, x > 0.0); }
    if (by.count > 0u) { x = x - draw.frequency_penalty * f32(by.count) - draw.presence_penalty; }
    return clamp(key_of(x), KEY_LOWEST, KEY_LARGEST);
}

@compute @workgroup_size(32)
fn draw_blocks(@builtin(global_invocation_id) id: vec3<u32>) {
    let block = id.x;
    if (block >= params.blocks) { return; }
    let draw = token_draw(id.y);
    let out = id.y * params.blocks + block;
    let row = draw.row * params.vocab;
    let begin = block * DRAW_BLOCK;
    let end = min(begin + DRAW_BLOCK, params.vocab);
    let last_adjustment = draw.first_adjustment + draw.num_adjustments;
    var next = adjustment_from(draw, begin);
    var largest = KEY_EXCLUDED;
    for (var i = 0u; i < DRAW_BLOCK; i++) {
        let col = begin + i;
        var key = KEY_EXCLUDED;
        if (col < end) {
            let logit = logits[row + col];
            key = key_of(logit);
            // A NaN may have a sign.
            if (key > KEY_LARGEST || (bitcast<u32>(logit) & 0x7fffffffu) > 0x7f800000u) { key = KEY_BROKEN; }
            if (key < KEY_LOWEST) { key = KEY_EXCLUDED; }
            if (next < last_adjustment) {
                let by = logit_adjustment(next);
                if (by.token == col) {
                    next++;
                    if (key != KEY_EXCLUDED && key != KEY_BROKEN) { key = adjusted_key(logit, draw, by); }
                }
            }
        }
        keys[out * DRAW_BLOCK + i] = key;
        largest = max(largest, key);
    }
    var sum = 0.0;
    if (largest >= KEY_LOWEST && largest <= KEY_LARGEST) {
        for (var i = 0u; i < DRAW_BLOCK; i++) {
            let key = keys[out * DRAW_BLOCK + i];
            if (key >= KEY_LOWEST) { sum += draw_weight(key, logit_of(largest), draw.temperature); }
        }
    }
    stats[out] = vec2<u32>(largest, bitcast<u32>(sum));
}
