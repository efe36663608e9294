//! Rows, comparisons, casts and selections.

use crate::layout::Layout;
use crate::support::{Case, tiled};
use crate::{Tested, backends, check, layout_of_turn, special, tunings};
use gradus_ir::op::{BinaryOp, CompareOp, Op, UnaryOp};
use gradus_ir::{DType, Number};

/// No element, one, a few, a length beyond a block of 1024, and more than one task.
const SHAPES: [&[usize]; 6] = [&[], &[1], &[0, 3], &[5, 7], &[1025], &[40, 1000]];

/// The row's samples, as numbers of a dtype. (Booleans are 0 and 1.)
fn number(x: f64, dtype: DType) -> Number {
    if dtype == DType::Bool { Number::Bool(x != 0.0) } else { Number::Float(x) }
}

/// Pairs of operands: the row's samples and every pair of special numbers, also with one of the samples.
fn pairs(samples: &[(f64, f64)], dtype: DType) -> (Vec<Number>, Vec<Number>) {
    let samples = samples.iter().map(|&(a, b)| (number(a, dtype), number(b, dtype)));
    let mut special = special(dtype);
    special.extend(samples.clone().take(1).flat_map(|(a, b)| [a, b]));
    let crossed = special.iter().flat_map(|&a| special.iter().map(move |&b| (a, b)));
    samples.chain(crossed).unzip()
}

/// Every small shape in every layout, and a large one in two. Where kernels are dear, one small shape in every layout,
/// and each other shape in one, which the `turn` chooses.
fn shapes_and_layouts(on: &Tested, turn: usize) -> Vec<(&'static [usize], Layout)> {
    let all = SHAPES.into_iter().enumerate().flat_map(|(i, shape)| Layout::ALL.map(|layout| (i, shape, layout)));
    let wanted = |&(i, shape, layout): &(usize, &[usize], Layout)| match shape {
        [5, 7] => true,
        [40, 1000] if on.thorough => [Layout::Contiguous, Layout::Transposed].contains(&layout),
        _ => on.thorough || layout == layout_of_turn(turn + i),
    };
    all.filter(wanted).map(|(_, shape, layout)| (shape, layout)).collect()
}

/// The dtypes of a backend that an op takes, each with a number of its own.
fn accepted(on: &Tested, op: usize, accepts: impl Fn(DType) -> bool) -> Vec<(usize, DType)> {
    let dtypes = on.dtypes().into_iter().filter(|&dtype| accepts(dtype));
    dtypes.enumerate().map(|(i, dtype)| (op + i, dtype)).collect()
}

#[test]
fn unary_rows() {
    for on in &backends() {
        for (i, &op) in UnaryOp::ALL.iter().enumerate() {
            for (turn, dtype) in accepted(on, i, |dtype| op.accepts().contains(dtype)) {
                let samples = op.samples().iter().map(|&x| number(x, dtype));
                let samples: Vec<Number> = samples.chain(special(dtype)).collect();
                for (shape, layout) in shapes_and_layouts(on, turn) {
                    let mut case = Case::default();
                    let x = layout.operand(&mut case, shape, |len| tiled(&samples, dtype, len));
                    let y = case.op(Op::Unary(op), &[x]);
                    check(on, case, &[y], (op, dtype, layout, shape));
                }
            }
        }
    }
}

/// Checks an op of two operands of one dtype, in equal and in different layouts.
fn check_pairs(on: &Tested, turn: usize, op: Op, samples: &[(f64, f64)], dtype: DType) {
    let (left, right) = pairs(samples, dtype);
    for (i, (shape, layout)) in shapes_and_layouts(on, turn).into_iter().enumerate() {
        let layouts = match [(layout, layout), (layout, Layout::Contiguous), (Layout::Contiguous, layout)] {
            [equal, ..] if layout == Layout::Contiguous => vec![equal],
            all if on.thorough => all.to_vec(),
            all => vec![all[(turn + i) % 3]],
        };
        for (a_layout, b_layout) in layouts {
            let mut case = Case::default();
            let a = a_layout.operand(&mut case, shape, |len| tiled(&left, dtype, len));
            let b = b_layout.operand(&mut case, shape, |len| tiled(&right, dtype, len));
            let y = case.op(op.clone(), &[a, b]);
            check(on, case, &[y], (&op, dtype, a_layout, b_layout, shape));
        }
    }
}

#[test]
fn binary_rows() {
    for on in &backends() {
        for (i, &op) in BinaryOp::ALL.iter().enumerate() {
            for (turn, dtype) in accepted(on, i, |dtype| op.accepts().contains(dtype)) {
                check_pairs(on, turn, Op::Binary(op), op.samples(), dtype);
            }
        }
    }
}

#[test]
fn comparison_rows() {
    for on in &backends() {
        for (i, &op) in CompareOp::ALL.iter().enumerate() {
            for (turn, dtype) in accepted(on, i, |dtype| op.accepts().contains(dtype)) {
                check_pairs(on, turn, Op::Compare(op), op.samples(), dtype);
            }
        }
    }
}

/// Numbers are no arrays: constants stand in a kernel's text, where a compiler may reckon with them.
#[test]
fn numbers_as_operands() {
    for on in &backends() {
        for op in BinaryOp::ALL.iter().map(|&op| Op::Binary(op)).chain(CompareOp::ALL.iter().map(|&op| Op::Compare(op)))
        {
            let accepts = |dtype: DType| match op {
                Op::Binary(op) => op.accepts().contains(dtype),
                _ => dtype != DType::Bool,
            };
            for dtype in on.dtypes().into_iter().filter(|&dtype| accepts(dtype)) {
                let mut numbers = special(dtype);
                numbers.push(number(2.0, dtype));
                let mut case = Case::default();
                let x = case.input(numbers.len(), tiled(&numbers, dtype, numbers.len()));
                let mut outputs = Vec::new();
                for &number in &numbers {
                    // A constant on either side, two of them, and the user's number.
                    let slot = case.slot(number);
                    let constant = case.typed(Op::Const(number), &[], numbers.len(), dtype);
                    let scalar = case.typed(Op::Scalar(slot), &[], numbers.len(), dtype);
                    let pairs =
                        [[x, constant], [constant, x], [constant; 2], [x, scalar], [scalar, x], [constant, scalar]];
                    for pair in pairs.into_iter().take(if on.thorough { 6 } else { 4 }) {
                        outputs.push(case.op(op.clone(), &pair));
                    }
                }
                check(on, case, &outputs, (&op, dtype, &numbers));
            }
        }
    }
}

/// A compiler that follows a branch on numbers back to each of them, along every path, would not end here.
#[test]
fn functions_of_angles_of_numbers_alone() {
    for on in &tunings() {
        for op in [UnaryOp::Sin, UnaryOp::Cos, UnaryOp::Tan] {
            let mut case = Case::default();
            let slot = case.slot(Number::Float(1.75));
            let number = case.typed(Op::Scalar(slot), &[], [1, 3, 3, 3], DType::F32);
            // The index along an axis of one element is a number too.
            let index = case.typed(Op::Iota(0), &[], [1, 3, 3, 3], DType::F32);
            let sum = case.op(Op::Binary(BinaryOp::Add), &[number, index]);
            let angle_of = |case: &mut Case, x| {
                let power = case.op(Op::Binary(BinaryOp::Pow), &[x, x]);
                case.op(Op::Unary(op), &[power])
            };
            let outputs = [number, sum].map(|x| angle_of(&mut case, x));
            check(on, case, &outputs, op);
        }
    }
}

#[test]
fn casts_between_all_dtypes() {
    let edges = [-1e10, -129.5, -0.99, 0.5, 1.5, 2147483647.0, 2147483648.0, 4294967296.0, 16777217.0, 1e300];
    for on in &backends() {
        for (i, from) in on.dtypes().into_iter().enumerate() {
            let numbers: Vec<Number> = special(from).into_iter().chain(edges.map(|x| number(x, from))).collect();
            for (turn, to) in accepted(on, i, |_| true) {
                for (shape, layout) in shapes_and_layouts(on, turn) {
                    let mut case = Case::default();
                    let x = layout.operand(&mut case, shape, |len| tiled(&numbers, from, len));
                    let y = case.typed(Op::Cast, &[x], shape, to);
                    check(on, case, &[y], ("cast", from, to, layout, shape));
                }
            }
        }
    }
}

#[test]
fn select_takes_one_branch() {
    let conditions = [true, false, false].map(Number::from);
    for on in &backends() {
        for (turn, dtype) in accepted(on, 0, |_| true) {
            let numbers = special(dtype);
            for (shape, layout) in shapes_and_layouts(on, turn) {
                for layouts in [[layout; 3], [layout, Layout::Contiguous, layout]] {
                    let mut case = Case::default();
                    let condition = layouts[0].operand(&mut case, shape, |len| tiled(&conditions, DType::Bool, len));
                    let then = layouts[1].operand(&mut case, shape, |len| tiled(&numbers, dtype, len));
                    let other = layouts[2].operand(&mut case, shape, |len| tiled(&numbers[1..], dtype, len));
                    let y = case.typed(Op::Select, &[condition, then, other], shape, dtype);
                    check(on, case, &[y], ("where", dtype, layouts, shape));
                }
            }
        }
    }
}

/// What is next to nothing may be nothing; what is not may not.
#[test]
fn denormals_stay_small() {
    let numbers = [1e-38, -1e-38, 1e-40, -3e-45, 1.2e-38, 0.0, 1.0].map(Number::from);
    for on in &backends() {
        for len in [7, 1029] {
            let mut case = Case::default();
            let data = || tiled(&numbers, DType::F32, len);
            let (x, y) = (case.input(len, data()), case.input(len, tiled(&numbers[2..], DType::F32, len)));
            let positive = case.op(Op::Unary(UnaryOp::Abs), &[x]);
            use UnaryOp::{Floor, Log, Neg, Recip, Relu, Rsqrt, Sign, Sqrt, Square};
            let mut outputs = vec![x, positive];
            outputs.extend([Neg, Relu, Sign, Floor, Square, Recip].map(|op| case.op(Op::Unary(op), &[x])));
            outputs.extend([Sqrt, Log, Rsqrt].map(|op| case.op(Op::Unary(op), &[positive])));
            use BinaryOp::{Add, Div, Max, Mul, Sub};
            outputs.extend([Add, Sub, Mul, Div, Max].map(|op| case.op(Op::Binary(op), &[x, y])));
            outputs.push(case.op(Op::Compare(CompareOp::Lt), &[x, y]));
            check(on, case, &outputs, ("denormals", len));
        }
    }
}
