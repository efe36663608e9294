//! Functions of one example that use every primitive, and the comparison of `vmap` with a loop over examples.

use crate::bench::{device, new};
use crate::devices::is_cpu;
use gradus::ir::op::attention::AttentionPart;
use gradus::ir::op::{BinaryOp, CompareOp, Op, PadAxis, ReduceOp, ScanOp, SliceAxis, UnaryOp, WindowAxis};
use gradus::tensor::graph::apply;
use gradus::{CustomOp, DType, Key, Randomness, Tensor, Vmap, custom_gradient, eval, stack};
use std::sync::LazyLock;

/// A small random source: the same seed gives the same tests everywhere.
pub(crate) struct Dice(pub(crate) Key, pub(crate) u64);

impl Dice {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.1 += 1;
        (self.0.fold_in(self.1).value() % n as u64) as usize
    }

    fn shape(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).map(|_| 1 + self.below(4)).collect()
    }

    fn order(&mut self, rank: usize) -> Vec<usize> {
        self.1 += 1;
        self.0.fold_in(self.1).shuffled(rank)
    }
}

/// What a tensor of one example holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Floats of both signs, at some distance from 0.
    Float,
    /// Integers from −3 to 3.
    Int,
    /// Indices below a number.
    Index(usize),
    Bool,
}
use Kind::{Bool, Float, Index, Int};

impl Kind {
    pub(crate) fn tensor(self, shape: &[usize], dice: &mut Dice) -> Tensor {
        let count = shape.iter().product();
        let numbers: Vec<usize> = (0..count).map(|_| dice.below(1000)).collect();
        let shaped = |values: Tensor| values.reshape(shape);
        match self {
            Float => {
                let value = |n: usize| (0.2 + n as f32 / 600.0) * if n.is_multiple_of(2) { 1.0 } else { -1.0 };
                shaped(new(numbers.into_iter().map(value).collect::<Vec<f32>>()))
            }
            Int => shaped(new(numbers.into_iter().map(|n| n as i32 % 7 - 3).collect::<Vec<i32>>())),
            Index(below) => shaped(new(numbers.into_iter().map(|n| (n % below) as i32).collect::<Vec<i32>>())),
            Bool => shaped(new(numbers.into_iter().map(|n| n.is_multiple_of(2)).collect::<Vec<bool>>())),
        }
    }
}

pub(crate) type Examined = dyn Fn(&[Tensor]) -> Tensor;

/// A function of one example.
pub(crate) struct Case {
    name: String,
    pub(crate) inputs: Vec<(Kind, Vec<usize>)>,
    pub(crate) f: Box<Examined>,
}

fn case(name: &str, inputs: &[(Kind, &[usize])], f: impl Fn(&[Tensor]) -> Tensor + 'static) -> Case {
    let inputs = inputs.iter().map(|(kind, shape)| (*kind, shape.to_vec())).collect();
    Case { name: name.into(), inputs, f: Box::new(f) }
}

/// The elements of a tensor of any dtype, as numbers.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    let data = tensor.to_data().unwrap();
    (0..data.len()).map(|i| data.get(i).unwrap().to_f64()).collect()
}

/// Whether tensors are equal, up to the rounding of sums in another order.
#[track_caller]
pub(crate) fn near(what: &str, got: &Tensor, expected: &Tensor) {
    eval([got, expected]).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((got.shape(), got.dtype()), (expected.shape(), expected.dtype()), "{what}");
    for (i, (got, expected)) in numbers(got).into_iter().zip(numbers(expected)).enumerate() {
        let same = got == expected || (got.is_nan() && expected.is_nan());
        assert!(
            same || (got - expected).abs() <= 2e-5 * expected.abs().max(1.0),
            "{what} [{i}]: {got}, not {expected}"
        );
    }
}

/// Checks a function on all subsets of batched inputs, with examples along all axes of inputs and output.
pub(crate) fn check(case: &Case, count: usize, dice: &mut Dice) {
    let Case { name, inputs, f } = case;
    let ranks = inputs.iter().map(|(_, shape)| shape.len()).max().unwrap_or(0);
    // Kernels cost time to make where each is compiled: there, one choice of axes each.
    let thorough = is_cpu(&device());
    let first = if thorough { 1 } else { (1 << inputs.len()) - 1 };
    for subset in first..1usize << inputs.len() {
        let examples: Vec<Vec<Tensor>> = inputs
            .iter()
            .enumerate()
            .map(|(i, (kind, shape))| {
                let copies = if subset >> i & 1 == 1 { count } else { 1 };
                (0..copies).map(|_| kind.tensor(shape, dice)).collect()
            })
            .collect();
        let one = |n: usize| examples.iter().map(|copies| copies[n % copies.len()].clone()).collect::<Vec<_>>();
        let results: Vec<Tensor> = (0..count).map(|n| f(&one(n))).collect();
        for axis in 0..=if thorough { ranks } else { 0 } {
            let out_axis = dice.below(results[0].rank() + 1);
            let mut axes = Vec::new();
            let mut batched = Vec::new();
            for (i, copies) in examples.iter().enumerate() {
                let axis = if thorough { (axis + i) % (inputs[i].1.len() + 1) } else { 0 } as isize;
                let is_batched = subset >> i & 1 == 1;
                axes.push(is_batched.then_some(axis));
                batched.push(if is_batched {
                    stack(&copies.iter().collect::<Vec<_>>(), axis)
                } else {
                    copies[0].clone()
                });
            }
            let what = format!("{name}, in_axes {axes:?}, out axis {out_axis}, {count} examples of {inputs:?}");
            let map = Vmap::new().in_axes(axes).out_axes([out_axis as isize]).randomness(Randomness::Same);
            let got = map.map(f, &batched).unwrap_or_else(|error| panic!("{what}: {error}"));
            near(&what, &got, &stack(&results.iter().collect::<Vec<_>>(), out_axis as isize));
        }
    }
}

/// Which primitive an op is: every one must occur in a case.
pub(crate) fn family(op: &Op) -> usize {
    match op {
        Op::Input(_) => 0,
        Op::Scalar(_) => 1,
        Op::Const(_) => 2,
        Op::Iota(_) => 3,
        Op::Random(_) => 4,
        Op::Unary(_) => 5,
        Op::Binary(_) => 6,
        Op::Compare(_) => 7,
        Op::Select => 8,
        Op::Cast => 9,
        Op::Reshape => 10,
        Op::Permute(_) => 11,
        Op::Expand => 12,
        Op::Slice(_) => 13,
        Op::Pad(_) => 14,
        Op::Reduce(..) => 15,
        Op::Contract { .. } => 16,
        Op::Gather(_) => 17,
        Op::Scatter(..) => 18,
        Op::Barrier => 19,
        Op::Index { .. } => 20,
        Op::Scan(..) => 21,
        Op::Argsort { .. } => 22,
        Op::Window(_) => 23,
        Op::Attention { .. } => 24,
        Op::Custom(_) => 25,
    }
}

/// Every row of the op table.
pub(crate) fn rows(dice: &mut Dice) -> Vec<Case> {
    let mut cases = Vec::new();
    for &op in UnaryOp::ALL {
        let (kind, shape) = (if op == UnaryOp::Not { Bool } else { Float }, dice.shape(2));
        cases.push(case(op.name(), &[(kind, &shape)], move |x| apply(Op::Unary(op), &[&x[0]])));
    }
    for &op in BinaryOp::ALL {
        let bools = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor);
        let (kind, shape) = (if bools { Bool } else { Float }, dice.shape(2));
        cases.push(case(op.name(), &[(kind, &shape), (kind, &shape)], move |x| apply(Op::Binary(op), &[&x[0], &x[1]])));
    }
    for &op in CompareOp::ALL {
        let shape = dice.shape(1);
        cases.push(case(op.name(), &[(Int, &shape), (Int, &shape)], move |x| apply(Op::Compare(op), &[&x[0], &x[1]])));
    }
    cases
}

/// An op of the user: x · |y|.
static CUSTOM: LazyLock<CustomOp> = LazyLock::new(|| {
    let op = CustomOp::define("custom").input("x", DType::F32).input("y", DType::F32);
    op.output(DType::F32, |shapes| Ok(shapes[0].clone()))
        .cpu(|inputs, output| {
            let (x, y) = (inputs[0].values::<f32>()?, inputs[1].values::<f32>()?);
            output.values::<f32>()?.iter_mut().zip(x.iter().zip(y)).for_each(|(out, (x, y))| *out = x * y.abs());
            Ok(())
        })
        .wgsl(
            "@compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 if i < output_len() { output[i] = x[i] * abs(y[i]); }
             }",
        )
        .build()
        .expect("the op is right")
});

/// Every other primitive, of random shapes of a rank.
pub(crate) fn primitives(rank: usize, dice: &mut Dice) -> Vec<Case> {
    let shape = dice.shape(rank);
    let two = |kind| [(kind, &shape[..]), (kind, &shape[..])];
    let one = |kind| [(kind, &shape[..])];
    let all = [(Bool, &shape[..]), (Float, &shape[..]), (Float, &shape[..])];
    let mut cases = vec![
        case("scalar", &one(Float), |x| &x[0] * 2.5 + 1.0),
        case("const", &one(Float), |x| x[0].ones_like() - &x[0]),
        case("random", &one(Float), |x| &x[0] + Tensor::rand(x[0].shape(), Key::new(5), x[0].device())),
        case("select", &all, |x| x[0].where_(&x[1], &x[2])),
        case("float to int", &one(Float), |x| (&x[0] * 3.0).to_dtype(DType::I32)),
        case("int to float", &one(Int), |x| x[0].to_dtype(DType::F32)),
        case("reshape", &one(Float), |x| x[0].flatten()),
        case("expand", &one(Float), |x| x[0].unsqueeze(0).broadcast_to(x[0].shape().with_inserted(0, 3))),
        case("barrier", &two(Float), |x| apply(Op::Barrier, &[&x[0], &x[1]]).exp()),
        case("custom op", &two(Float), |x| CUSTOM.apply(&[&x[0], &x[1].exp()])),
        case("custom gradient", &two(Float), |x| {
            custom_gradient("product", x, |x| &x[0] * &x[1], |x, _, g| vec![Some(g * &x[1]), Some(g * &x[0])])
        }),
    ];
    let axes = dice.order(rank);
    cases.push(case("permute", &one(Float), move |x| x[0].permute_axes(&axes)));
    let slices: Vec<SliceAxis> = (shape.iter())
        .map(|&n| {
            let (start, step) = (dice.below(n), [1, 2, -1, -2][dice.below(4)]);
            let room = if step > 0 { n - 1 - start } else { start };
            SliceAxis { start, step, len: dice.below(room / step.unsigned_abs() + 2) }
        })
        .collect();
    cases.push(case("slice", &one(Float), move |x| apply(Op::Slice(slices.clone().into()), &[&x[0]])));
    let pads: Vec<PadAxis> =
        (shape.iter()).map(|_| PadAxis { low: dice.below(3), high: dice.below(3), interior: dice.below(3) }).collect();
    cases.push(case("pad", &one(Float), move |x| apply(Op::Pad(pads.clone().into()), &[&x[0]])));
    if rank > 0 {
        let axis = dice.below(rank);
        let size = 1 + dice.below(shape[axis].min(3));
        let window = WindowAxis { axis, size, stride: 1 + dice.below(2), dilation: 1 };
        cases.push(case("window", &one(Float), move |x| apply(Op::Window([window].into()), &[&x[0]])));
    }
    for op in ReduceOp::ALL {
        let mut axes = dice.order(rank);
        axes.truncate(if op.gives_index() { 1 } else { dice.below(rank + 1) });
        if !op.gives_index() || rank > 0 {
            let reduce = move |x: &[Tensor]| apply(Op::Reduce(op, axes.clone().into()), &[&x[0]]);
            cases.push(case(op.name(), &one(Float), reduce));
        }
    }
    let [batch, a_free, b_free, contracted] = [(); 4].map(|_| {
        let rank = dice.below(3);
        dice.shape(rank)
    });
    let (left, right) = ([&batch[..], &a_free, &contracted].concat(), [&batch[..], &b_free, &contracted].concat());
    let contract = Op::Contract { batch: batch.len(), contracted: contracted.len() };
    cases.push(case("contract", &[(Float, &left), (Float, &right)], move |x| apply(contract.clone(), &[&x[0], &x[1]])));
    let [group, queries, keys, width, values] = [(); 5].map(|_| 1 + dice.below(3));
    let with = |inner: &[usize]| [&batch[..], inner].concat();
    let (query, key) = (with(&[group, queries, width]), with(&[keys, width]));
    let (value, mask) = (with(&[keys, values]), with(&[group, queries, keys]));
    let attention = [(Float, &query[..]), (Float, &key), (Float, &value), (Bool, &mask)];
    for (name, causal, operands) in [("attention", true, 3), ("attention with a mask", false, 4)] {
        let op = Op::Attention { part: AttentionPart::Output, causal };
        let f = move |x: &[Tensor]| apply(op.clone(), &x.iter().collect::<Vec<_>>());
        cases.push(case(name, &attention[..operands], f));
    }
    if rank > 0 {
        let axis = dice.below(rank);
        let (mut picked, along) = (shape.clone(), axis as isize);
        picked[axis] = 1 + dice.below(4);
        let (index, extent) = (Index(shape[axis]), shape[axis]);
        let iota = move |x: &[Tensor]| {
            let index = Tensor::arange(x[0].shape()[axis], x[0].device()).to_dtype(DType::F32);
            &x[0] * index.reshape(x[0].shape().with_ones(&(0..rank).filter(|&a| a != axis).collect::<Vec<_>>()))
        };
        cases.extend([
            case("iota", &one(Float), iota),
            case("cumsum", &one(Float), move |x| x[0].cumsum(along)),
            case("cumprod", &one(Float), move |x| x[0].cumprod(along)),
            case("recurrence", &two(Float), move |x| apply(Op::Scan(ScanOp::Recurrence, axis), &[&x[0], &x[1]])),
            case("argsort", &one(Int), move |x| x[0].argsort(along, false)),
            case("sort", &one(Float), move |x| x[0].sort(along, true)),
            case("index", &[(index, &picked)], move |x| apply(Op::Index { axis, extent }, &[&x[0]])),
            case("gather", &[(Float, &shape), (index, &picked)], move |x| x[0].gather(along, &x[1])),
            case("scatter_add", &[(Float, &shape), (index, &picked), (Float, &picked)], move |x| {
                x[0].scatter_add(along, &x[1], &x[2])
            }),
            case("scatter_set", &[(Float, &shape), (index, &picked), (Float, &picked)], move |x| {
                x[0].scatter_set(along, &x[1], &x[2])
            }),
        ]);
    }
    cases
}
