//! Chains of views.

use crate::support::{Case, Rng, random_view};
use crate::{check, tunings};
use gradus_ir::op::{Op, UnaryOp};
use gradus_ir::{DType, Data, Shape};

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
