//! Cases of tokens that a step takes from the one before it, without the host.

use super::{
    CaseData, CaseStep, KernelCase, SeqPlan, SplitMix64, StepData, X, dense_program, logits_by, matrix, tokens_by,
};
use crate::backend::{ActId, FedToken, Op, SampledBy, TokenDraw, WeightFormat, WeightId};

const VOCAB: u32 = 131;
const HIDDEN: u32 = 64;
const LOGITS: ActId = ActId(1);

pub(super) fn cases() -> Vec<KernelCase> {
    let few = KernelCase::new("feed_tokens", "few".to_owned(), 1e-6, |rng| data(rng, 4)).quick_if(true);
    let many = KernelCase::new("feed_tokens", "many".to_owned(), 1e-6, |rng| data(rng, 40));
    vec![few, many]
}

/// Sequences of one token each. Every step samples one token of each, by argmax and by a draw in turn; in the later ones
/// most embed what another has sampled in the step before.
fn data(rng: &mut SplitMix64, seqs: u32) -> CaseData {
    let table = matrix(rng, "embedding", HIDDEN as usize, &[(WeightFormat::F32, VOCAB as usize)]);
    let activations = vec![tokens_by("out", HIDDEN), logits_by("logits", VOCAB)];
    let (mut program, kv) = dense_program(activations, Some(Op::Embed { table: WeightId(0), out: X }));
    program.logits = Some(LOGITS);
    let steps = (0..4).map(|step| {
        let plans: Vec<SeqPlan> = (0..seqs).map(|_| SeqPlan { context_len: 0, query_len: 1, table: vec![0] }).collect();
        let mut data = StepData::new(&plans);
        data.token_ids.fill_with(|| rng.below(VOCAB));
        data.logits_indices = (0..seqs).collect();
        data.draws = (0..seqs).map(likeliest).collect();
        let mut logits = rng.values((seqs * VOCAB) as usize, 1.0);
        // Nothing can be drawn from one row.
        logits[VOCAB as usize..][..VOCAB as usize].fill(f32::NEG_INFINITY);
        if step > 0 {
            data.fed_tokens = (0..seqs).filter(|seq| seq % 5 != 3).map(|seq| fed(seq, seqs, step)).collect();
        }
        CaseStep::new(data).input(LOGITS, logits).output(X)
    });
    CaseData { weights: vec![table], program, kv, steps: steps.collect() }
}

fn fed(seq: u32, seqs: u32, step: u32) -> FedToken {
    let other = (seq + step) % seqs;
    // An argmax of nothing is no token.
    let from = if seq.is_multiple_of(2) && other != 1 { SampledBy::Argmax(other) } else { SampledBy::Draw(other) };
    FedToken { token: seq, from }
}

/// A draw of the likeliest token of a row.
pub(super) fn likeliest(row: u32) -> TokenDraw {
    TokenDraw { top_k: 1, uniform: 0.5, ..TokenDraw::unfiltered(row) }
}
