// Weights in floats as halves, in the order of the columns of x.
fn weight_halves(w: RawOctet, scale: vec2<f32>) -> Halves { return halves8(unpack_weights(w, scale)); }
fn x_halves(v: Vec8) -> Halves { return halves8(v); }
