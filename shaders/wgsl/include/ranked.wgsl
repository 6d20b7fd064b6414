// The order of the likeliest tokens: larger values first, equals by the lower column.
struct Ranked { value: f32, column: u32 }
const NO_COLUMN = 0xffffffffu;
const LOWEST = -3.4028234663852886e38; // the lowest finite f32
fn comes_after(value: f32, column: u32, last: Ranked) -> bool {
    return value < last.value || (value == last.value && column > last.column);
}
