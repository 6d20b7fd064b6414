@group(0) @binding(0) var<storage, read> step: array<u32>;
