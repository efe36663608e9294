//! Gradients: every differentiable row and every composed op against finite differences, to order 2 where there is a
//! second derivative, and on a GPU against the CPU's; and values where finite differences cannot tell, at ties, limits
//! and zeros.

#[path = "support/bench.rs"]
mod bench;
#[path = "support/devices.rs"]
mod devices;

use bench::{check, check_all, compare, mixed, new, on_each_device, positive, same};
use gradus::autograd::GradCheck;
use gradus::ir::op::formula::Derivative;
use gradus::ir::op::{BinaryOp, Op, UnaryOp};
use gradus::tensor::graph::apply;
use gradus::{Cell, DType, Device, ErrorKind, Grad, Result, Tensor, cat, custom_gradient, einsum, no_grad, stack};
use gradus::{grad, gradcheck, value_and_grad};
use std::slice::from_ref;

/// Functions of one tensor, with names.
type Table<'a> = &'a [(&'a str, fn(&Tensor) -> Tensor)];

/// The gradient of Σ `f`(x), its gradient's, and so on.
fn derivatives<const N: usize>(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> [Vec<f32>; N] {
    let x = x.tracked();
    let mut y = f(&x);
    std::array::from_fn(|_| {
        y = Grad::of(&y.sum(..)).allow_unused().wrt([&x]).unwrap().remove(0);
        y.to_vec().unwrap()
    })
}

fn first(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Vec<f32> {
    let [gradient] = derivatives(x, f);
    gradient
}

fn unary_rows_by_differences() {
    for &op in UnaryOp::ALL {
        if let Derivative::NotDifferentiable = op.derivative() {
            continue;
        }
        // A kink, a pole or a boundary at 0 must not lie within the step.
        use UnaryOp::{Abs, Ceil, Floor, Recip, Relu, Sign, Trunc};
        let positive = op.samples().iter().all(|&x| x > 0.0);
        let at_zero = positive || matches!(op, Abs | Ceil | Floor | Recip | Relu | Sign | Trunc);
        for &sample in op.samples() {
            let step = 1e-4 * if at_zero { sample.abs().min(1.0) } else { 1.0 / sample.abs().max(1.0) };
            let x = Tensor::new([sample], (&Device::cpu(), DType::F64));
            let result = GradCheck::default().order(2).step(step).check(|x| apply(Op::Unary(op), &[&x[0]]), &[x]);
            result.unwrap_or_else(|error| panic!("{} at {sample}: {error}", op.name()));
        }
    }
}

#[test]
fn unary_rows() {
    unary_rows_by_differences();
    on_each_device(|| {
        for &op in UnaryOp::ALL.iter().filter(|op| !matches!(op.derivative(), Derivative::NotDifferentiable)) {
            let x = new(op.samples().to_vec());
            compare(op.name(), 2, &[x], |x| apply(Op::Unary(op), &[&x[0]]));
        }
    });
}

fn binary_rows_by_differences() {
    for &op in BinaryOp::ALL {
        if let [Derivative::NotDifferentiable, _] = op.derivatives() {
            continue;
        }
        let f = |x: &[Tensor]| apply(Op::Binary(op), &[&x[0], &x[1]]);
        for &(a, b) in op.samples() {
            let inputs = [a, b].map(|x| Tensor::new([x], (&Device::cpu(), DType::F64)));
            let result = GradCheck::default().order(2).step(1e-5).check(f, &inputs);
            result.unwrap_or_else(|error| panic!("{} at ({a}, {b}): {error}", op.name()));
        }
    }
}

#[test]
fn binary_rows() {
    binary_rows_by_differences();
    on_each_device(|| {
        for &op in BinaryOp::ALL.iter().filter(|op| !matches!(op.derivatives(), [Derivative::NotDifferentiable, _])) {
            let (a, b): (Vec<f64>, Vec<f64>) = op.samples().iter().copied().unzip();
            compare(op.name(), 2, &[new(a), new(b)], |x| apply(Op::Binary(op), &[&x[0], &x[1]]));
        }
    });
}

#[test]
fn operands_are_broadcast() {
    on_each_device(|| {
        type Function = fn(&Tensor, &Tensor) -> Tensor;
        let functions: [(&str, Function); 8] = [
            ("add", |a, b| a + b),
            ("sub", |a, b| a - b),
            ("mul", |a, b| a * b),
            ("div", |a, b| a / b),
            ("rem", |a, b| a % b),
            ("pow", |a, b| a.pow(b)),
            ("max", |a, b| a.maximum(b)),
            ("min", |a, b| a.minimum(b)),
        ];
        for (name, f) in functions {
            let shifted = |x: Tensor| x + 0.01;
            for (a, b) in [
                (positive([2, 3]), shifted(positive([3]))),
                (positive([2, 1]), shifted(positive([1, 3]))),
                (positive([]), shifted(positive([2, 1, 2]))),
                (positive([0, 1]), shifted(positive([3]))),
            ] {
                check_all(name, 2, &[a, b], |x| f(&x[0], &x[1]));
            }
            check(name, 2, &positive([3]), |x| f(&f(x, &new(0.77)), x) + f(x, &(2.13 / x)));
        }
    });
}

#[test]
fn functions_and_activations() {
    on_each_device(|| {
        let functions: Table = &[
            ("leaky_relu", |x| x.leaky_relu(0.1)),
            ("elu", |x| x.elu(0.7)),
            ("celu", |x| x.celu(0.7)),
            ("selu", Tensor::selu),
            ("gelu", Tensor::gelu),
            ("gelu_tanh", Tensor::gelu_tanh),
            ("silu", Tensor::silu),
            ("mish", Tensor::mish),
            ("softplus", |x| x.softplus(1.3, 20.0) + x.softplus(2.0, 1.1)),
            ("log_sigmoid", Tensor::log_sigmoid),
            ("softsign", Tensor::softsign),
            ("hardtanh", Tensor::hardtanh),
            ("relu6", |x| (x * 4.7).relu6()),
            ("hardsigmoid", |x| (x * 2.3).hardsigmoid()),
            ("hardswish", |x| (x * 2.3).hardswish()),
            ("tanhshrink", Tensor::tanhshrink),
            ("softshrink", |x| x.softshrink(0.51)),
            ("hardshrink", |x| x.hardshrink(0.51)),
            ("glu", |x| x.glu(1)),
            ("sinh", Tensor::sinh),
            ("cosh", Tensor::cosh),
            ("powi", |x| x.powi(5) + x.powi(-3) + x.powi(1) + x.powi(0)),
            ("pow", |x| x.pow(3.0) + x.square().pow(0.5)),
            ("clamp", |x| x.clamp(-0.61, 0.93)),
            ("where", |x| x.gt(0.0).where_(x.exp(), x.sin())),
            ("masked_fill", |x| (x * x).masked_fill(&x.lt(0.0), 2.0)),
        ];
        for (name, f) in functions {
            check(name, 2, &mixed([3, 4]), f);
        }
        check_all("prelu", 2, &[mixed([3, 4]), positive([4])], |x| x[0].prelu(&x[1]));
        check_all("clamp", 2, &[mixed([3, 4]), new([-0.3, -0.51]), new([[0.33], [0.61], [0.87]])], |x| {
            x[0].reshape([3, 2, 2]).clamp(&x[1], x[2].unsqueeze(-1))
        });
    });
    // There is no f64 on a GPU.
    let wide = |x: &[Tensor]| x[0].to_dtype(DType::F64).exp().to_dtype(DType::F32);
    gradcheck(wide, &[mixed([3, 4])], 2).unwrap();
}

#[test]
fn reductions() {
    on_each_device(|| {
        let x = mixed([2, 3, 2]);
        let functions: Table = &[
            ("sum", |x| x.exp().sum([0, 2]) * x.sum(..)),
            ("prod", |x| x.prod(1) + x.prod(..) + x.prod_keepdim([0, -1]).sum(..)),
            ("max", |x| x.square().max([0, 1]) * x.max(..) + x.max_keepdim(0).sum([0, 1])),
            ("min", |x| x.exp().min(1).sum(1) * x.min(..)),
            ("mean", |x| x.mean(..) * x.exp().mean([0, 1])),
            ("var", |x| x.var(1, 1) + x.var_keepdim([0, 2], 0).sum(..)),
            ("std", |x| x.std([1, 2], 1) * x.std(.., 0)),
            ("norm", |x| x.norm(-1) + x.norm(..) + x.norm_keepdim([0, 1]).sum(..)),
            ("logsumexp", |x| x.logsumexp(1) + x.logsumexp([0, 2]).mean(..) + x.logsumexp(..)),
            ("softmax", |x| x.softmax(1) + x.softmax([0, 2]) + x.softmax(-1) * x.softmax(..)),
            ("log_softmax", |x| x.log_softmax(0) * x.log_softmax(-1) + x.log_softmax([0, 1, 2])),
            ("empty list of axes", |x| x.prod(vec![]) + x.sum(vec![]) + x.max(vec![])),
        ];
        for (name, f) in functions {
            check(name, 2, &x, f);
            check(name, 2, &x.reshape([3, 1, 4]), f);
        }
        for length in [1, 2, 3, 7] {
            let x = (mixed([length, 2]) * new([[1.0, 0.0]])).tracked();
            check("prod of zeros", 2, &x, |x| x.prod(0) + x.prod(..));
        }
        check("sum of nothing", 2, &mixed([2, 0]), |x| x.sum(1) + x.prod(1));
    });
}

#[test]
fn views() {
    on_each_device(|| {
        let functions: Table = &[
            ("reshape", |x| x.reshape([4, -1]).flatten().unsqueeze(0).squeeze(..)),
            ("permute", |x| x.permute([2, 0, 1]).transpose(0, 1).t()),
            ("broadcast_to", |x| x.unsqueeze(1).broadcast_to([5, 2, 3, 3, 4])),
            ("slice", |x| x.slice(1, 1..).slice(-1, ..-1)),
            ("steps", |x| x.slice_step(2, .., 2) + x.slice_step(2, 1.., -2)),
            ("backwards", |x| x.slice_step(1, ..2, -1).slice_step(2, 1..4, -2)),
            ("empty slice", |x| x.slice(1, 2..2)),
            ("select_index", |x| x.select_index(1, -1) * x.select_index(1, 0)),
            ("flip", |x| x.flip(0).flip(-1)),
            ("pad", |x| x.pad(1, 2, 0).pad(2, 0, 1).pad(0, 0, 0)),
            ("repeat", |x| x.repeat(1, 3).repeat(0, 1)),
            ("split", |x| &x.split(2, &[1, 3])[1] * x.chunk(2, 3)[0].sum_keepdim(2)),
            ("slice_assign", |x| x.slice_assign(1, 1..3, &(x.slice(1, ..2) * x.slice(1, 1..)))),
            ("slice_assign of one", |x| x.slice_assign(0, ..1, &x.sum(..))),
            ("cat", |x| cat(&[x, &(x * x).slice(1, 1..), x], 1)),
            ("cat of many", |x| {
                let parts: Vec<Tensor> = (0..40).map(|i| x.slice(1, i % 3..) * (i as f64 - 20.0)).collect();
                cat(&parts.iter().collect::<Vec<_>>(), 1)
            }),
            ("stack", |x| stack(&[x, &x.sin(), x], -1)),
            ("tril", |x| x.tril(0) + x.tril(-1)),
            ("triu", |x| x.triu(1) * x.triu(-1)),
            ("to itself", |x| x.clone()),
        ];
        for (name, f) in functions {
            check(name, 2, &mixed([2, 3, 4]), |x| f(&x.square()));
            check(name, 1, &mixed([2, 3, 4]), f);
        }
    });
}

#[test]
fn matrix_products() {
    on_each_device(|| {
        let shapes: &[(&[usize], &[usize])] = &[
            (&[3], &[3]),
            (&[3], &[3, 2]),
            (&[2, 3], &[3]),
            (&[2, 3], &[3, 4]),
            (&[2, 2, 3], &[3, 2]),
            (&[2, 3], &[2, 3, 2]),
            (&[2, 1, 2, 3], &[3, 3, 2]),
            (&[3], &[2, 3, 2]),
            (&[2, 2, 3], &[3]),
            (&[2, 2, 1], &[2, 1, 1]),
            (&[2, 0], &[0, 3]),
        ];
        for (a, b) in shapes {
            let of = |shape: &[usize]| mixed([shape.iter().product()]).reshape(shape);
            check_all(&format!("{a:?} × {b:?}"), 2, &[of(a), of(b)], |x| x[0].matmul(&x[1]));
        }
        check("a power", 2, &mixed([3, 3]), |x| x.matmul(x).matmul(&x.t()));
        check_all("dot", 2, &[mixed([4]), positive([4])], |x| x[0].dot(&x[1]) * x[0].dot(&x[0]));
    });
}

#[test]
fn indexing() {
    on_each_device(|| {
        let index = new([[2, 0, 2], [1, 1, 1]]);
        let twice = new([1, 1, 0, 1]);
        check("gather", 2, &mixed([3, 3]), |x| x.square().gather(0, &index));
        check("gather", 2, &mixed([2, 4]), |x| x.square().gather(1, &index.to_dtype(DType::U32)));
        check("index_select", 2, &mixed([2, 3, 2]), |x| x.exp().index_select(1, &twice));
        check("masked_select", 1, &mixed([2, 3]), |x| x.masked_select(&new([[true, false, true]; 2])).unwrap());
        for (shape, axis) in [([3, 3], 0), ([2, 4], 1)] {
            let inputs = [mixed(shape), positive([2, 3])];
            check_all("scatter_add", 2, &inputs, |x| x[0].square().scatter_add(axis, &index, &x[1].square()));
            check_all("scatter_set", 2, &inputs, |x| x[0].square().scatter_set(axis, &index, &x[1].square()));
        }
        // Of two updates of one place, the last one counts.
        let (base, updates) = (new([1.0, 2.0]).tracked(), new([3.0, 4.0, 5.0]).tracked());
        let set = base.scatter_set(0, &new([1, 1, 1]), &updates) * new([10.0, 100.0]);
        let gradients = grad(&set.sum(..), [&base, &updates]).unwrap();
        assert_eq!(gradients[0].to_vec::<f32>().unwrap(), [10.0, 0.0]);
        assert_eq!(gradients[1].to_vec::<f32>().unwrap(), [0.0, 0.0, 100.0]);
    });
}

#[test]
fn along_an_axis_in_order() {
    on_each_device(|| {
        let functions: Table = &[
            ("cumsum", |x| x.square().cumsum(1) * x.cumsum(0)),
            ("cumprod", |x| x.cumprod(1) + x.exp().cumprod(-1).cumprod(0)),
            ("sort", |x| x.square().sort(0, true) * x.sort(1, false)),
            ("topk", |x| x.exp().topk(2, 1, true).0 * x.topk(2, 1, false).0),
            ("recurrence with a number", |x| x.square().linear_recurrence(0.7, 2)),
        ];
        for (name, f) in functions {
            check(name, 2, &mixed([2, 3, 2]), f);
        }
        check("scans of nothing", 2, &mixed([2, 0]), |x| x.cumsum(1) + x.cumprod(1) + x.linear_recurrence(x, 1));
        for (a, b, axis) in [([1, 4], [1, 4], 1), ([3, 2], [3, 2], 0), ([1, 3], [2, 3], 1)] {
            let inputs = [mixed(a), positive(b)];
            check_all("recurrence", 2, &inputs, |x| x[1].linear_recurrence(&x[0], axis).square());
        }
        // Where the operand has zeros the product of the others counts.
        let zeros = new([[2.0, 0.0, 5.0], [0.0, 3.0, 0.0]]).tracked();
        check("cumprod of zeros", 2, &zeros, |x| x.cumprod(1) * x.cumprod(0));
        same(first(&new([2.0, 0.0, 5.0]), |x| x.cumprod(0)), [1.0, 12.0, 0.0]);
        // Longer than a part of a line.
        let (long, decay) = (mixed([2, 600]), (mixed([1, 600]) * 0.4 + 0.5));
        compare("long scans", 1, &[long * 0.1, decay], |x| {
            x[0].linear_recurrence(&x[1], 1).cumsum(1) + (&x[0] * 0.1 + 1.0).cumprod(1)
        });
    });
}

#[test]
fn sums_of_products() {
    on_each_device(|| {
        let (a, b, c) = (mixed([2, 3]), positive([3, 4]), mixed([4, 2]));
        for equation in ["ij,jk->ik", "ij,jk,ki->", "ij,jk,kl->il", "ij,jk->k"] {
            let operands = [a.clone(), b.clone(), c.clone()];
            let count = equation.split("->").next().map_or(0, |operands| operands.split(',').count());
            check_all(equation, 2, &operands[..count], |x| einsum(equation, &x.iter().collect::<Vec<_>>()));
        }
        check("a trace and a diagonal", 2, &mixed([3, 3]), |x| einsum("ii", &[x]) * einsum("ii->i", &[x]));
        check_all("dots", 2, &[mixed([2, 1, 3]), positive([2, 3])], |x| einsum("...i,...i", &[&x[0], &x[1]]));
    });
}

#[test]
fn ties_share_and_limits_decide() {
    on_each_device(|| {
        let x = new([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]);
        same(first(&x, |x| x.max(1)), [0.0, 0.5, 0.5, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
        same(first(&x, |x| x.min(..)), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        same(first(&x, |x| x.max(0) * 2.0), [0.0, 2.0, 2.0, 2.0, 0.0, 0.0]);
        same(first(&new([1.0, 2.0, 3.0]), |x| x.maximum(2.0)), [0.0, 0.5, 1.0]);
        same(first(&new([1.0, 2.0, 3.0]), |x| x.minimum(x)), [1.0, 1.0, 1.0]);
        same(first(&new([-1.0, 0.0, 1.0]), Tensor::relu), [0.0, 0.0, 1.0]);
        same(first(&new([-1.0, 0.0, 1.0]), Tensor::abs), [-1.0, 0.0, 1.0]);
        same(first(&new([0.0, 1.0, 1.5, 2.0, 3.0]), |x| x.clamp(1.0, 2.0)), [0.0, 1.0, 1.0, 1.0, 0.0]);
        same(first(&new([-1.0, 0.0, 1.0]), Tensor::hardtanh), [0.0, 1.0, 0.0]);
        same(first(&new([0.0, 3.0, 6.0]), Tensor::relu6), [0.0, 1.0, 0.0]);
        same(first(&new([-3.0, 0.0, 3.0]), Tensor::hardsigmoid), [0.0, 1.0 / 6.0, 0.0]);
        for f in [Tensor::sign, Tensor::floor, Tensor::ceil, Tensor::round, Tensor::trunc] {
            same(first(&new([-1.3, 0.4]), f), [0.0, 0.0]);
        }
        // What was not chosen must not spoil the gradient with an infinity.
        same(first(&new([0.0, 4.0]), |x| x.gt(0.0).where_(x, 1.0).sqrt()), [0.0, 0.25]);
    });
}

#[test]
fn products_norms_and_powers_at_zero() {
    on_each_device(|| {
        let [one, two] = derivatives(&new([2.0, 0.0, 5.0]), |x| x.prod(..));
        same([one, two].concat(), [0.0, 10.0, 0.0, 5.0, 7.0, 2.0]);
        let [one, two, three] = derivatives(&new([0.0, 3.0, 0.0]), |x| x.prod(..));
        same([one, two, three].concat(), [0.0, 0.0, 0.0, 3.0, 0.0, 3.0, 2.0, 2.0, 2.0]);
        same(first(&new([[0.0, 0.0], [3.0, 4.0]]), |x| x.norm(1)), [0.0, 0.0, 0.6, 0.8]);
        same(first(&new([0.0, 0.0]), |x| x.norm(..)), [0.0, 0.0]);
        let [one, two, three] = derivatives(&new([-2.0, 0.0, 1.0]), |x| x.pow(3.0));
        same([one, two, three].concat(), [12.0, 0.0, 3.0, -12.0, 0.0, 6.0, 6.0, 6.0, 6.0]);
        let cubes: [fn(&Tensor) -> Tensor; 3] = [|x| x.powi(3), |x| x * x * x, |x| x.square() * x];
        for f in cubes {
            let [one, two, three, four] = derivatives(&new([-2.0, 0.0, 1.0]), f);
            same([one, two].concat(), [12.0, 0.0, 3.0, -12.0, 0.0, 6.0]);
            same([three, four].concat(), [6.0, 6.0, 6.0, 0.0, 0.0, 0.0]);
        }
        let [sin, minus_cos, ..] = derivatives::<4>(&new([0.5]), |x| -x.cos());
        assert!((sin[0] - 0.5f32.sin()).abs() < 1e-5 && (minus_cos[0] - 0.5f32.cos()).abs() < 1e-5);
        same(first(&new([0.0, 2.0]), |x| x.pow(0.0)), [0.0, 0.0]);
        same(first(&new([0.0]), |x| x.pow(x)), [0.0]);
        same(first(&new([700.0, -700.0]), |x| x.logsumexp(..)), [1.0, 0.0]);
        same(first(&new([1000.0, -1000.0]), |x| x.elu(1.0) + x.log_sigmoid()), [1.0, 1.0]);
    });
}

#[test]
fn targets_may_lie_anywhere() {
    let body = || -> Result<()> {
        let (x, w) = (mixed([4, 3]), Cell::parameter(mixed([3, 2])));
        let hidden = x.matmul(&w.tensor());
        let activated = hidden.tanh();
        let loss = (activated.square() + hidden.sum(..)).sum(..);
        let all = grad(&loss, [&x, &w.tensor(), &hidden, &activated, &hidden])?;
        for (i, target) in [&x, &w.tensor(), &hidden, &activated].into_iter().enumerate() {
            same(grad(&loss, [target])?[0].to_vec::<f32>()?, all[i].to_vec::<f32>()?);
        }
        assert_eq!(all[2].to_vec::<f32>()?, all[4].to_vec::<f32>()?);
        assert_eq!(grad(&loss, [&loss])?[0].item::<f32>()?, 1.0);
        // Also behind what has no gradient of its own, and what is only passed on.
        let counted = new([1, 2]).to_dtype(DType::F32);
        assert_eq!(grad(&(&counted * 3.0).sum(..), [&counted])?[0].to_vec::<f32>()?, [3.0, 3.0]);
        let (a, b) = (new(2.0).tracked(), new([1.0, 3.0]).tracked());
        let sum = (&a * &b).sum(..) * &a;
        let gradients = grad(&sum, [&a, &b])?;
        assert_eq!((gradients[0].item::<f32>()?, gradients[1].to_vec::<f32>()?), (16.0, vec![4.0, 4.0]));
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn cotangents_values_and_stops() {
    let body = || -> Result<()> {
        let x = new([[1.0, 2.0], [3.0, 4.0]]).tracked();
        let rows = (&x * &x).sum(1);
        let product = Grad::of(&rows).cotangent(&new([1.0, 10.0])).wrt([&x])?;
        assert_eq!(product[0].to_vec::<f32>()?, [2.0, 4.0, 60.0, 80.0]);
        // The cotangent is part of the graph: a product with the Jacobian on the other side.
        let seed = new([0.0, 0.0]).tracked();
        let product = Grad::of(&rows).cotangent(&seed).wrt([&x])?.remove(0);
        let forward = Grad::of(&product).cotangent(&Tensor::ones([2, 2], &x)).wrt([&seed])?;
        assert_eq!(forward[0].to_vec::<f32>()?, [6.0, 14.0]);

        let inputs = [new([3.0]), new([4.0])];
        let (value, gradients) = value_and_grad(|x| (&x[0] * &x[1] * &x[1]).sum(..), &inputs)?;
        assert_eq!(value.item::<f32>()?, 48.0);
        assert_eq!((gradients[0].to_vec::<f32>()?, gradients[1].to_vec::<f32>()?), (vec![16.0], vec![24.0]));

        same(first(&new([3.0]), |x| x * x.detach()), [3.0]);
        same(first(&new([3.0]), |x| x * x.tracked()), [3.0]);
        same(first(&new([3.0]), |x| x * no_grad(|| x * 1.0)), [3.0]);
        let [one, two] = derivatives(&new([3.0]), |x| x.square() * x.square().detach());
        assert_eq!((one, two), (vec![54.0], vec![18.0]));
        // A gradient taken without gradients is a constant.
        let y = x.powi(3).sum(..);
        let constant = no_grad(|| grad(&y, [&x]))?.remove(0);
        assert!(matches!(grad(&constant.sum(..), [&x]).unwrap_err().kind(), ErrorKind::Unreached { .. }));
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn custom_gradients_have_gradients() {
    let body = || -> Result<()> {
        // A cube that is computed badly but differentiates well, to any order.
        let cube = |x: &Tensor| {
            let rule = |x: &[Tensor], y: &Tensor, g: &Tensor| vec![Some(g * y / &x[0] * 3.0)];
            custom_gradient("cube", from_ref(x), |x| x[0].abs().pow(3.0) * x[0].sign(), rule)
        };
        check("cube", 2, &mixed([4]), |x| cube(&x.sin()).exp());
        let [one, two, three] = derivatives(&new([2.0]), |x| cube(x));
        same([one[0], two[0], three[0]], [12.0, 12.0, 6.0]);
        let pair = |x: &[Tensor]| {
            let rule = |x: &[Tensor], _: &Tensor, g: &Tensor| vec![Some(g * &x[1]), None];
            custom_gradient("half", x, |x| &x[0] * &x[1], rule)
        };
        let (a, b) = (new([2.0]).tracked(), new([5.0]).tracked());
        let gradients = Grad::of(&pair(&[a.clone(), b.clone()]).sum(..)).allow_unused().wrt([&a, &b])?;
        assert_eq!((gradients[0].to_vec::<f32>()?, gradients[1].to_vec::<f32>()?), (vec![5.0], vec![0.0]));
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn the_check_finds_what_is_wrong() {
    let wrong = |x: &[Tensor]| {
        // The factor of one element of one input is wrong by one part in ten thousand.
        let rule = |x: &[Tensor], _: &Tensor, g: &Tensor| {
            vec![Some(g * &x[1]), Some(g * &x[0] * Tensor::new([1.0, 1.0, 1.0001], g.device()))]
        };
        custom_gradient("wrong", x, |x| &x[0] * &x[1], rule)
    };
    let inputs = [new([1.0, 2.0, 3.0]), new([4.0, 5.0, 6.0])];
    let error = gradcheck(wrong, &inputs, 1).unwrap_err();
    let ErrorKind::GradCheck { order: 1, input: 1, element: 2, analytic, numeric, .. } = error.kind() else {
        panic!("{error}");
    };
    assert!((analytic / numeric - 1.0001).abs() < 1e-7);
    assert!(GradCheck::default().tolerance(1e-3).check(wrong, &inputs).is_ok());
    // Right at first, wrong in the second derivative.
    let late = |x: &[Tensor]| {
        let slope = |x: &[Tensor], _: &Tensor, g: &Tensor| vec![Some(g * x[0].detach() * 2.0)];
        custom_gradient("late", x, |x| x[0].square(), slope)
    };
    assert!(gradcheck(late, &inputs[..1], 1).is_ok());
    let error = gradcheck(late, &inputs[..1], 2).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::GradCheck { order: 2, input: 0, .. }), "{error}");
}
