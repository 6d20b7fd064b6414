// Draws of tokens. Logits are kept as keys: unsigned integers in the order of the logits, so that comparing them, and
// searching between them, is exact.
struct TokenDraw {
    row: u32,
    first_adjustment: u32,
    num_adjustments: u32,
    top_k: u32, // 0 for all
    top_p: f32,
    min_p: f32,
    temperature: f32,
    repetition_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    uniform: f32,
}
const DRAW_WORDS = 11u;
fn token_draw(i: u32) -> TokenDraw {
    let at = step[DRAWS_AT] + i * DRAW_WORDS;
    return TokenDraw(
        step[at], step[at + 1u], step[at + 2u], step[at + 3u], draw_float(at + 4u), draw_float(at + 5u),
        draw_float(at + 6u), draw_float(at + 7u), draw_float(at + 8u), draw_float(at + 9u), draw_float(at + 10u),
    );
}
fn draw_float(at: u32) -> f32 { return bitcast<f32>(step[at]); }

struct LogitAdjustment {
    token: u32,
    seen: u32,
    count: u32,
    bias: f32,
}
const ADJUSTMENT_WORDS = 4u;
fn logit_adjustment(i: u32) -> LogitAdjustment {
    let at = step[ADJUSTMENTS_AT] + i * ADJUSTMENT_WORDS;
    return LogitAdjustment(step[at], step[at + 1u], step[at + 2u], draw_float(at + 3u));
}

// Columns of a block, whose largest key is known.
const DRAW_BLOCK = 32u;
// Keys of -inf and below it, of the finite numbers, and of +inf and NaN.
const KEY_EXCLUDED = 0u;
const KEY_LOWEST = 0x00800000u;
const KEY_LARGEST = 0xff7fffffu;
const KEY_BROKEN = 0xffffffffu;

fn key_of(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    return bits ^ select(0x80000000u, 0xffffffffu, bits >= 0x80000000u);
}
fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, key >= 0x80000000u));
}
// exp((logit - largest) / temperature)
fn draw_weight(key: u32, largest: f32, temperature: f32) -> f32 { return exp((logit_of(key) - largest) / temperature); }
