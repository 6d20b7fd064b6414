// Rows of float elements have no scale.
alias RawScale = u32;
fn scale_in(none: RawScale, offset: u32) -> f32 { return 1.0; }
fn raw_k_scale(page: u32, offset: u32) -> RawScale { return 0u; }
fn raw_v_scale(page: u32, offset: u32) -> RawScale { return 0u; }
fn k_scale(page: u32, offset: u32) -> f32 { return 1.0; }
fn v_scale(page: u32, offset: u32) -> f32 { return 1.0; }
