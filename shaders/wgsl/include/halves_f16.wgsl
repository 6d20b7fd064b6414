// Weights in f16 as they are, in the order of the columns of x.
fn weight_halves(w: RawOctet, scale: vec2<f32>) -> Halves { return Halves(halves_in(w.xy), halves_in(w.zw)); }
fn x_halves(v: Vec8) -> Halves { return halves8(v); }
