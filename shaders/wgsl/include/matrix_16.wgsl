// Cooperative matrices of 16 x 16.
const MATRIX = 16u;
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;

// What workgroup memory has of them is in cells of four elements: fewer and wider accesses.
const CELL = 4u;
alias Cell = vec4<f16>;
alias SumCell = vec4<f32>;
fn cell_of(quad: vec4<f16>, i: u32) -> Cell { return quad; }
// The quad with what its cell i is.
fn with_cell(quad: vec4<f32>, cell: SumCell, i: u32) -> vec4<f32> { return cell; }
