// Tokens that the step before has sampled take their places among this step's token ids: the host does not know them yet.
// What could not be drawn becomes token 0.
@group(0) @binding(0) var<storage, read_write> step: array<u32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;   // [L] of the step before
@group(0) @binding(2) var<storage, read> drawn: array<u32>; // [D] of the step before

const NOTHING = 0xfffffffeu; // and above

@compute @workgroup_size(32)
fn feed_tokens(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= step[NUM_FED_TOKENS]) { return; }
    let fed = fed_token(id.x);
    var token = 0u;
    if ((fed.y & DRAWN) == 0u) {
        token = ids[fed.y];
    } else {
        token = drawn[fed.y & ~DRAWN];
    }
    step[step[TOKEN_IDS_AT] + fed.x] = select(token, 0u, token >= NOTHING);
}
