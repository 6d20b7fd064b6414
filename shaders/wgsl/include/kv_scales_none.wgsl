// Rows of float elements have no scale.
fn k_scale(page: u32, offset: u32) -> f32 { return 1.0; }
fn v_scale(page: u32, offset: u32) -> f32 { return 1.0; }
