//! Attention: each part, with and without a mask, however its operands lie.

use crate::layout::Layout;
use crate::support::{Case, Rng};
use crate::{FLOATS, Tested, check, factors, tunings};
use gradus_ir::op::Op;
use gradus_ir::op::attention::{AttentionPart, AttentionShape};
use gradus_ir::{DType, Data, Shape};

/// Batch, heads that share keys, queries, keys, numbers of a key, numbers of a value: one of everything; nothing at all; more
/// queries than keys, so that some look at nothing if causal; sizes that fill vectors and such that do not; several blocks, of few
/// heads and of many.
const EXTENTS: [(&[usize], [usize; 5]); 11] = [
    (&[], [1, 1, 1, 1, 1]),
    (&[2], [1, 3, 5, 4, 4]),
    (&[2, 2], [2, 7, 9, 8, 5]),
    (&[1], [3, 6, 4, 3, 8]),
    (&[3], [2, 0, 5, 4, 4]),
    (&[0], [2, 3, 5, 4, 4]),
    (&[2], [1, 1, 33, 16, 16]),
    (&[3], [2, 33, 1, 6, 7]),
    (&[1], [2, 130, 67, 16, 16]),
    (&[9], [1, 130, 3, 2, 2]),
    (&[2], [1, 70, 300, 12, 20]),
];

fn check_attention(
    on: &Tested,
    (batch, inner): (&[usize], [usize; 5]),
    dtype: DType,
    causal: bool,
    masked: bool,
    (layouts, turn): (&[Layout], usize),
) {
    let [group, queries, keys, width, values] = inner;
    let shape = AttentionShape { batch: Shape::new(batch), group, queries, keys, width, values };
    let with = |inner: &[usize]| [batch, inner].concat();
    let layout = |place: usize| layouts[(turn + place) % layouts.len()];
    let mut case = Case::default();
    let mut operand = |place: usize, shape: &[usize]| {
        layout(place).operand(&mut case, shape, |len| factors(dtype, len, 7 + place as u64))
    };
    let query = operand(0, &with(&[group, queries, width]));
    let key = operand(1, &with(&[keys, width]));
    let value = operand(2, &with(&[keys, values]));
    let cotangent = operand(3, &with(&[group, queries, values]));
    let products = operand(4, &with(&[group, queries]));
    let mask = masked.then(|| {
        layout(5).operand(&mut case, &shape.logits(), |len| {
            let mut rng = Rng(len as u64);
            Data::Bool((0..len).map(|_| rng.below(3) > 0).collect())
        })
    });
    let mut part = |part: AttentionPart, operands: &[usize]| {
        let operands: Vec<usize> = operands.iter().copied().chain(mask).collect();
        case.op(Op::Attention { part, causal }, &operands)
    };
    let [output, sums] = [AttentionPart::Output, AttentionPart::LogSumExp].map(|p| part(p, &[query, key, value]));
    let all = [query, key, value, cotangent, sums, products];
    let gradients = [AttentionPart::GradQuery, AttentionPart::GradKey, AttentionPart::GradValue].map(|p| part(p, &all));
    let what =
        &("attention", batch, inner, dtype, ["", "causal"][causal as usize], ["", "masked"][masked as usize], turn);
    // Together, and each alone: a CPU finds gradients that are wanted at once by another walk.
    gradients.iter().for_each(|&gradient| check(on, case.clone(), &[gradient], what));
    check(on, case.clone(), &gradients[..2], what);
    check(on, case, &[&[output, sums], &gradients[..]].concat(), what);
}

#[test]
fn attention() {
    let whole: Vec<Layout> = Layout::ALL.into_iter().filter(|&layout| layout != Layout::Padded).collect();
    for on in &tunings() {
        for (i, extents) in EXTENTS.into_iter().enumerate() {
            for (j, dtype) in on.of(&FLOATS).into_iter().enumerate() {
                // The reference takes its time for the largest.
                let is_large = extents.1[1] >= 70;
                let turns = if on.thorough && !is_large { Layout::ALL.len() } else { 1 };
                let looks = [(true, true), (false, false), (true, false), (false, true)];
                for (causal, masked) in looks.into_iter().take(if is_large { 1 } else { 4 }) {
                    for turn in (0..turns).map(|turn| turn + i + j) {
                        check_attention(on, extents, dtype, causal, masked, (&Layout::ALL, turn));
                    }
                    // Gradients that copy what is padded are not found at once.
                    check_attention(on, extents, dtype, causal, masked, (&whole, i + j));
                }
            }
        }
    }
}
