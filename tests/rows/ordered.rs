//! Scans and sorts.

use crate::layout::Layout;
use crate::support::{Case, Rng, tiled};
use crate::{FLOATS, NUMBERS, Tested, check, layout_of_turn, special, tunings, value};
use gradus_ir::op::{Op, ScanOp};
use gradus_ir::{DType, Data, NodeId, Number, plan};

/// Elements whose products keep their size, a few zeros, and NaN if wanted; integers are large, so that sums wrap.
fn carriable(dtype: DType, len: usize, seed: u64, nan: bool) -> Data {
    let mut rng = Rng(seed);
    let numbers: Vec<Number> = (0..len)
        .map(|_| match rng.below(if nan { 61 } else { 60 }) {
            60 => Number::Float(f64::NAN),
            59 => Number::from(0),
            n if dtype.is_float() => Number::Float((1.0 + (n as f64 - 30.0) / 20_000.0) * [1.0, -1.0][n % 2]),
            n => Number::Int((n as i64 - if dtype == DType::I32 { 30 } else { 0 }) * 71_000_007),
        })
        .collect();
    tiled(&numbers, dtype, len)
}

/// Shapes and the axis to go along: nothing at all, one element, lengths around blocks and parts, long and short lines, many
/// and few of them.
const LINES: [(&[usize], usize); 18] = [
    (&[0], 0),
    (&[3, 0, 2], 1),
    (&[0, 4], 1),
    (&[1], 0),
    (&[7], 0),
    (&[127], 0),
    (&[129], 0),
    (&[256], 0),
    (&[257], 0),
    (&[1500], 0),
    (&[3, 700], 1),
    (&[700, 3], 0),
    (&[2048, 2], 0),
    (&[2, 2100], 1),
    (&[4, 5, 6], 0),
    (&[4, 5, 6], 1),
    (&[4, 5, 6], 2),
    (&[9, 300, 3], 1),
];

fn layouts(on: &Tested, shape: &[usize], turn: usize) -> Vec<Layout> {
    match on.thorough {
        true if shape.iter().product::<usize>() < 1000 => Layout::ALL.to_vec(),
        true => Layout::ALL[..2].to_vec(),
        false => vec![layout_of_turn(turn)],
    }
}

#[test]
fn scans() {
    for on in &tunings() {
        for (i, (shape, axis)) in LINES.into_iter().enumerate() {
            for (j, dtype) in on.of(&NUMBERS).into_iter().enumerate() {
                for (layout, nan) in layouts(on, shape, i + j).into_iter().flat_map(|l| [false, true].map(|n| (l, n))) {
                    if nan && !dtype.is_float() {
                        continue;
                    }
                    let mut case = Case::default();
                    let x = layout.operand(&mut case, shape, |len| carriable(dtype, len, 1, nan));
                    let y = layout_of_turn(i + j + 1).operand(&mut case, shape, |len| carriable(dtype, len, 2, nan));
                    let mut outputs = vec![case.op(Op::Scan(ScanOp::Sum, axis), &[x])];
                    outputs.push(case.op(Op::Scan(ScanOp::Prod, axis), &[x]));
                    if dtype.is_float() {
                        outputs.push(case.op(Op::Scan(ScanOp::Recurrence, axis), &[x, y]));
                    }
                    check(on, case, &outputs, ("scans", dtype, layout, shape, axis, if nan { "with NaN" } else { "" }));
                }
            }
        }
    }
}

/// Coefficients whose product is infinite, though nothing else is, then a zero: parts of the line are put together as if
/// they had been walked along.
#[test]
fn recurrences_start_anew_after_a_zero() {
    for on in &tunings() {
        for zero in [3, 700, 1999] {
            let coefficient = |i: usize| match i {
                _ if i == zero => 0.0,
                _ if i < zero && i + 2 >= zero => 1e30,
                _ => 1.0f32,
            };
            let summand = |i: usize| if i == zero { 3.0 } else { f32::from(i == 0) * 1e-35 };
            let (a, b): (Vec<f32>, Vec<f32>) = (0..4000).map(|i| (coefficient(i), summand(i))).unzip();
            let mut case = Case::default();
            let operands = [&a, &b].map(|x| case.input([4000], Data::F32(x.clone())));
            let carried = case.op(Op::Scan(ScanOp::Recurrence, 0), &operands);
            let got = value(on.backend, &mut case, carried);
            let mut y = 0.0;
            for i in 0..4000 {
                y = f64::from(a[i]) * y + f64::from(b[i]);
                let got = got.get(i).unwrap().to_f64();
                assert!((got - y).abs() <= 1e-6 * y, "{zero}: {got} at {i}, expected {y} on {}", on.name);
            }
        }
    }
}

#[test]
fn sorts() {
    for on in &tunings() {
        for (i, (shape, axis)) in LINES.into_iter().enumerate() {
            for (j, dtype) in on.dtypes().into_iter().enumerate() {
                for layout in layouts(on, shape, i + j) {
                    let mut case = Case::default();
                    // Few different ones, so that many are equal.
                    let x = layout.operand(&mut case, shape, |len| {
                        let mut rng = Rng(len as u64);
                        let special = special(dtype);
                        let number = |_| match rng.below(30) {
                            n if n < special.len() => special[n],
                            n if dtype == DType::U32 => Number::from(n),
                            n => Number::Int(n as i64 - 20),
                        };
                        let number: Vec<Number> = (0..len).map(number).collect();
                        tiled(&number, dtype, len)
                    });
                    // All indices, and some of the first.
                    let extent = shape[axis];
                    let mut kept = vec![extent, 1.min(extent), extent / 10, extent.saturating_sub(1), 0];
                    kept.truncate(if on.slow { 2 + (i + j) % 2 } else { 5 });
                    let sorts = kept.iter().flat_map(|&kept| [false, true].map(|descending| (kept, descending)));
                    let sorts: Vec<NodeId> =
                        sorts.map(|(kept, descending)| case.op(Op::Argsort { axis, descending, kept }, &[x])).collect();
                    check(on, case, &sorts, ("argsort", dtype, layout, shape, axis));
                }
            }
        }
    }
}

/// Without a reference: what must be where.
#[test]
fn the_order_of_what_is_special() {
    for on in &tunings() {
        for dtype in on.of(&FLOATS) {
            let tiny = match dtype {
                DType::F16 => 1e-7,
                DType::F32 => 1e-40,
                _ => 1e-310,
            };
            let x = [0.0, f64::NAN, -0.0, f64::INFINITY, tiny, -f64::NAN, -tiny, f64::NEG_INFINITY];
            for (descending, expected) in [(false, [7, 6, 0, 2, 4, 3, 1, 5]), (true, [1, 5, 3, 4, 0, 2, 6, 7])] {
                let mut case = Case::default();
                let x = case.input(8, tiled(&x.map(Number::from), dtype, 8));
                let order = case.op(Op::Argsort { axis: 0, descending, kept: 8 }, &[x]);
                assert_eq!(value(on.backend, &mut case, order), Data::I32(expected.to_vec()), "{dtype} on {}", on.name);
            }
        }
    }
}

fn run(on: &Tested, case: &mut Case, outputs: &[NodeId]) -> Vec<Data> {
    case.graph.outputs = outputs.to_vec();
    let plan = plan(&case.graph, on.backend.target());
    case.run(on.backend, plan).unwrap_or_else(|error| panic!("on {}: {error}", on.name))
}

/// Lengths that take several launches, or more turns than a loop of a software adapter has.
#[test]
fn long_lines() {
    for on in &tunings() {
        for n in [(1 << 16) + 1, 1 << 20] {
            for (shape, axis) in [([1, n], 1), ([n, 2], 0)] {
                let lines = shape[0] * shape[1] / n;
                let mut rng = Rng(n as u64);
                // Sums of whole numbers are exact.
                let numbers: Vec<i64> = (0..n * lines).map(|_| rng.below(9) as i64 - 4).collect();
                let mut case = Case::default();
                let ints = case.input(shape, Data::I32(numbers.iter().map(|&x| x as i32).collect()));
                let floats = case.input(shape, Data::F32(numbers.iter().map(|&x| x as f32).collect()));
                let signs: Vec<f32> = numbers.iter().map(|&x| if x < 0 { -1.0 } else { 1.0 }).collect();
                // y is −1, 0 or 1 as many steps ago, a new number was added to 0.
                let kept: Vec<f32> = numbers.iter().zip(&signs).map(|(&x, s)| if x == 4 { 0.0 } else { *s }).collect();
                let fresh: Vec<f32> = kept.iter().map(|&a| if a == 0.0 { 1.0 } else { 0.0 }).collect();
                let [signs_id, kept_id, fresh_id] =
                    [&signs, &kept, &fresh].map(|x| case.input(shape, Data::F32(x.clone())));
                let outputs = [
                    case.op(Op::Scan(ScanOp::Sum, axis), &[ints]),
                    case.op(Op::Scan(ScanOp::Sum, axis), &[floats]),
                    case.op(Op::Scan(ScanOp::Prod, axis), &[signs_id]),
                    case.op(Op::Scan(ScanOp::Recurrence, axis), &[kept_id, fresh_id]),
                ];
                let got = run(on, &mut case, &outputs);
                let place = |line: usize, k: usize| if axis == 0 { k * lines + line } else { k };
                for line in 0..lines {
                    let (mut sum, mut product, mut y) = (0, 1.0, 0.0);
                    for k in 0..n {
                        let at = place(line, k);
                        sum += numbers[at];
                        product *= signs[at];
                        y = kept[at] * y + fresh[at];
                        let expected = [sum as f64, sum as f64, product as f64, y as f64];
                        let found: Vec<f64> = got.iter().filter_map(|x| x.get(at)).map(Number::to_f64).collect();
                        assert_eq!(found, expected, "line {line}, element {k} of {n} on {}", on.name);
                    }
                }
            }
        }
    }
}

/// Long sums of what lies across, in whole numbers and in others.
#[test]
fn long_sums_of_columns() {
    let (n, lines) = (40_000, 3);
    for on in &tunings() {
        let mut rng = Rng(3);
        let whole: Vec<i32> = (0..n * lines).map(|_| rng.below(1 << 30) as i32).collect();
        let parts: Vec<f32> = (0..n * lines).map(|_| rng.unit() as f32 - 0.3).collect();
        let mut case = Case::default();
        let mut sums = |data: Data| {
            let dtype = data.dtype();
            let x = case.input([n, lines], data);
            let turned = case.typed(Op::Permute([1, 0].as_slice().into()), &[x], [lines, n], dtype);
            case.op(Op::Scan(ScanOp::Sum, 1), &[turned])
        };
        let outputs = [sums(Data::I32(whole.clone())), sums(Data::F32(parts.clone()))];
        let got = run(on, &mut case, &outputs);
        for line in 0..lines {
            let (mut wrapped, mut sum, mut size) = (0i32, 0.0, 0.0);
            for k in 0..n {
                let (at, place) = (k * lines + line, line * n + k);
                wrapped = wrapped.wrapping_add(whole[at]);
                (sum, size) = (sum + f64::from(parts[at]), size + f64::from(parts[at]).abs());
                let what = || format!("line {line}, element {k} on {}", on.name);
                assert_eq!(got[0].get(place), Some(Number::Int(wrapped.into())), "{}", what());
                let got = got[1].get(place).map_or(f64::NAN, Number::to_f64);
                let bound = f64::from(f32::EPSILON) * if on.thorough { sum.abs() } else { 20.0 * size };
                assert!((got - sum).abs() <= bound, "{}: {got}, not {sum}", what());
            }
        }
    }
}

#[test]
fn long_sorts() {
    for on in &tunings() {
        for (n, lines) in [((1 << 16) + 1, 2), (1 << 20, 1)].into_iter().take(if on.slow { 1 } else { 2 }) {
            let mut rng = Rng(n as u64);
            let numbers: Vec<f32> = (0..n * lines).map(|_| rng.below(n / 2) as f32 / 7.0 - 1000.0).collect();
            let mut case = Case::default();
            let x = case.input([lines, n], Data::F32(numbers.clone()));
            let sorts = [n, n / 100].into_iter().flat_map(|kept| [false, true].map(|descending| (kept, descending)));
            let sorts: Vec<(usize, bool)> = sorts.collect();
            let sort = |&(kept, descending): &(usize, bool)| case.op(Op::Argsort { axis: 1, descending, kept }, &[x]);
            let outputs: Vec<NodeId> = sorts.iter().map(sort).collect();
            for (got, (kept, descending)) in run(on, &mut case, &outputs).into_iter().zip(sorts) {
                let Data::I32(got) = got else { panic!("indices are i32") };
                for (line, got) in got.chunks(kept).enumerate() {
                    let row = &numbers[line * n..][..n];
                    let mut order: Vec<i32> = (0..n as i32).collect();
                    let key = |&i: &i32| if descending { -row[i as usize] } else { row[i as usize] };
                    order.sort_by(|i, j| key(i).total_cmp(&key(j)));
                    let what = || format!("{kept} of line {line} of {n}, descending: {descending}, on {}", on.name);
                    assert!(got == &order[..kept], "{}", what());
                }
            }
        }
    }
}

/// The bits of long scans of floats are those of every run.
#[test]
fn scans_have_the_same_bits_every_time() {
    for on in &tunings() {
        let mut rng = Rng(1);
        let [a, b] = [(); 2].map(|_| Data::F32((0..200_000).map(|_| rng.unit() as f32 - 0.3).collect()));
        let mut case = Case::default();
        let (a, b) = (case.input([2, 100_000], a), case.input([2, 100_000], b));
        let outputs = [case.op(Op::Scan(ScanOp::Sum, 1), &[b]), case.op(Op::Scan(ScanOp::Recurrence, 1), &[a, b])];
        let first = run(on, &mut case, &outputs);
        assert!(run(on, &mut case, &outputs) == first, "on {}", on.name);
    }
}
