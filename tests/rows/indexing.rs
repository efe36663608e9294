//! Gather and scatter.

use crate::layout::Layout;
use crate::support::{Case, tiled};
use crate::{INTS, Tested, check, factors, index_data, special, tunings};
use gradus_ir::op::{Op, ScatterMode, SliceAxis};
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
