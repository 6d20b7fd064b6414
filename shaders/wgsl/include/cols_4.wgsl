// Sums of a lane of matmul_cpu for a row of x, one for each of its rows of the weight.
const COLS = 4u;
alias Cols = vec4<f32>;
