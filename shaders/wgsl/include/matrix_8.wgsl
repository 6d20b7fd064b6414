// Cooperative matrices of 8 x 8.
const MATRIX = 8u;
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;

// What workgroup memory has of them is in cells of one element: Metal, whose matrices these are, takes them through pointers to
// scalars only.
const CELL = 1u;
alias Cell = f16;
alias SumCell = f32;
fn cell_of(quad: vec4<f16>, i: u32) -> Cell { return quad[i]; }
// The quad with what its cell i is.
fn with_cell(quad: vec4<f32>, cell: SumCell, i: u32) -> vec4<f32> {
    var changed = quad;
    changed[i] = cell;
    return changed;
}
