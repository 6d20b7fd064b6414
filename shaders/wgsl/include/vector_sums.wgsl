// How a product of few rows of x ends: a workgroup has COLS rows of the weight, and each invocation a part of their sums.
const OUT_COLS = COLS / PARTS;
const ROW_SUMS = COLS + select(0u, 1u, NORMED); // of a row of x: by each row of the weight, and of its squares
const SUMS = TILE * ROW_SUMS;

fn first_col_of(inv: Invocation) -> u32 {
    return (inv.workgroup.y * params.grid_width + inv.workgroup.x) * OUT_COLS;
}
// An invocation for each result, side by side.
fn finish_all(parts: ptr<function, array<f32, SUMS>>, rows: u32, inv: Invocation) {
    add_up(parts, inv);
    for (var result = inv.index; result < TILE * OUT_COLS / WIDTH; result += REDUCE_WG) {
        let row = result / (OUT_COLS / WIDTH);
        let i = result % (OUT_COLS / WIDTH) * WIDTH;
        let col = first_col_of(inv) + i;
        if (row < rows && col < params.cols) {
            var factor = 1.0;
            if (NORMED) { factor = inverse_rms(sum_of_all(row * ROW_SUMS + COLS, inv)); }
            var sums: Sums;
            for (var s = 0u; s < PARTS * WIDTH; s++) {
                sums[s] = sum_of_all(row * ROW_SUMS + s / WIDTH * OUT_COLS + i + s % WIDTH, inv) * factor;
            }
            finish(row, col, sums);
        }
    }
}
