//! The numbers of DESIGN.md as tables of operands and results, which need no reference: both could be wrong alike.

use crate::support::Case;
use crate::{backends, value};
use gradus_ir::op::{BinaryOp, CompareOp, Op, ReduceOp, UnaryOp};
use gradus_ir::{DType, Data, NodeId};

/// An op on arrays of one axis, compared with what it must give on every device that has the dtypes: NaN equals NaN, and
/// zeros have signs.
fn gives(op: Op, operands: &[&Data], expected: Data) {
    for on in backends() {
        if operands.iter().chain([&&expected]).any(|data| !on.dtypes().contains(&data.dtype())) {
            continue;
        }
        let mut case = Case::default();
        let ids: Vec<NodeId> = operands.iter().map(|&data| case.input(data.len(), data.clone())).collect();
        let y = case.typed(op.clone(), &ids, expected.len(), expected.dtype());
        let got = value(on.backend, &mut case, y);
        let same = |i: usize| {
            let [got, expected] = [&got, &expected].map(|data| data.get(i).unwrap());
            // A root is no matter of semantics: devices round it as they may.
            let near = (got.to_f64() - expected.to_f64()).abs() < 1e-6 && expected.to_f64().fract() != 0.0;
            format!("{got:?}") == format!("{expected:?}") || (near && !on.thorough)
        };
        let all = got.dtype() == expected.dtype() && (0..expected.len()).all(same);
        assert!(all, "{op:?} of {operands:?} on {}: got {got:?}, expected {expected:?}", on.name);
    }
}

/// An op, and triples of its operands and its result.
type Table<'a, T> = (BinaryOp, &'a [(T, T, T)]);

#[test]
fn integers_wrap_and_divide_as_in_python() {
    use BinaryOp::{Add, Div, Max, Min, Mul, Pow, Rem, Sub};
    let (low, high) = (i32::MIN, i32::MAX);
    let signed: [Table<i32>; 8] = [
        (Add, &[(high, 1, low), (low, -1, high)]),
        (Sub, &[(low, 1, high), (0, low, low)]),
        (Mul, &[(65536, 65536, 0), (low, -1, low), (46341, 46341, -2147479015)]),
        (Div, &[(7, 2, 3), (-7, 2, -4), (7, -2, -4), (-7, -2, 3), (-6, 2, -3), (5, 0, 0), (0, 0, 0), (low, -1, low)]),
        (Rem, &[(7, 3, 1), (-7, 3, 2), (7, -3, -2), (-7, -3, -1), (6, -3, 0), (5, 0, 0), (low, 0, 0), (low, -1, 0)]),
        (
            Pow,
            &[
                (3, 4, 81),
                (-2, 3, -8),
                (0, 0, 1),
                (2, 31, low),
                (2, 32, 0),
                (2, -1, 0),
                (1, -5, 1),
                (-1, -5, -1),
                (-1, -4, 1),
                (0, -1, 0),
            ],
        ),
        (Max, &[(low, high, high), (-1, -2, -1)]),
        (Min, &[(low, high, low), (-1, -2, -2)]),
    ];
    for (op, cases) in signed {
        let column = |f: fn(&(i32, i32, i32)) -> i32| Data::I32(cases.iter().map(f).collect());
        gives(Op::Binary(op), &[&column(|c| c.0), &column(|c| c.1)], column(|c| c.2));
    }
    let top = u32::MAX;
    let unsigned: [Table<u32>; 6] = [
        (Add, &[(top, 1, 0)]),
        (Sub, &[(0, 1, top)]),
        (Mul, &[(65536, 65536, 0), (top, top, 1)]),
        (Div, &[(7, 2, 3), (top, 0, 0), (top, top, 1)]),
        (Rem, &[(7, 3, 1), (7, 0, 0), (top, 10, 5)]),
        (Pow, &[(2, 31, 1 << 31), (2, 32, 0), (3, 21, 1870418611), (7, 0, 1), (top, 2, 1)]),
    ];
    for (op, cases) in unsigned {
        let column = |f: fn(&(u32, u32, u32)) -> u32| Data::U32(cases.iter().map(f).collect());
        gives(Op::Binary(op), &[&column(|c| c.0), &column(|c| c.1)], column(|c| c.2));
    }
    let unary: [(UnaryOp, &[i32], &[i32]); 5] = [
        (UnaryOp::Neg, &[5, low, 0], &[-5, low, 0]),
        (UnaryOp::Abs, &[-5, low, high], &[5, low, high]),
        (UnaryOp::Sign, &[-5, 0, high], &[-1, 0, 1]),
        (UnaryOp::Square, &[-3, 65536], &[9, 0]),
        (UnaryOp::Relu, &[-5, 0, 7], &[0, 0, 7]),
    ];
    for (op, x, y) in unary {
        gives(Op::Unary(op), &[&Data::I32(x.into())], Data::I32(y.into()));
    }
    gives(Op::Unary(UnaryOp::Neg), &[&Data::U32(vec![1, 0])], Data::U32(vec![top, 0]));
    let sum = |data: Data, expected: Data| gives(Op::Reduce(ReduceOp::Sum, [0].as_slice().into()), &[&data], expected);
    sum(Data::I32(vec![high, 1]), Data::I32(vec![low]));
    sum(Data::U32(vec![top, 2]), Data::U32(vec![1]));
}

#[test]
fn floats_saturate_to_integers() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let floats = [1.9, -1.9, 0.0, 3e9, -3e9, 5e9, inf, -inf, nan];
    let signed = [1, -1, 0, i32::MAX, i32::MIN, i32::MAX, i32::MAX, i32::MIN, 0];
    let unsigned = [1, 0, 0, 3_000_000_000, 0, u32::MAX, u32::MAX, 0, 0];
    let bools = [true, true, false, true, true, true, true, true, true];
    for x in [Data::F64(floats.into()), Data::F32(floats.iter().map(|&x| x as f32).collect())] {
        gives(Op::Cast, &[&x], Data::I32(signed.into()));
        gives(Op::Cast, &[&x], Data::U32(unsigned.into()));
        gives(Op::Cast, &[&x], Data::Bool(bools.into()));
    }
    gives(Op::Cast, &[&Data::I32(vec![-1, i32::MIN])], Data::U32(vec![u32::MAX, 1 << 31]));
    gives(Op::Cast, &[&Data::U32(vec![u32::MAX, 1 << 31])], Data::I32(vec![-1, i32::MIN]));
    gives(Op::Cast, &[&Data::I32(vec![16_777_217, -3])], Data::F32(vec![16_777_216.0, -3.0]));
    gives(Op::Cast, &[&Data::F64(vec![1e300, 0.1])], Data::F32(vec![f32::INFINITY, 0.1]));
    gives(Op::Cast, &[&Data::Bool(vec![true, false])], Data::I32(vec![1, 0]));
}

/// The tests of [`float_semantics`] in one float type.
macro_rules! float_semantics {
    ($t:ident $variant:ident) => {{
        let (inf, nan) = ($t::INFINITY, $t::NAN);
        let data = |values: &[$t]| Data::$variant(values.to_vec());
        let binary = |op: BinaryOp, cases: &[($t, $t, $t)]| {
            let column = |f: fn(&($t, $t, $t)) -> $t| Data::$variant(cases.iter().map(f).collect());
            gives(Op::Binary(op), &[&column(|c| c.0), &column(|c| c.1)], column(|c| c.2));
        };
        binary(
            BinaryOp::Max,
            &[(nan, 1.0, nan), (1.0, nan, nan), (nan, inf, nan), (1.0, inf, inf), (-1.0, -2.0, -1.0)],
        );
        binary(
            BinaryOp::Min,
            &[(nan, 1.0, nan), (1.0, nan, nan), (-inf, nan, nan), (1.0, -inf, -inf), (-1.0, -2.0, -2.0)],
        );
        binary(BinaryOp::Div, &[(1.0, 0.0, inf), (-1.0, 0.0, -inf), (0.0, 0.0, nan), (1.0, inf, 0.0)]);
        binary(
            BinaryOp::Rem,
            &[
                (7.0, 3.0, 1.0),
                (-7.0, 3.0, 2.0),
                (7.0, -3.0, -2.0),
                (-7.0, -3.0, -1.0),
                (5.5, 2.0, 1.5),
                (-0.5, 2.0, 1.5),
                (1.0, 0.0, nan),
                (nan, 1.0, nan),
                (3.0, inf, 3.0),
                (-3.0, inf, inf),
            ],
        );
        binary(
            BinaryOp::Pow,
            &[
                (-2.0, 3.0, -8.0),
                (-2.0, 2.0, 4.0),
                (-2.0, -1.0, -0.5),
                (-2.0, 0.5, nan),
                (0.0, 0.0, 1.0),
                (nan, 0.0, 1.0),
                (1.0, nan, 1.0),
                (0.0, -1.0, inf),
                (-0.0, -3.0, -inf),
                (2.0, 0.5, $t::sqrt(2.0)),
                (-1.0, inf, 1.0),
            ],
        );
        gives(Op::Unary(UnaryOp::Relu), &[&data(&[nan, -inf, -1.0, 0.0, 2.0])], data(&[nan, 0.0, 0.0, 0.0, 2.0]));
        gives(Op::Unary(UnaryOp::Sign), &[&data(&[nan, -inf, 0.0, 2.0])], data(&[nan, -1.0, 0.0, 1.0]));
        gives(Op::Unary(UnaryOp::Round), &[&data(&[0.5, 1.5, 2.5, -0.5, -1.5])], data(&[0.0, 2.0, 2.0, -0.0, -2.0]));
        let row = data(&[2.0, nan, 5.0, nan, -1.0, 5.0]);
        let reduce = |op, x: &Data, y| gives(Op::Reduce(op, [0].as_slice().into()), &[x], y);
        for op in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min] {
            reduce(op, &row, data(&[nan]));
        }
        reduce(ReduceOp::ArgMax, &row, Data::I32(vec![1]));
        reduce(ReduceOp::ArgMin, &row, Data::I32(vec![1]));
        reduce(ReduceOp::ArgMax, &data(&[2.0, 5.0, -1.0, 5.0, -1.0]), Data::I32(vec![1]));
        reduce(ReduceOp::ArgMin, &data(&[2.0, 5.0, -1.0, 5.0, -1.0]), Data::I32(vec![2]));
        reduce(ReduceOp::Max, &data(&[-inf, -inf]), data(&[-inf]));
        reduce(ReduceOp::ArgMax, &data(&[-inf, -inf]), Data::I32(vec![0]));
        reduce(ReduceOp::ArgMax, &data(&[-inf; 100]), Data::I32(vec![0]));
        reduce(ReduceOp::ArgMin, &data(&[nan; 100]), Data::I32(vec![0]));
        reduce(ReduceOp::Sum, &data(&[]), data(&[0.0]));
        reduce(ReduceOp::Prod, &data(&[]), data(&[1.0]));
        let (a, b) = (data(&[nan, 1.0, nan, 1.0, 0.0]), data(&[1.0, nan, nan, 1.0, -0.0]));
        for op in CompareOp::ALL {
            // NaN differs from everything and otherwise compares false; 1 = 1 and 0 = −0.
            let on_nan = *op == CompareOp::Ne;
            let on_equal = [CompareOp::Eq, CompareOp::Le, CompareOp::Ge].contains(op);
            let expected = Data::Bool(vec![on_nan, on_nan, on_nan, on_equal, on_equal]);
            gives(Op::Compare(*op), &[&a, &b], expected);
        }
    }};
}

#[test]
fn float_semantics() {
    float_semantics!(f32 F32);
    float_semantics!(f64 F64);
}

/// Ops one after the other in one kernel, of which a driver may think that it knows the sign of what comes between.
#[test]
fn roots_of_minus_zero_keep_their_sign() {
    use UnaryOp::{Abs, Recip, Rsqrt, Sigmoid, Sqrt};
    let inf = f32::INFINITY;
    for (ops, expected) in [
        (vec![Rsqrt, Sigmoid], [0.0, 1.0]),
        (vec![Rsqrt, Abs], [inf, inf]),
        (vec![Sqrt, Recip], [-inf, inf]),
        (vec![Sqrt, Abs, Recip], [inf, inf]),
    ] {
        for on in backends() {
            let mut case = Case::default();
            let x = case.input(2, Data::F32(vec![-0.0, 0.0]));
            let y = ops.iter().fold(x, |x, op| case.typed(Op::Unary(*op), &[x], 2, DType::F32));
            let got = value(on.backend, &mut case, y);
            assert_eq!(got, Data::F32(expected.to_vec()), "{ops:?} on {}", on.name);
        }
    }
}

/// What a driver could know to be zero, divided by zero.
#[test]
fn nothing_is_taken_to_be_zero_whatever_it_is_divided_by() {
    for on in backends() {
        let mut case = Case::default();
        let x = case.input([2, 1], Data::F32(vec![0.0, 2.0]));
        let index = case.typed(Op::Iota(1), &[], [2, 1], DType::F32);
        let y = case.typed(Op::Binary(BinaryOp::Div), &[index, x], [2, 1], DType::F32);
        let Data::F32(got) = value(on.backend, &mut case, y) else { panic!("no f32") };
        assert!(got[0].is_nan() && got[1] == 0.0, "{got:?} on {}", on.name);
    }
}
