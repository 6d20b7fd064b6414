// Sums of a lane of matmul_cpu for a row of x, one for each of its rows of the weight.
const COLS = 2u;
alias Cols = vec2<f32>;
