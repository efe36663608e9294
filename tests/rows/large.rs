//! Sizes beyond what one dispatch or one loop of a GPU can do: more than 65,535 workgroups, and more than 65,535 turns of
//! a loop, after which a software adapter silently ends it. The reference would take minutes; the numbers here are such
//! that the right results are exact, in any order, and known.

use crate::support::Case;
use crate::{Tested, backends, tunings};
use gradus_ir::op::{BinaryOp, Op, ReduceOp, ScatterMode, UnaryOp};
use gradus_ir::{DType, Data, NodeId, Number, plan};

/// Runs a case and compares each output with what it must be.
fn gives(on: &Tested, mut case: Case, outputs: &[(&str, NodeId, Vec<i64>)]) {
    case.graph.outputs = outputs.iter().map(|&(_, id, _)| id).collect();
    let got = case
        .run(on.backend, plan(&case.graph, on.backend.target()))
        .unwrap_or_else(|error| panic!("on {}: {error}", on.name));
    for ((what, _, expected), got) in outputs.iter().zip(got) {
        assert_eq!(got.len(), expected.len(), "{what} on {}", on.name);
        let wrong = (0..got.len()).find(|&i| got.get(i).map(Number::to_f64) != Some(expected[i] as f64));
        if let Some(i) = wrong {
            panic!("{what} {} on {}: [{i}] is {:?}, expected {}", got.dtype(), on.name, got.get(i), expected[i]);
        }
    }
}

/// Whole numbers as an array of i32, u32 or f32.
fn data(numbers: impl Iterator<Item = i64>, dtype: DType) -> Data {
    match dtype {
        DType::I32 => Data::I32(numbers.map(|x| x as i32).collect()),
        DType::U32 => Data::U32(numbers.map(|x| x as u32).collect()),
        _ => Data::F32(numbers.map(|x| x as f32).collect()),
    }
}

#[test]
fn more_elements_than_a_row_of_workgroups() {
    let n = (1usize << 24) + 3;
    let number = |i: usize| (i % 1021) as i64;
    for on in &tunings() {
        for dtype in [DType::F32, DType::I32] {
            let mut case = Case::default();
            let x = case.input(n, data((0..n).map(number), dtype));
            let y = case.op(Op::Binary(BinaryOp::Add), &[x, x]);
            gives(on, case, &[("twice", y, (0..n).map(|i| 2 * number(i)).collect())]);
            let mut case = Case::default();
            let x = case.input(n, data((0..n).map(number), dtype));
            let sum = case.op(Op::Binary(BinaryOp::Add), &[x, x]);
            let product = case.op(Op::Binary(BinaryOp::Mul), &[sum, x]);
            gives(on, case, &[("a pair", product, (0..n).map(|i| 2 * number(i) * number(i)).collect())]);
        }
        // Read across, so that vectors of four cannot be used.
        let (rows, columns) = (4099, 4096);
        let mut case = Case::default();
        let x = case.input([columns, rows], data((0..rows * columns).map(number), DType::F32));
        let turned = case.typed(Op::Permute([1, 0].as_slice().into()), &[x], [rows, columns], DType::F32);
        let y = case.op(Op::Unary(UnaryOp::Neg), &[turned]);
        let across = |i: usize| i % columns * rows + i / columns;
        gives(on, case, &[("turned", y, (0..rows * columns).map(|i| -number(across(i))).collect())]);
    }
}

/// Rows of which the CPU takes more at once where there are many.
#[test]
fn many_rows() {
    let (rows, columns) = (5003, 1000);
    let number = |i: usize| (i % 1021) as i64 - 500;
    let of_rows = |f: fn(&[i64]) -> i64| -> Vec<i64> {
        let numbers: Vec<i64> = (0..rows * columns).map(number).collect();
        numbers.chunks(columns).map(f).collect()
    };
    let [sums, best] = [of_rows(|row| row.iter().sum()), of_rows(|row| row.iter().copied().max().unwrap_or_default())];
    for on in &backends() {
        let mut case = Case::default();
        let x = case.input([rows, columns], data((0..rows * columns).map(number), DType::F32));
        let reduce = |case: &mut Case, op| case.op(Op::Reduce(op, [1].as_slice().into()), &[x]);
        let (sum, max) = (reduce(&mut case, ReduceOp::Sum), reduce(&mut case, ReduceOp::Max));
        gives(on, case, &[("sum", sum, sums.clone()), ("max", max, best.clone())]);
    }
}

/// Reduces groups of `n` elements that are 1 but for one 2, or −1 in its place, near the end of each group: `count`
/// groups, which are rows or columns, or one of all elements, along two axes.
fn check_reductions(on: &Tested, dtype: DType, n: usize, layout: &str) {
    let (shape, axes, count): (&[usize], &[usize], usize) = match layout {
        "rows" => (&[3, n], &[1], 3),
        "columns" => (&[n, 3], &[0], 3),
        "everything" => (&[n], &[0], 1),
        _ => (&[n / 16, 16], &[0, 1], 1),
    };
    // Where in its group an element stands, and in which.
    let place = |i: usize| if layout == "columns" { (i / count, i % count) } else { (i % n, i / n) };
    // In each group elsewhere, near its end.
    let odd_one = |group: usize| n - 5 - group;
    let numbers = |odd: i64| {
        let number = move |i: usize| if place(i).0 == odd_one(place(i).1) { odd } else { 1 };
        data((0..count * n).map(number), dtype)
    };
    let mut case = Case::default();
    let high = case.input(shape, numbers(2));
    let mut outputs = Vec::new();
    let reduce = |case: &mut Case, op, x| case.op(Op::Reduce(op, axes.into()), &[x]);
    outputs.push(("sum", reduce(&mut case, ReduceOp::Sum, high), vec![n as i64 + 1; count]));
    outputs.push(("prod", reduce(&mut case, ReduceOp::Prod, high), vec![2; count]));
    outputs.push(("max", reduce(&mut case, ReduceOp::Max, high), vec![2; count]));
    let places: Vec<i64> = (0..count).map(|group| odd_one(group) as i64).collect();
    if axes.len() == 1 {
        outputs.push(("argmax", reduce(&mut case, ReduceOp::ArgMax, high), places.clone()));
    }
    if dtype != DType::U32 {
        let low = case.input(shape, numbers(-1));
        outputs.push(("min", reduce(&mut case, ReduceOp::Min, low), vec![-1; count]));
        if axes.len() == 1 {
            outputs.push(("argmin", reduce(&mut case, ReduceOp::ArgMin, low), places));
        }
    }
    gives(on, case, &outputs);
}

#[test]
fn long_reductions() {
    for on in &tunings() {
        for n in [(1 << 16) + 16, 1 << 18, (1 << 20) + 48, 1 << 22].into_iter().take(if on.slow { 2 } else { 4 }) {
            for layout in ["rows", "columns", "everything", "two axes"] {
                check_reductions(on, DType::F32, n, layout);
            }
            check_reductions(on, DType::I32, n, if n == 1 << 18 { "columns" } else { "everything" });
        }
        // Many groups: more than there are workgroups in a row of the grid.
        let (rows, columns) = (70_000, 33);
        for axis in [0, 1] {
            let mut case = Case::default();
            let shape = if axis == 1 { [rows, columns] } else { [columns, rows] };
            let x = case.input(shape, data((0..rows * columns).map(|_| 1), DType::F32));
            let sum = case.op(Op::Reduce(ReduceOp::Sum, [axis].as_slice().into()), &[x]);
            gives(on, case, &[("many sums", sum, vec![columns as i64; rows])]);
        }
    }
}

/// Remainders and powers loop themselves: their turns must not add up in the loop of a reduction.
#[test]
fn long_reductions_of_what_loops() {
    let n = 1 << 22;
    for on in &tunings() {
        for dtype in [DType::U32, DType::F32] {
            let mut case = Case::default();
            let x = case.input(n, data((0..n).map(|_| 8), dtype));
            let [three, five] = [3, 5].map(|i| case.typed(Op::Const(Number::Int(i)), &[], n, dtype));
            let two = case.op(Op::Binary(BinaryOp::Rem), &[x, three]);
            let power = case.op(Op::Binary(BinaryOp::Pow), &[two, five]);
            let sum = case.op(Op::Reduce(ReduceOp::Sum, [0].as_slice().into()), &[power]);
            gives(on, case, &[("a sum of powers", sum, vec![32 * n as i64])]);
        }
    }
}

#[test]
fn reductions_of_very_much() {
    // Not with kernels for hardware on a software adapter: they may take more turns than it can.
    for on in &backends() {
        // 2²⁴ + 1 is no f32, so a little less.
        check_reductions(on, DType::F32, (1 << 24) - 16, "everything");
        check_reductions(on, DType::U32, 1 << 24, "two axes");
    }
}

#[test]
fn long_products() {
    let (left, right) = (|k: usize| (k % 3) as i64, |k: usize| (k % 5) as i64 - 2);
    for on in &tunings() {
        for dtype in [DType::F32, DType::I32].into_iter().take(if on.slow { 1 } else { 2 }) {
            for (k, transposed) in [(70_000, false), (70_000, true), (1 << 20, false)] {
                let (m, n) = (2, 3);
                let mut case = Case::default();
                // Row r of an operand begins r elements later in the sequence.
                let row_major = |rows: usize, f: &dyn Fn(usize) -> i64| {
                    data((0..rows * k).map(|i| f(i % k + i / k)).collect::<Vec<_>>().into_iter(), dtype)
                };
                let a = if transposed {
                    let turned: Vec<i64> = (0..m * k).map(|i| left(i / m + i % m)).collect();
                    let a = case.input([k, m], data(turned.into_iter(), dtype));
                    case.typed(Op::Permute([1, 0].as_slice().into()), &[a], [m, k], dtype)
                } else {
                    case.input([m, k], row_major(m, &left))
                };
                let b = case.input([n, k], row_major(n, &right));
                let y = case.op(Op::Contract { batch: 0, contracted: 1 }, &[a, b]);
                let dot = |i: usize, j: usize| (0..k).map(|l| left(l + i) * right(l + j)).sum::<i64>();
                let expected = (0..m * n).map(|at| dot(at / n, at % n)).collect();
                gives(on, case, &[("a long product", y, expected)]);
            }
        }
        // Many small products, and one whose result is tall.
        for (batch, rows, columns, k) in [(70_000, 1, 2, 3), (1, 70_000, 3, 2), (1, 3, 70_000, 2)] {
            let mut case = Case::default();
            let [a, b] =
                [rows, columns].map(|n| case.input([batch, n, k], data((0..batch * n * k).map(|_| 1), DType::F32)));
            let y = case.op(Op::Contract { batch: 1, contracted: 1 }, &[a, b]);
            gives(on, case, &[("many products", y, vec![k as i64; batch * rows * columns])]);
        }
    }
}

#[test]
fn many_indices() {
    // A prime, so that every place is met before one is met again.
    let count = 70_001;
    for on in &tunings() {
        for (places, count) in [(1, count), (7, count), (4000, count), (100_000, 300)] {
            let at = |i: usize| i * 65_537 % places;
            let mut case = Case::default();
            let base = case.input(places, data((0..places).map(|i| i as i64), DType::F32));
            let index = case.input(count, data((0..count).map(|i| at(i) as i64), DType::I32));
            let updates = case.input(count, data((0..count).map(|i| (i % 3) as i64), DType::F32));
            let gathered = case.op(Op::Gather(0), &[base, index]);
            let added = case.op(Op::Scatter(ScatterMode::Add, 0), &[base, index, updates]);
            let set = case.op(Op::Scatter(ScatterMode::Set, 0), &[base, index, updates]);
            let mut sums: Vec<i64> = (0..places as i64).collect();
            let mut last = sums.clone();
            for i in 0..count {
                sums[at(i)] += (i % 3) as i64;
                last[at(i)] = (i % 3) as i64;
            }
            let found = (0..count).map(|i| at(i) as i64).collect();
            gives(on, case, &[("gather", gathered, found), ("scatter_add", added, sums), ("scatter_set", set, last)]);
        }
        // Rows of three: what an embedding does, and its gradient.
        let (places, width) = (101, 3);
        let at = |i: usize| i / width * 4 % places;
        let mut case = Case::default();
        let base = case.input([places, width], data((0..places * width).map(|i| i as i64), DType::I32));
        let index = case.input([count, width], data((0..count * width).map(|i| at(i) as i64), DType::U32));
        let updates = case.input([count, width], data((0..count * width).map(|i| (i % 7) as i64), DType::I32));
        let gathered = case.op(Op::Gather(0), &[base, index]);
        let added = case.op(Op::Scatter(ScatterMode::Add, 0), &[base, index, updates]);
        let of_rows = case.input([count, 1], data((0..count).map(|i| at(i * width) as i64), DType::I32));
        let of_rows = case.typed(Op::Expand, &[of_rows], [count, width], DType::I32);
        let added_rows = case.op(Op::Scatter(ScatterMode::Add, 0), &[base, of_rows, updates]);
        let mut sums: Vec<i64> = (0..(places * width) as i64).collect();
        for i in 0..count * width {
            sums[at(i) * width + i % width] += (i % 7) as i64;
        }
        let found = (0..count * width).map(|i| (at(i) * width + i % width) as i64).collect();
        let rows = [("gather of rows", gathered, found), ("scatter_add", added, sums.clone())];
        gives(on, case, &[&rows[..], &[("scatter_add of rows", added_rows, sums)]].concat());
        // So many wider ones that nothing cuts them into short blocks.
        let width = 20;
        let mut case = Case::default();
        let base = case.input([places, width], data((0..places * width).map(|i| i as i64), DType::F32));
        let index = case.input([count, 1], data((0..count).map(|i| at(i) as i64), DType::U32));
        let index = case.typed(Op::Expand, &[index], [count, width], DType::U32);
        let gathered = case.op(Op::Gather(0), &[base, index]);
        let found = (0..count * width).map(|i| (at(i / width) * width + i % width) as i64).collect();
        gives(on, case, &[("gather of wide rows", gathered, found)]);
    }
}

/// On a CPU, blocks of rows that lie abreast hold several planes of so many elements.
#[test]
fn columns_of_many_planes() {
    let [planes, rows, columns] = [33, 257, 128];
    let number = |i: usize| (i * 7919 % 1021) as i64 - 500;
    let column = |i: usize| {
        let (plane, column) = (i / columns, i % columns);
        (0..rows).map(move |row| number((plane * rows + row) * columns + column))
    };
    let of_columns = |f: fn(&mut dyn Iterator<Item = i64>) -> i64| -> Vec<i64> {
        (0..planes * columns).map(|i| f(&mut column(i))).collect()
    };
    let sums = of_columns(|numbers| numbers.sum());
    let largest = of_columns(|numbers| numbers.max().unwrap_or_default());
    let first = of_columns(|numbers| {
        let best = numbers.enumerate().max_by_key(|&(row, number)| (number, std::cmp::Reverse(row)));
        best.map_or(0, |(row, _)| row as i64)
    });
    for on in &tunings() {
        for dtype in [DType::F32, DType::I32] {
            let mut case = Case::default();
            let x = case.input([planes, rows, columns], data((0..planes * rows * columns).map(number), dtype));
            let mut reduced = |op: ReduceOp| case.op(Op::Reduce(op, [1].as_slice().into()), &[x]);
            let [sum, max, place] = [ReduceOp::Sum, ReduceOp::Max, ReduceOp::ArgMax].map(&mut reduced);
            let outputs = [("sum", sum, sums.clone()), ("max", max, largest.clone()), ("argmax", place, first.clone())];
            // Each alone and all of one walk.
            outputs.iter().for_each(|output| gives(on, case.clone(), std::slice::from_ref(output)));
            gives(on, case, &outputs);
        }
    }
}
