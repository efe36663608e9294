//! Gather and scatter.

use crate::layout::Layout;
use crate::support::{Case, tiled};
use crate::{INTS, Tested, check, factors, index_data, layout_of_turn, special, tunings};
use gradus_ir::op::{BinaryOp, Op, PadAxis, ScatterMode, SliceAxis, UnaryOp};
use gradus_ir::{DType, Data, Error, Shape, plan};

fn check_indexing(on: &Tested, (axis, extent): (usize, usize), dtypes: [DType; 2], layouts: [Layout; 2]) {
    let shape = Shape::new(&[4, 5, 6]);
    let indexed = shape.with(axis, extent);
    let mut case = Case::default();
    let data = |len| match dtypes[0] {
        DType::Bool => tiled(&special(DType::Bool), DType::Bool, len),
        dtype => factors(dtype, len, 3),
    };
    let x = layouts[0].operand(&mut case, &shape, data);
    let index = layouts[1].operand(&mut case, &indexed, |len| index_data(dtypes[1], len, shape[axis]));
    let updates = layouts[0].operand(&mut case, &indexed, data);
    let mut outputs = vec![case.op(Op::Gather(axis), &[x, index])];
    outputs.push(case.op(Op::Scatter(ScatterMode::Set, axis), &[x, index, updates]));
    if dtypes[0] != DType::Bool {
        outputs.push(case.op(Op::Scatter(ScatterMode::Add, axis), &[x, index, updates]));
    }
    check(on, case, &outputs, ("gather, scatter_set, scatter_add", axis, extent, dtypes, layouts));
}

#[test]
fn gather_and_scatter() {
    for on in &tunings() {
        let axes_and_extents = (0..3).flat_map(|axis| [0, 1, 9].map(|extent| (axis, extent)));
        for (i, axis) in axes_and_extents.enumerate() {
            for (j, dtype) in on.dtypes().into_iter().enumerate() {
                for (k, index) in on.of(&INTS).into_iter().enumerate() {
                    let turn = i + j + k;
                    let pairs =
                        Layout::ALL.map(|a| [Layout::Contiguous, a, Layout::Broadcast].map(|b| [a, b])).concat();
                    // A stride of 5 through 18 pairs meets all of them.
                    let pairs = if on.thorough { pairs } else { vec![pairs[turn * 5 % 18]] };
                    for layouts in pairs {
                        check_indexing(on, axis, [dtype, index], layouts);
                    }
                }
            }
        }
    }
}

/// Indices that are the same along each row, as an embedding's: from arrays of every layout, also repeated along other axes or
/// computed, for rows that blocks cut and for rows with elements before and after the array's.
#[test]
fn gathers_of_rows() {
    for on in &tunings() {
        for (i, width) in [1, 5, 64, 300].into_iter().enumerate() {
            let dtypes = on.dtypes().into_iter().enumerate().flat_map(|(j, dtype)| INTS.map(|index| (j, dtype, index)));
            for ((j, dtype, index_dtype), axis) in dtypes.flat_map(|types| [(types, 0), (types, 1)]) {
                let shape = Shape::new(&[11, 9, width]);
                let indexed = shape.with(axis, if axis == 0 { 20 } else { 13 });
                let mut case = Case::default();
                let data = |len| match dtype {
                    DType::Bool => tiled(&special(DType::Bool), dtype, len),
                    dtype => factors(dtype, len, 3),
                };
                let x = layout_of_turn(i + j).operand(&mut case, &shape, data);
                let padding = PadAxis { low: 2, high: 3, ..PadAxis::default() };
                let pads: Vec<PadAxis> = [PadAxis::default(), PadAxis::default(), padding].into();
                let padded = case.typed(Op::Pad(pads.as_slice().into()), &[x], shape.with(2, width + 5), dtype);
                let one = indexed.with(2, 1);
                let numbers = |len| index_data(index_dtype, len, shape[axis]);
                let rows = layout_of_turn(i + j + axis).operand(&mut case, &one, numbers);
                // One index for all rows of an axis.
                let line = case.input(one.with(1 - axis, 1), numbers(indexed[axis]));
                let lines = case.typed(Op::Expand, &[line], one.clone(), index_dtype);
                let computed = case.op(Op::Binary(BinaryOp::Min), &[rows, lines]);
                let mut outputs = Vec::new();
                for (x, index) in [x, padded].into_iter().flat_map(|x| [rows, lines, computed].map(|i| (x, i))) {
                    let shape = indexed.with(2, case.ty(x).shape[2]);
                    let index = case.typed(Op::Expand, &[index], shape, index_dtype);
                    let gathered = case.op(Op::Gather(axis), &[x, index]);
                    outputs.push(gathered);
                    if dtype.is_float() {
                        outputs.push(case.op(Op::Unary(UnaryOp::Neg), &[gathered]));
                    }
                }
                check(on, case, &outputs, ("gather of rows", shape, axis, dtype, index_dtype));
            }
        }
    }
}

#[test]
fn an_index_of_a_row_out_of_range_is_an_error() {
    for on in &tunings() {
        for (bad, axis, width) in [(-1, 0, 3), (40, 0, 3), (7, 1, 700), (-9, 1, 1)] {
            let mut case = Case::default();
            let shape = Shape::new(&[40, 7, width]);
            let x = case.input(&shape, factors(DType::F32, shape.numel(), 1));
            let indices: Vec<i32> = (0..40 * 7).map(|i| if i == 201 { bad } else { i % 7 }).collect();
            let index = case.input([40, 7, 1], Data::I32(indices));
            let index = case.typed(Op::Expand, &[index], shape.clone(), DType::I32);
            case.graph.outputs = vec![case.op(Op::Gather(axis), &[x, index])];
            let expected = Error::Index { index: bad.into(), axis, extent: shape[axis] };
            let got = case.run(on.backend, plan(&case.graph, on.backend.target())).unwrap_err();
            assert_eq!(got, expected, "on {}", on.name);
        }
    }
}

/// The slice of an array without elements has an offset, but nothing to read there.
#[test]
fn an_empty_view_may_start_past_its_buffer() {
    for on in &tunings() {
        let mut case = Case::default();
        let base = case.input([1, 3], Data::F32(vec![1.0, 2.0, 3.0]));
        let last = [SliceAxis { start: 4, step: 1, len: 1 }, SliceAxis { start: 0, step: 1, len: 0 }];
        let [index, updates] = [Data::I32(vec![]), Data::F32(vec![])].map(|data| {
            let (dtype, whole) = (data.dtype(), case.input([5, 0], data));
            case.typed(Op::Slice(last.as_slice().into()), &[whole], [1, 0], dtype)
        });
        let y = case.op(Op::Scatter(ScatterMode::Add, 1), &[base, index, updates]);
        check(on, case, &[y, updates], "a scatter of nothing");
    }
}

#[test]
fn an_index_out_of_range_is_an_error() {
    for on in &tunings() {
        for (bad, axis) in [-1, 3].into_iter().flat_map(|bad| [(bad, 0), (bad, 1)]) {
            for (op, operands) in [
                (Op::Gather(axis), 2),
                (Op::Scatter(ScatterMode::Add, axis), 3),
                (Op::Scatter(ScatterMode::Set, axis), 3),
            ] {
                let mut case = Case::default();
                let x = case.input([3, 3], Data::F32(vec![1.0; 9]));
                let index = case.input([3, 3], Data::I32(vec![0, 1, 2, 0, bad, 2, 0, 1, 2]));
                let y = case.op(op, &[x, index, x][..operands]);
                case.graph.outputs = vec![y];
                let expected = Error::Index { index: bad as i64, axis, extent: 3 };
                let got = case.run(on.backend, plan(&case.graph, on.backend.target())).unwrap_err();
                assert_eq!(got, expected, "{} on {}", plan(&case.graph, on.backend.target()), on.name);
                assert_eq!(case.reference(on.tolerance).unwrap_err(), expected);
            }
        }
        // A large unsigned index is no negative one.
        let mut case = Case::default();
        let x = case.input(3, Data::I32(vec![1, 2, 3]));
        let index = case.input(4, Data::U32(vec![2, u32::MAX, 1, 0]));
        case.graph.outputs = vec![case.op(Op::Gather(0), &[x, index])];
        let expected = Error::Index { index: u32::MAX.into(), axis: 0, extent: 3 };
        assert_eq!(
            case.run(on.backend, plan(&case.graph, on.backend.target())).unwrap_err(),
            expected,
            "on {}",
            on.name
        );
    }
}
