//! Conformance of every primitive: the CPU backend against the reference interpreter, over dtypes, layouts and sizes;
//! the number semantics, as tables of values that need no reference; donation; and bits that do not depend on the
//! number of threads.

#[path = "support/layout.rs"]
mod layout;
#[path = "support/semantics.rs"]
mod semantics;
mod support;

use gradus_cpu::Cpu;
use gradus_ir::op::{BinaryOp, CompareOp, Op, ReduceOp, ScatterMode, SliceAxis, UnaryOp};
use gradus_ir::plan::{Buffer, Expression, Family, Instruction, Kernel, Plan, Store};
use gradus_ir::{Backend, DType, Data, Error, NodeId, Number, Shape, philox, plan};
use layout::Layout;
use std::fmt::Debug;
use support::{Case, Mismatch, Rng, random_view, tiled, wait};

const FLOATS: [DType; 2] = [DType::F32, DType::F64];
const INTS: [DType; 2] = [DType::I32, DType::U32];
const NUMBERS: [DType; 4] = [DType::I32, DType::U32, DType::F32, DType::F64];

/// No element, one, a few, a length beyond a block of 1024, and more than one task.
const SHAPES: [&[usize]; 6] = [&[], &[1], &[0, 3], &[5, 7], &[1025], &[40, 1000]];

fn cpu() -> Cpu {
    Cpu::new(None, None).unwrap()
}

/// Asks for the nodes' values and holds the CPU to the reference.
fn check(cpu: &Cpu, mut case: Case, outputs: &[NodeId], what: impl Debug) {
    case.graph.outputs = outputs.to_vec();
    let expected = case.reference().unwrap_or_else(|error| panic!("{what:?}: reference: {error}"));
    let got = case.run(cpu, plan(&case.graph)).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    if let Some(mismatch) = Mismatch::find(&expected, &got) {
        panic!("{what:?}: {mismatch}\n{}", plan(&case.graph));
    }
}

/// One output of a small graph, by the CPU.
fn value(case: &mut Case, output: NodeId) -> Data {
    case.graph.outputs = vec![output];
    case.run(&cpu(), plan(&case.graph)).unwrap().remove(0)
}

/// Numbers where an op may go wrong.
fn special(dtype: DType) -> Vec<Number> {
    let floats = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let (i32s, u32s) = ([0, 1, -1, 2, -7, 13, 46341, i32::MIN, i32::MAX], [0, 1, 2, 7, 13, 65536, 1 << 31, u32::MAX]);
    match dtype {
        DType::Bool => [false, true].map(Number::from).into(),
        DType::I32 => i32s.map(Number::from).into(),
        DType::U32 => u32s.map(Number::from).into(),
        DType::F32 | DType::F64 => floats.map(Number::from).into(),
    }
}

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

/// Every small shape in every layout, and a large one in two.
fn shapes_and_layouts() -> impl Iterator<Item = (&'static [usize], Layout)> {
    let all = SHAPES.into_iter().flat_map(|shape| Layout::ALL.map(|layout| (shape, layout)));
    all.filter(|(shape, layout)| shape != &[40, 1000] || [Layout::Contiguous, Layout::Transposed].contains(layout))
}

#[test]
fn unary_rows() {
    let cpu = cpu();
    for &op in UnaryOp::ALL {
        for dtype in DType::ALL.into_iter().filter(|&dtype| op.accepts().contains(dtype)) {
            let samples: Vec<Number> = op.samples().iter().map(|&x| number(x, dtype)).chain(special(dtype)).collect();
            for (shape, layout) in shapes_and_layouts() {
                let mut case = Case::default();
                let x = layout.operand(&mut case, shape, |len| tiled(&samples, dtype, len));
                let y = case.op(Op::Unary(op), &[x]);
                check(&cpu, case, &[y], (op, dtype, layout, shape));
            }
        }
    }
}

/// Checks an op of two operands of one dtype, in equal and in different layouts.
fn check_pairs(op: Op, samples: &[(f64, f64)], dtype: DType) {
    let cpu = cpu();
    let (left, right) = pairs(samples, dtype);
    for (shape, layout) in shapes_and_layouts() {
        let layouts = [(layout, layout), (layout, Layout::Contiguous), (Layout::Contiguous, layout)];
        for (a_layout, b_layout) in layouts.into_iter().take(if layout == Layout::Contiguous { 1 } else { 3 }) {
            let mut case = Case::default();
            let a = a_layout.operand(&mut case, shape, |len| tiled(&left, dtype, len));
            let b = b_layout.operand(&mut case, shape, |len| tiled(&right, dtype, len));
            let y = case.op(op.clone(), &[a, b]);
            check(&cpu, case, &[y], (&op, dtype, a_layout, b_layout, shape));
        }
    }
}

#[test]
fn binary_rows() {
    for &op in BinaryOp::ALL {
        for dtype in DType::ALL.into_iter().filter(|&dtype| op.accepts().contains(dtype)) {
            check_pairs(Op::Binary(op), op.samples(), dtype);
        }
    }
}

#[test]
fn comparison_rows() {
    for &op in CompareOp::ALL {
        for dtype in DType::ALL.into_iter().filter(|&dtype| op.accepts().contains(dtype)) {
            check_pairs(Op::Compare(op), op.samples(), dtype);
        }
    }
}

#[test]
fn casts_between_all_dtypes() {
    let cpu = cpu();
    let edges = [-1e10, -129.5, -0.99, 0.5, 1.5, 2147483647.0, 2147483648.0, 4294967296.0, 16777217.0, 1e300];
    for (from, to) in DType::ALL.into_iter().flat_map(|from| DType::ALL.map(|to| (from, to))) {
        let numbers: Vec<Number> = special(from).into_iter().chain(edges.map(|x| number(x, from))).collect();
        for (shape, layout) in shapes_and_layouts() {
            let mut case = Case::default();
            let x = layout.operand(&mut case, shape, |len| tiled(&numbers, from, len));
            let y = case.typed(Op::Cast, &[x], shape, to);
            check(&cpu, case, &[y], ("cast", from, to, layout, shape));
        }
    }
}

#[test]
fn select_takes_one_branch() {
    let cpu = cpu();
    let conditions = [true, false, false].map(Number::from);
    for dtype in DType::ALL {
        let numbers = special(dtype);
        for (shape, layout) in shapes_and_layouts() {
            for layouts in [[layout; 3], [layout, Layout::Contiguous, layout]] {
                let mut case = Case::default();
                let condition = layouts[0].operand(&mut case, shape, |len| tiled(&conditions, DType::Bool, len));
                let then = layouts[1].operand(&mut case, shape, |len| tiled(&numbers, dtype, len));
                let other = layouts[2].operand(&mut case, shape, |len| tiled(&numbers[1..], dtype, len));
                let y = case.typed(Op::Select, &[condition, then, other], shape, dtype);
                check(&cpu, case, &[y], ("where", dtype, layouts, shape));
            }
        }
    }
}

#[test]
fn sources() {
    let cpu = cpu();
    for shape in [&[1][..], &[0, 3], &[5, 7], &[3, 5, 341], &[1025], &[40, 1000]] {
        for dtype in NUMBERS {
            for axis in 0..shape.len() {
                let mut case = Case::default();
                let iota = case.typed(Op::Iota(axis), &[], shape, dtype);
                check(&cpu, case, &[iota], ("iota", axis, dtype, shape));
            }
        }
        for number in [Number::Int(3), Number::Float(-2.5), Number::Bool(true)] {
            for dtype in DType::ALL.into_iter().filter(|&dtype| number.fits(dtype)) {
                let mut case = Case::default();
                let slot = case.slot(number);
                let scalar = case.typed(Op::Scalar(slot), &[], shape, dtype);
                let constant = case.typed(Op::Const(number), &[], shape, dtype);
                check(&cpu, case, &[scalar, constant], (number, dtype, shape));
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

#[test]
fn random_numbers_are_philox() {
    let key = 0x1234_5678_9ABC_DEF0_i64;
    for dtype in [DType::U32, DType::F32, DType::F64] {
        for len in [0, 1, 2, 1023, 1025, 40_000] {
            let mut case = Case::default();
            let slot = case.slot(Number::Int(key));
            let random = case.typed(Op::Random(slot), &[], len, dtype);
            assert_eq!(value(&mut case, random), philox_numbers(key as u64, dtype, len), "{dtype} × {len}");
        }
    }
}

/// A reduction cuts its space into blocks of whole rows, which begin inside a Philox block.
#[test]
fn random_blocks_may_start_anywhere() {
    let (rows, columns, key) = (700, 7, 99);
    for dtype in [DType::U32, DType::F32, DType::F64] {
        let buffer = Buffer { dtype, len: rows, input: None };
        let kernel = Kernel {
            family: Family::Reduce { op: ReduceOp::Max, axes: 1 },
            space: Shape::new(&[rows, columns]),
            loads: vec![],
            expression: Expression { instructions: vec![(Instruction::Random(0), dtype)] },
            outputs: vec![Store { buffer: 0, register: 0 }],
        };
        let plan = Plan { buffers: vec![buffer], kernels: vec![kernel], outputs: vec![0] };
        let case = Case { scalars: vec![Number::Int(key)], ..Case::default() };
        let got = case.run(&cpu(), plan).unwrap().remove(0);
        let numbers = philox_numbers(key as u64, dtype, rows * columns);
        for row in 0..rows {
            let largest = (0..columns).map(|i| numbers.get(row * columns + i).unwrap().to_f64()).fold(0.0, f64::max);
            assert_eq!(got.get(row).unwrap().to_f64(), largest, "{dtype}, row {row}");
        }
    }
}

#[test]
fn uniform_numbers_are_uniform() {
    for dtype in FLOATS {
        let mut case = Case::default();
        let slot = case.slot(Number::Int(7));
        let random = case.typed(Op::Random(slot), &[], 40_000, dtype);
        let data = value(&mut case, random);
        let numbers: Vec<f64> = (0..data.len()).map(|i| data.get(i).unwrap().to_f64()).collect();
        assert!(numbers.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = numbers.iter().sum::<f64>() / 40_000.0;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 40_000.0;
        // Five standard errors: σ of the mean is √(1/12 / n), of the variance √(1/180 / n).
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / 40_000f64).sqrt(), "mean {mean}");
        assert!((variance - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0 / 40_000f64).sqrt(), "variance {variance}");
    }
}

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
/// short rows, long and short columns, and several axes.
const REDUCTIONS: [(&[usize], &[usize]); 26] = [
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
];

#[test]
fn reductions() {
    let cpu = cpu();
    for (shape, axes) in REDUCTIONS {
        let layouts = if shape.iter().product::<usize>() < 2000 { &Layout::ALL[..] } else { &Layout::ALL[..2] };
        for (&layout, dtype, nan) in layouts
            .iter()
            .flat_map(|layout| NUMBERS.map(|dtype| (layout, dtype)))
            .flat_map(|(layout, dtype)| [false, true].map(|nan| (layout, dtype, nan)))
            .filter(|(_, dtype, nan)| !nan || dtype.is_float())
        {
            let mut case = Case::default();
            let x = layout.operand(&mut case, shape, |len| reducible(dtype, len, nan));
            let all = ReduceOp::ALL.map(|op| Op::Reduce(op, axes.into()));
            // Max and min of nothing do not exist, nor does the index of the best along several axes.
            let ty = case.ty(x).clone();
            let valid: Vec<Op> = all.into_iter().filter(|op| op.infer(&[&ty], &ty).is_ok()).collect();
            let outputs: Vec<NodeId> = valid.iter().map(|op| case.op(op.clone(), &[x])).collect();
            check(&cpu, case, &outputs, (valid, dtype, layout, shape, if nan { "with NaN" } else { "" }));
        }
    }
}

/// Small whole numbers and fractions.
fn factors(dtype: DType, len: usize, seed: u64) -> Data {
    let mut rng = Rng(seed);
    let numbers: Vec<Number> = (0..len)
        .map(|_| match rng.unit() * 4.0 - 2.0 {
            x if dtype.is_float() => Number::Float(x),
            x => Number::Int((x * 1e9) as i64),
        })
        .collect();
    tiled(&numbers, dtype, len)
}

/// The operands' shapes of a product with these axis groups.
fn product_shapes(groups: [&[usize]; 4]) -> (Vec<usize>, Vec<usize>) {
    let [batch, free_a, free_b, contracted] = groups;
    ([batch, free_a, contracted].concat(), [batch, free_b, contracted].concat())
}

fn check_product(cpu: &Cpu, groups: [&[usize]; 4], dtype: DType, a_layout: Layout, b_layout: Layout) {
    let (a_shape, b_shape) = product_shapes(groups);
    let mut case = Case::default();
    let a = a_layout.operand(&mut case, &a_shape, |len| factors(dtype, len, 1));
    let b = b_layout.operand(&mut case, &b_shape, |len| factors(dtype, len, 2));
    let y = case.op(Op::Contract { batch: groups[0].len(), contracted: groups[3].len() }, &[a, b]);
    check(cpu, case, &[y], ("matmul", groups, dtype, a_layout, b_layout));
}

#[test]
fn matrix_products() {
    let cpu = cpu();
    // Up to two axes in each group; no axis means that the group is absent.
    let extents: [&[usize]; 6] = [&[], &[3], &[2, 3], &[1, 4], &[0], &[3, 0]];
    for (i, groups) in (0..extents.len().pow(4)).map(|i| (i, [i, i / 6, i / 36, i / 216].map(|i| extents[i % 6]))) {
        // Every combination of axes meets every dtype and many pairs of layouts.
        for (j, dtype) in NUMBERS.into_iter().enumerate() {
            let layout = |k: usize| Layout::ALL[(i + i / 6 + k) % 6];
            check_product(&cpu, groups, dtype, layout(0), layout(j));
        }
    }
    let large: [[&[usize]; 4]; 4] = [
        [&[], &[70], &[65], &[130]],
        [&[3], &[33], &[1], &[257]],
        [&[2, 2], &[5, 9], &[4, 8], &[6, 7]],
        [&[], &[1], &[1], &[5000]],
    ];
    for groups in large {
        for (dtype, layout) in NUMBERS.into_iter().flat_map(|dtype| Layout::ALL.map(|layout| (dtype, layout))) {
            check_product(&cpu, groups, dtype, layout, Layout::Contiguous);
            check_product(&cpu, groups, dtype, Layout::Transposed, layout);
        }
    }
}

/// An index below `extent`, with repetitions.
fn index_data(dtype: DType, len: usize, extent: usize) -> Data {
    let mut rng = Rng(len as u64 + 5);
    let numbers: Vec<Number> = (0..len).map(|_| Number::from(rng.below(extent))).collect();
    tiled(&numbers, dtype, len)
}

#[test]
fn gather_and_scatter() {
    let cpu = cpu();
    let shape = Shape::new(&[4, 5, 6]);
    for (axis, extent) in (0..3).flat_map(|axis| [0, 1, 9].map(|extent| (axis, extent))) {
        let indexed = shape.with(axis, extent);
        for (dtype, index_dtype) in DType::ALL.into_iter().flat_map(|dtype| INTS.map(|index| (dtype, index))) {
            for (layout, index_layout) in
                Layout::ALL.into_iter().flat_map(|a| [Layout::Contiguous, a, Layout::Broadcast].map(|b| (a, b)))
            {
                let mut case = Case::default();
                let data = |len| match dtype {
                    DType::Bool => tiled(&special(dtype), dtype, len),
                    _ => factors(dtype, len, 3),
                };
                let x = layout.operand(&mut case, &shape, data);
                let index = index_layout.operand(&mut case, &indexed, |len| index_data(index_dtype, len, shape[axis]));
                let updates = layout.operand(&mut case, &indexed, data);
                let mut outputs = vec![case.op(Op::Gather(axis), &[x, index])];
                outputs.push(case.op(Op::Scatter(ScatterMode::Set, axis), &[x, index, updates]));
                if dtype != DType::Bool {
                    outputs.push(case.op(Op::Scatter(ScatterMode::Add, axis), &[x, index, updates]));
                }
                let what = ("gather, scatter_set, scatter_add", axis, extent, dtype, index_dtype, layout, index_layout);
                check(&cpu, case, &outputs, what);
            }
        }
    }
}

/// The slice of an array without elements has an offset, but nothing to read there.
#[test]
fn an_empty_view_may_start_past_its_buffer() {
    let mut case = Case::default();
    let base = case.input([1, 3], Data::F32(vec![1.0, 2.0, 3.0]));
    let last = [SliceAxis { start: 4, step: 1, len: 1 }, SliceAxis { start: 0, step: 1, len: 0 }];
    let [index, updates] = [Data::I32(vec![]), Data::F32(vec![])].map(|data| {
        let (dtype, whole) = (data.dtype(), case.input([5, 0], data));
        case.typed(Op::Slice(last.as_slice().into()), &[whole], [1, 0], dtype)
    });
    let y = case.op(Op::Scatter(ScatterMode::Add, 1), &[base, index, updates]);
    check(&cpu(), case, &[y, updates], "a scatter of nothing");
}

#[test]
fn an_index_out_of_range_is_an_error() {
    for (bad, axis) in [-1, 3].into_iter().flat_map(|bad| [(bad, 0), (bad, 1)]) {
        for (op, operands) in
            [(Op::Gather(axis), 2), (Op::Scatter(ScatterMode::Add, axis), 3), (Op::Scatter(ScatterMode::Set, axis), 3)]
        {
            let mut case = Case::default();
            let x = case.input([3, 3], Data::F32(vec![1.0; 9]));
            let index = case.input([3, 3], Data::I32(vec![0, 1, 2, 0, bad, 2, 0, 1, 2]));
            let y = case.op(op, &[x, index, x][..operands]);
            case.graph.outputs = vec![y];
            let expected = Error::Index { index: bad as i64, axis, extent: 3 };
            assert_eq!(case.run(&cpu(), plan(&case.graph)).unwrap_err(), expected);
            assert_eq!(case.reference().unwrap_err(), expected);
        }
    }
}

#[test]
fn chains_of_views() {
    let cpu = cpu();
    for seed in 0..3000 {
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
        check(&cpu, case, &[x, negative], (seed, chain));
    }
}

/// A graph that may update its first input, and whether it does where this is donated.
struct InPlace {
    what: &'static str,
    build: fn(&mut Case, NodeId) -> Vec<NodeId>,
    taken: bool,
}

const IN_PLACE: [InPlace; 7] = [
    InPlace {
        what: "an update",
        build: |case, x| {
            let step = case.input([30, 40], factors(DType::F32, 1200, 8));
            vec![case.op(Op::Binary(BinaryOp::Sub), &[x, step])]
        },
        taken: true,
    },
    InPlace {
        what: "an update through an intermediate that is an output as well",
        build: |case, x| {
            let squared = case.op(Op::Unary(UnaryOp::Square), &[x]);
            vec![case.op(Op::Binary(BinaryOp::Add), &[squared, x]), squared]
        },
        taken: true,
    },
    InPlace { what: "the input itself", build: |_, x| vec![x], taken: true },
    InPlace {
        what: "a scatter into the input",
        build: |case, x| {
            let index = case.input([7, 40], index_data(DType::I32, 280, 30));
            let updates = case.input([7, 40], factors(DType::F32, 280, 9));
            vec![case.op(Op::Scatter(ScatterMode::Add, 0), &[x, index, updates])]
        },
        taken: true,
    },
    InPlace {
        what: "one kernel that reads twice",
        build: |case, x| {
            let turned = case.typed(Op::Permute([1, 0].as_slice().into()), &[x], [40, 30], DType::F32);
            let back = case.typed(Op::Reshape, &[turned], [30, 40], DType::F32);
            vec![case.op(Op::Binary(BinaryOp::Add), &[x, back])]
        },
        // The reshape copies, so that the sum reads the input only once.
        taken: true,
    },
    InPlace {
        what: "a square read in two layouts",
        build: |case, x| {
            let flip = [SliceAxis { start: 29, step: -1, len: 30 }, SliceAxis { start: 0, step: 1, len: 40 }];
            let flipped = case.typed(Op::Slice(flip.as_slice().into()), &[x], [30, 40], DType::F32);
            vec![case.op(Op::Binary(BinaryOp::Add), &[x, flipped])]
        },
        taken: false,
    },
    InPlace {
        what: "another shape",
        build: |case, x| vec![case.op(Op::Reduce(ReduceOp::Sum, [1].as_slice().into()), &[x])],
        taken: false,
    },
];

#[test]
fn donated_inputs_are_updated_in_place() {
    let cpu = cpu();
    for InPlace { what, build, taken } in IN_PLACE {
        let mut case = Case::default();
        let x = case.input([30, 40], factors(DType::F32, 1200, 7));
        case.graph.outputs = build(&mut case, x);
        let kept = case.run(&cpu, plan(&case.graph)).unwrap();
        assert_eq!(Mismatch::find(&case.reference().unwrap(), &kept).map(|m| m.to_string()), None, "{what}");

        case.graph.donated[0] = true;
        assert_eq!(case.run(&cpu, plan(&case.graph)).unwrap(), kept, "{what}: donation changed the result");

        let executable = cpu.compile(plan(&case.graph)).unwrap();
        for shared in [false, true] {
            let mut inputs = case.upload(&cpu).unwrap();
            let held = shared.then(|| inputs[0].clone().unwrap());
            let outputs = executable.run(&mut inputs, &case.scalars).unwrap();
            let got: Vec<Data> = outputs.iter().map(|b| wait(cpu.download(b)).unwrap()).collect();
            assert_eq!(got, kept, "{what}, shared: {shared}");
            assert_eq!(inputs[0].is_none(), taken, "{what}: taken");
            assert!(inputs[1..].iter().all(Option::is_some), "{what}: took what was not donated");
            if let Some(held) = held {
                assert_eq!(wait(cpu.download(&held)).unwrap(), case.inputs[0], "{what}: a shared buffer changed");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut cases = Vec::new();
    for (shape, axes) in [(&[300_000][..], &[0][..]), (&[500, 600], &[0]), (&[500, 600], &[1]), (&[3, 100_000], &[1])] {
        for (op, dtype) in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::ArgMax].map(|op| FLOATS.map(|d| (op, d))).concat()
        {
            let mut case = Case::default();
            let x = case.input(shape, factors(dtype, shape.iter().product(), 1));
            case.graph.outputs = vec![case.op(Op::Reduce(op, axes.into()), &[x])];
            cases.push((format!("{op:?} {dtype} {shape:?} over {axes:?}"), case));
        }
    }
    for (m, n, k) in [(300, 300, 300), (2000, 50, 70)] {
        for dtype in NUMBERS {
            let mut case = Case::default();
            let a = case.input([m, k], factors(dtype, m * k, 2));
            let b = case.input([n, k], factors(dtype, n * k, 3));
            case.graph.outputs = vec![case.op(Op::Contract { batch: 0, contracted: 1 }, &[a, b])];
            cases.push((format!("matmul {dtype} {m}×{n}×{k}"), case));
        }
    }
    let mut case = Case::default();
    let x = case.input([400, 500], factors(DType::F32, 200_000, 4));
    let y = case.op(Op::Permute([1, 0].as_slice().into()), &[x]);
    let slot = case.slot(Number::Int(3));
    let random = case.typed(Op::Random(slot), &[], [500, 400], DType::F32);
    let sum = case.op(Op::Binary(BinaryOp::Add), &[y, random]);
    case.graph.outputs = vec![case.op(Op::Unary(UnaryOp::Exp), &[sum])];
    cases.push(("an element-wise chain".into(), case));

    let [one, two, three] = [1, 2, 3].map(|threads| Cpu::new(Some(threads), None).unwrap());
    for (what, case) in cases {
        let run = |cpu: &Cpu| case.run(cpu, plan(&case.graph)).unwrap();
        let expected = run(&one);
        for (threads, cpu) in [(2, &two), (3, &three)] {
            assert!(run(cpu) == expected, "{what}: {threads} threads give other bits than one");
        }
    }
}
