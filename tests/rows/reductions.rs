//! Sums, products, extremes and their places.

use crate::layout::Layout;
use crate::support::{Case, Rng, tiled};
use crate::{NUMBERS, check, factors, layout_of_turn, tunings, with_subgroups};
use gradus_ir::op::{BinaryOp, Op, ReduceOp, UnaryOp};
use gradus_ir::{DType, Data, NodeId, Number};

/// Elements for a reduction: ties among numbers of moderate size, and a few NaN if wanted.
fn reducible(dtype: DType, len: usize, nan: bool) -> Data {
    let mut rng = Rng(len as u64);
    let numbers: Vec<Number> = (0..len)
        .map(|_| match rng.below(if nan { 40 } else { 39 }) {
            39 => Number::Float(f64::NAN),
            // Near ±1, so that products keep their size; integers are large, so that sums wrap.
            n if dtype.is_float() => Number::Float((1.0 + (n as f64 - 19.0) / 20_000.0) * [1.0, -1.0][n % 2]),
            n => Number::Int((n as i64 - if dtype == DType::I32 { 19 } else { 0 }) * 100_000_007),
        })
        .collect();
    tiled(&numbers, dtype, len)
}

/// Operands' shapes, and the axes to reduce: nothing at all, one element, lengths around a block, few long rows, many
/// short rows, long and short columns, several axes, and a middle axis between few and many.
const REDUCTIONS: [(&[usize], &[usize]); 35] = [
    (&[], &[]),
    (&[3, 4], &[]),
    (&[0], &[0]),
    (&[3, 0, 2], &[1]),
    (&[0, 4], &[1]),
    (&[1], &[0]),
    (&[7], &[0]),
    (&[1024], &[0]),
    (&[1025], &[0]),
    (&[100_000], &[0]),
    (&[3, 40_000], &[1]),
    (&[40_000, 3], &[0]),
    (&[5000, 9], &[1]),
    (&[9, 5000], &[0]),
    (&[40, 1025], &[1]),
    (&[130, 1025], &[0]),
    (&[4, 5, 6], &[0]),
    (&[4, 5, 6], &[1]),
    (&[4, 5, 6], &[2]),
    (&[4, 5, 6], &[0, 1]),
    (&[4, 5, 6], &[0, 2]),
    (&[4, 5, 6], &[2, 1]),
    (&[4, 5, 6], &[0, 1, 2]),
    (&[2, 1, 3, 1], &[1, 2]),
    (&[9, 30, 40], &[1]),
    (&[9, 30, 40], &[2, 0]),
    (&[50, 20, 3], &[1]),
    (&[3, 700, 5], &[1]),
    (&[3, 70, 17], &[1]),
    (&[6, 10, 130], &[1]),
    (&[5, 40, 64], &[1]),
    (&[2, 19, 100], &[1]),
    (&[8, 33, 300], &[1]),
    (&[2, 5, 1500], &[1]),
    (&[2, 20_000, 3], &[1]),
];

#[test]
fn reductions() {
    for on in tunings().iter().chain(&with_subgroups()) {
        for (i, (shape, axes)) in REDUCTIONS.into_iter().enumerate() {
            let small = shape.iter().product::<usize>() < 2000;
            for (j, dtype) in on.of(&NUMBERS).into_iter().enumerate() {
                if on.slow && (i + j) % 3 != 0 {
                    continue;
                }
                let layouts = match on.thorough {
                    true if small => Layout::ALL.to_vec(),
                    true => Layout::ALL[..2].to_vec(),
                    false => vec![layout_of_turn(i + j)],
                };
                for (layout, nan) in layouts.into_iter().flat_map(|layout| [false, true].map(|nan| (layout, nan))) {
                    if nan && !dtype.is_float() {
                        continue;
                    }
                    let mut case = Case::default();
                    let x = layout.operand(&mut case, shape, |len| reducible(dtype, len, nan));
                    let all = ReduceOp::ALL.map(|op| Op::Reduce(op, axes.into()));
                    // Max and min of nothing do not exist, nor does the index of the best along several axes.
                    let ty = case.ty(x).clone();
                    let valid: Vec<Op> = all.into_iter().filter(|op| op.infer(&[&ty], &ty).is_ok()).collect();
                    // Values and places apart: those who find places may go another way.
                    let gives_index = |op: &Op| matches!(op, Op::Reduce(op, _) if op.gives_index());
                    let (places, values): (Vec<Op>, Vec<Op>) = valid.into_iter().partition(gives_index);
                    for ops in [values, places] {
                        let mut case = case.clone();
                        let outputs: Vec<NodeId> = ops.iter().map(|op| case.op(op.clone(), &[x])).collect();
                        check(on, case, &outputs, (ops, dtype, layout, shape, if nan { "with NaN" } else { "" }));
                    }
                }
            }
        }
    }
}

/// Rows that are walked along more than once, with something stored of each element: by one invocation, by a few and by whole
/// workgroups, which hold a row or come back to it.
#[test]
fn row_programs() {
    const SHAPES: [[usize; 2]; 14] = [
        [3, 5],
        [70, 64],
        [3, 65],
        [7, 100],
        [5, 256],
        [4, 1000],
        [9, 1024],
        [2, 1025],
        [3, 2000],
        [3, 4096],
        [2, 4098],
        [2, 8000],
        [2, 8192],
        [1, 70_000],
    ];
    for on in tunings().iter().chain(&with_subgroups()) {
        for (dtype, shape) in on.of(&[DType::F16, DType::F32]).into_iter().flat_map(|d| SHAPES.map(|shape| (d, shape)))
        {
            let [rows, columns] = shape;
            let mut case = Case::default();
            let x = case.input(shape, factors(dtype, rows * columns, 7));
            let gain = case.input([1, columns], factors(dtype, columns, 8));
            let along = |case: &mut Case, id: NodeId| {
                let column = case.typed(Op::Reshape, &[id], [rows, 1], dtype);
                case.typed(Op::Expand, &[column], shape, dtype)
            };
            let reduced =
                |case: &mut Case, op: ReduceOp, id: NodeId| case.op(Op::Reduce(op, [1].as_slice().into()), &[id]);
            let largest = reduced(&mut case, ReduceOp::Max, x);
            let largest = along(&mut case, largest);
            let shifted = case.op(Op::Binary(BinaryOp::Sub), &[x, largest]);
            let exponentials = case.op(Op::Unary(UnaryOp::Exp), &[shifted]);
            let total = reduced(&mut case, ReduceOp::Sum, exponentials);
            let totals = along(&mut case, total);
            let softmax = case.op(Op::Binary(BinaryOp::Div), &[exponentials, totals]);
            let best = reduced(&mut case, ReduceOp::ArgMax, x);
            let gain = case.typed(Op::Expand, &[gain], shape, dtype);
            let scaled = case.op(Op::Binary(BinaryOp::Mul), &[softmax, gain]);
            let sum = reduced(&mut case, ReduceOp::Sum, scaled);
            check(on, case.clone(), &[softmax], ("softmax", dtype, shape));
            check(on, case.clone(), &[shifted, total, scaled], ("with outputs on the way", dtype, shape));
            check(on, case, &[scaled, sum, best], ("three passes", dtype, shape));
        }
    }
}
