//! Numbers that come from nowhere: counts, constants and random numbers.

use crate::support::Case;
use crate::{NUMBERS, backends, check, value};
use gradus_ir::op::{Op, ReduceOp};
use gradus_ir::plan::{Buffer, Expression, Family, Instruction, Kernel, Plan, Store};
use gradus_ir::{DType, Data, Number, Shape, philox};

#[test]
fn sources() {
    for on in &backends() {
        for shape in [&[1][..], &[0, 3], &[5, 7], &[3, 5, 341], &[1025], &[40, 1000]] {
            for dtype in on.of(&NUMBERS) {
                let mut case = Case::default();
                let axes = 0..shape.len();
                let outputs: Vec<_> = axes.map(|axis| case.typed(Op::Iota(axis), &[], shape, dtype)).collect();
                check(on, case, &outputs, ("iota", dtype, shape));
            }
            for number in [Number::Int(3), Number::Float(-2.5), Number::Bool(true)] {
                for dtype in on.dtypes().into_iter().filter(|&dtype| number.fits(dtype)) {
                    let mut case = Case::default();
                    let slot = case.slot(number);
                    let scalar = case.typed(Op::Scalar(slot), &[], shape, dtype);
                    let constant = case.typed(Op::Const(number), &[], shape, dtype);
                    check(on, case, &[scalar, constant], (number, dtype, shape));
                }
            }
        }
    }
}

/// The random numbers of a node, straight from Philox.
fn philox_numbers(key: u64, dtype: DType, len: usize) -> Data {
    let word = |i: usize| philox::block(key, i as u64 / 4)[i % 4];
    match dtype {
        DType::U32 => Data::U32((0..len).map(word).collect()),
        DType::F32 => Data::F32((0..len).map(|i| (word(i) >> 8) as f32 / (1 << 24) as f32).collect()),
        _ => {
            let bits = |i: usize| word(2 * i) as u64 | (word(2 * i + 1) as u64) << 32;
            Data::F64((0..len).map(|i| (bits(i) >> 11) as f64 / (1u64 << 53) as f64).collect())
        }
    }
}

/// The dtypes of random numbers.
const RANDOM: [DType; 3] = [DType::U32, DType::F32, DType::F64];

#[test]
fn random_numbers_are_philox() {
    let key = 0x1234_5678_9ABC_DEF0_i64;
    for on in &backends() {
        for dtype in on.of(&RANDOM) {
            for len in [0, 1, 2, 1023, 1025, 40_000] {
                let mut case = Case::default();
                let slot = case.slot(Number::Int(key));
                let random = case.typed(Op::Random(slot), &[], len, dtype);
                let got = value(on.backend, &mut case, random);
                assert_eq!(got, philox_numbers(key as u64, dtype, len), "{dtype} × {len} on {}", on.name);
            }
        }
    }
}

/// A reduction cuts its space into blocks of whole rows, which begin inside a Philox block.
#[test]
fn random_blocks_may_start_anywhere() {
    let (rows, columns, key) = (700, 7, 99);
    for on in &backends() {
        for dtype in on.of(&RANDOM) {
            let buffer = Buffer { dtype, len: rows, input: None };
            let kernel = Kernel {
                family: Family::Reduce { axes: 1 },
                space: Shape::new(&[rows, columns]),
                loads: vec![],
                expression: Expression {
                    instructions: vec![(Instruction::Random(0), dtype), (Instruction::Reduce(ReduceOp::Max, 0), dtype)],
                },
                outputs: vec![Store { buffer: 0, register: 1, per_row: true }],
                nodes: vec![],
            };
            let plan = Plan { buffers: vec![buffer], kernels: vec![kernel], outputs: vec![0] };
            let case = Case { scalars: vec![Number::Int(key)], ..Case::default() };
            let got = case.run(on.backend, plan).unwrap().remove(0);
            let numbers = philox_numbers(key as u64, dtype, rows * columns);
            for row in 0..rows {
                let largest =
                    (0..columns).map(|i| numbers.get(row * columns + i).unwrap().to_f64()).fold(0.0, f64::max);
                assert_eq!(got.get(row).unwrap().to_f64(), largest, "{dtype}, row {row} on {}", on.name);
            }
        }
    }
}

#[test]
fn uniform_numbers_are_uniform() {
    for on in &backends() {
        for dtype in on.of(&[DType::F32, DType::F64]) {
            let mut case = Case::default();
            let slot = case.slot(Number::Int(7));
            let random = case.typed(Op::Random(slot), &[], 40_000, dtype);
            let data = value(on.backend, &mut case, random);
            let numbers: Vec<f64> = (0..data.len()).map(|i| data.get(i).unwrap().to_f64()).collect();
            assert!(numbers.iter().all(|x| (0.0..1.0).contains(x)));
            let mean = numbers.iter().sum::<f64>() / 40_000.0;
            let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 40_000.0;
            // Five standard errors: σ of the mean is √(1/12 / n), of the variance √(1/180 / n).
            assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / 40_000f64).sqrt(), "mean {mean}");
            assert!((variance - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0 / 40_000f64).sqrt(), "variance {variance}");
        }
    }
}
