//! Chains of views.

use crate::support::{Case, Rng, random_view};
use crate::{check, tunings};
use gradus_ir::op::{BinaryOp, CompareOp, Op, ReduceOp, SliceAxis, UnaryOp};
use gradus_ir::{DType, Data, NodeId, Shape};

#[test]
fn chains_of_views() {
    for on in &tunings() {
        for seed in 0..if on.thorough { 3000 } else { 200 } {
            let mut rng = Rng(seed);
            let rank = rng.below(4);
            let mut shape: Shape = (0..rank).map(|_| rng.pick(&[0, 1, 1, 2, 3, 4, 4, 5, 6])).collect();
            let mut case = Case::default();
            let data = Data::I32((1..=shape.numel() as i32).collect());
            let mut x = case.input(&shape, data);
            let mut chain = vec![(Op::Input(0), shape.clone())];
            for _ in 0..1 + rng.below(6) {
                let (op, viewed) = random_view(&mut rng, &shape);
                if viewed.numel() > 20_000 {
                    break;
                }
                x = case.typed(op.clone(), &[x], &viewed, DType::I32);
                chain.push((op, viewed.clone()));
                shape = viewed;
            }
            let negative = case.op(Op::Unary(UnaryOp::Neg), &[x]);
            check(on, case, &[x, negative], (seed, chain));
        }
    }
}

/// Rows that are a part of longer ones, the same for many, backwards, or one element each: of all lengths beside those of a
/// block, in maps and in row programs.
#[test]
fn rows_of_other_arrays() {
    for on in &tunings() {
        for (images, rows, len) in [(1, 6, 256), (2, 5, 256), (3, 4, 700), (1, 9, 1024), (2, 3, 2048), (2, 2, 4100)] {
            let shape = [images, rows, len];
            let mut case = Case::default();
            let numbers = |len: usize, turn: i32| Data::I32((0..len as i32).map(|i| i * turn % 1009 - 500).collect());
            let input = |case: &mut Case, shape: [usize; 3]| {
                case.input(shape, numbers(shape.iter().product(), 7 + shape[2] as i32))
            };
            let x = input(&mut case, shape);
            let expanded = [[1, 1, len], [images, 1, len], [images, rows, 1], [1, rows, 1]].map(|of| {
                let small = input(&mut case, of);
                case.typed(Op::Expand, &[small], shape, DType::I32)
            });
            let long = input(&mut case, [images, rows, len + 3]);
            let whole = |len| SliceAxis { start: 0, step: 1, len };
            let cut = [
                whole(images),
                SliceAxis { start: rows - 1, step: -1, len: rows },
                SliceAxis { start: 2, ..whole(len) },
            ];
            let part = case.typed(Op::Slice(cut.as_slice().into()), &[long], shape, DType::I32);
            let sums = case.op(Op::Reduce(ReduceOp::Sum, [2].as_slice().into()), &[x]);
            let sums = case.typed(Op::Reshape, &[sums], [images, rows, 1], DType::I32);
            let sums = case.typed(Op::Expand, &[sums], shape, DType::I32);
            let outputs: Vec<NodeId> = expanded
                .into_iter()
                .chain([part, sums])
                .flat_map(|row| {
                    let product = case.op(Op::Binary(BinaryOp::Mul), &[x, row]);
                    let difference = case.op(Op::Binary(BinaryOp::Sub), &[row, part]);
                    let below = case.typed(Op::Compare(CompareOp::Lt), &[row, x], shape, DType::Bool);
                    let largest = case.op(Op::Reduce(ReduceOp::Max, [2].as_slice().into()), &[product]);
                    [product, difference, below, largest]
                })
                .collect();
            check(on, case, &outputs, shape);
        }
    }
}
