//! `vmap` against a loop over examples: every primitive, on all axes, and nested with gradients, checkpoints and itself.

#[allow(dead_code)] // This file uses a part of it.
#[path = "support/bench.rs"]
mod bench;
#[path = "support/devices.rs"]
mod devices;
#[path = "support/examples.rs"]
mod examples;

use bench::{device, mixed, new, on_each_device, positive};
use devices::is_cpu;
use examples::{Dice, check, family, near, primitives, rows};
use gradus::ir::op::Op;
use gradus::nn::{Dropout, Init, Layer, Linear, Module, cross_entropy};
use gradus::tensor::graph::trace;
use gradus::{Cell, Device, ErrorKind, Grad, Key, Randomness, Result, Tensor, Vmap};
use gradus::{cat, checkpoint, custom_gradient, eval, grad, gradcheck, no_grad, stack, value_and_grad, vmap};
use std::collections::BTreeSet;
use std::slice::from_ref;

#[test]
fn every_primitive_has_its_rule() {
    on_each_device(|| {
        let dice = &mut Dice(Key::new(11), 0);
        let ranks: &[usize] = if is_cpu(&device()) { &[0, 1, 2, 3, 1, 2, 3, 2, 3] } else { &[2] };
        let mut cases = rows(dice);
        ranks.iter().for_each(|&rank| cases.extend(primitives(rank, dice)));
        let mut seen = BTreeSet::new();
        for case in &cases {
            let count = 1 + dice.below(3);
            check(case, count, dice);
            let inputs: Vec<Tensor> = case.inputs.iter().map(|(kind, shape)| kind.tensor(shape, dice)).collect();
            let graph = trace(&[(case.f)(&inputs)], &[]).unwrap().graph;
            seen.extend(graph.nodes().iter().map(|node| family(&node.op)));
        }
        assert_eq!(seen, (0..26).collect());
    });
}

type Function = fn(&Tensor) -> Tensor;

/// Functions of one matrix to one number, smooth near `mixed`.
const FUNCTIONS: [(&str, Function); 10] = [
    ("softmax", |x| (x.softmax(-1) * x).sum(..)),
    ("logsumexp", |x| x.logsumexp(0).square().sum(..)),
    ("matmul", |x| x.matmul(&x.t()).tanh().sum(..)),
    ("product", |x| x.prod(1).sum(..) + x.prod(0).mean(..)),
    ("max", |x| (x.max(1) * x.min([0, 1])).sum(..)),
    ("gather", |x| x.exp().index_select(1, &new([2, 0, 2])).square().sum(..)),
    ("scatter", |x| x.exp().scatter_add(0, &new([[1, 0, 1]]), &x.slice(0, ..1).sin()).norm(..)),
    ("views", |x| {
        (x.flip(0).pad(1, 1, 2).slice_step(1, 1.., 2) * x.slice(1, 1..).repeat(1, 2).sin().slice(1, ..3)).sum(..)
    }),
    ("cat", |x| {
        let parts: Vec<Tensor> = (0..20).map(|i| x.slice(1, i % 3..) * (i as f64 / 20.0)).collect();
        cat(&parts.iter().collect::<Vec<_>>(), 1).sin().sum(..)
    }),
    ("custom", |x| {
        let rule = |x: &[Tensor], y: &Tensor, g: &Tensor| vec![Some(g * y / &x[0] * 3.0)];
        custom_gradient("cube", from_ref(x), |x| x[0].square() * &x[0], rule).sin().sum(..)
    }),
];

/// Matrices, and the same ones as examples. Tracked: other threads may evaluate what is pending before gradients are taken.
fn matrices() -> (Vec<Tensor>, Tensor) {
    let all = mixed([4, 2, 3]).tracked();
    let examples = (0..4).map(|i| all.select_index(0, i)).collect();
    (examples, all)
}

fn gradient(f: impl Fn(&Tensor) -> Tensor, x: &Tensor) -> Tensor {
    Grad::of(&f(x)).allow_unused().wrt([x]).unwrap().remove(0)
}

/// What a loop gives.
fn each(examples: &[Tensor], f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    stack(&examples.iter().map(f).collect::<Vec<_>>().iter().collect::<Vec<_>>(), 0)
}

/// What `vmap` gives.
fn mapped(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    vmap(|x| f(&x[0]), from_ref(x)).unwrap()
}

#[test]
fn gradients_inside_and_outside() {
    on_each_device(|| {
        let (examples, all) = matrices();
        for (name, f) in FUNCTIONS {
            let first = |x: &Tensor| gradient(f, x);
            let second = |x: &Tensor| gradient(|x| first(x).square().sum(..), x);
            near(name, &mapped(&all, f), &each(&examples, f));
            near(name, &mapped(&all, first), &each(&examples, first));
            near(name, &mapped(&all, second), &each(&examples, second));
            near(name, &gradient(|x| mapped(x, f).sum(..), &all), &each(&examples, first));
            let slopes = |x: &Tensor| mapped(x, first).square().sum(..);
            near(name, &gradient(slopes, &all), &each(&examples, second));
            // A checkpoint on either side changes nothing.
            let saving = |x: &Tensor| checkpoint(|x| f(&x[0]), from_ref(x));
            let saving_all = |x: &Tensor| checkpoint(|x| mapped(&x[0], f), from_ref(x));
            near(name, &mapped(&all, |x| gradient(saving, x)), &each(&examples, first));
            near(name, &gradient(|x| mapped(x, saving).sum(..), &all), &each(&examples, first));
            near(name, &gradient(|x| saving_all(x).sum(..), &all), &each(&examples, first));
            let slopes = |x: &Tensor| mapped(x, |x| gradient(saving, x)).square().sum(..);
            near(name, &gradient(slopes, &all), &each(&examples, second));
        }
    });
    for (name, f) in FUNCTIONS {
        let (_, all) = matrices();
        let result = gradcheck(|x| mapped(&x[0], |x| f(x).exp()), from_ref(&all), 2);
        result.unwrap_or_else(|error| panic!("vmap of {name}: {error}"));
        let result = gradcheck(|x| mapped(&x[0], |x| gradient(f, x)), &[all], 1);
        result.unwrap_or_else(|error| panic!("vmap of the gradient of {name}: {error}"));
    }
}

#[test]
fn maps_of_maps() {
    on_each_device(|| {
        let (a, b) = (mixed([3, 4]), positive([2, 4]));
        // All pairs of rows: the inner map runs over b, the outer one over a.
        let pairs = vmap(|a| vmap(|b| (&a[0] * &b[0]).exp().sum(..), from_ref(&b)), from_ref(&a)).unwrap();
        near("pairs", &pairs, &(a.unsqueeze(1) * b.unsqueeze(0)).exp().sum(2));
        let dots =
            vmap(|a| Vmap::new().out_axes([-1]).map(|b| a[0].dot(&b[0]) * a[0].sum(..), from_ref(&b)), from_ref(&a));
        near("dots", &dots.unwrap(), &(a.matmul(&b.t()) * a.sum_keepdim(1)));
        // What belongs to the outer map alone is shared in the inner one.
        let shared =
            vmap(|a| vmap(|b| a[0].matmul(&b[0].unsqueeze(1)).exp() + a[0].sum(..), from_ref(&b)), from_ref(&a));
        near("shared", &shared.unwrap(), &(a.matmul(&b.t()).exp() + a.sum_keepdim(1)).unsqueeze(2));
        let jacobian = |f: fn(&Tensor) -> Tensor, x: &Tensor| {
            let y = f(x);
            let basis = Tensor::eye(y.numel(), y.device());
            vmap(|row| Grad::of(&y).cotangent(&row[0]).wrt([x]).map(|mut g| g.remove(0)), &[basis]).unwrap()
        };
        let x = mixed([4]).tracked();
        let expected = Tensor::eye(4, x.device()) * x.cos();
        near("Jacobian", &jacobian(Tensor::sin, &x), &expected);
        // A map over the elements of the gradient's gradient.
        let hessian = jacobian(|x| gradient(|x| x.powi(3).sum(..) * x.sum(..), x), &x);
        let (s, square) = (x.sum(..), x.square() * 3.0);
        let expected = Tensor::eye(4, x.device()) * &x * 6.0 * s + square.unsqueeze(0) + square.unsqueeze(1);
        near("Hessian", &hessian, &expected);
        let nested = |x: &[Tensor]| vmap(|x| Ok(mapped(&x[0], |x| x.sin().sum(..)) * 2.0), x).unwrap();
        let y = mixed([2, 3, 2]);
        let slopes = gradient(|y| nested(from_ref(y)).sum(..), &y);
        near("gradient of maps of maps", &slopes, &(y.cos() * 2.0));
    });
}

/// The parts of a multilayer perceptron with dropout; the same seed gives the same weights and keys.
fn perceptron() -> (Linear, Dropout, Linear) {
    let init = Init::new(3, &device());
    (Linear::new(3, 8, &init), Dropout::new(0.4, &init), Linear::new(8, 4, &init))
}

fn parameters(model: &(Linear, Dropout, Linear)) -> Vec<Tensor> {
    model.0.parameters().iter().chain(&model.2.parameters()).map(|(_, p)| p.tensor()).collect()
}

fn logits(model: &(Linear, Dropout, Linear), x: &Tensor) -> Tensor {
    model.2.forward(&model.1.forward(&model.0.forward(x).gelu()))
}

#[test]
fn per_sample_gradients() {
    let body = || -> Result<()> {
        let (x, labels) = (mixed([5, 3]), new([3, 0, 1, 1, 2]));
        let loss =
            |model: &_, x: &Tensor, label: &Tensor| cross_entropy(&logits(model, x).unsqueeze(0), &label.unsqueeze(0));
        for keeps in [true, false] {
            let model = perceptron();
            let of_one = |x: &[Tensor]| {
                let loss = |x: &[Tensor]| loss(&model, &x[0], &x[1]);
                let loss = if keeps { loss(x) } else { checkpoint(loss, x) };
                Ok((loss.clone(), grad(&loss, &parameters(&model))?))
            };
            let same = Vmap::new().randomness(Randomness::Same);
            let (losses, gradients): (Tensor, Vec<Tensor>) = same.map(of_one, &[x.clone(), labels.clone()])?;
            for i in 0..5 {
                let model = perceptron();
                let loss = loss(&model, &x.select_index(0, i), &labels.select_index(0, i));
                near("loss", &losses.select_index(0, i), &loss);
                for (all, one) in gradients.iter().zip(grad(&loss, &parameters(&model))?) {
                    near("per-sample gradient", &all.select_index(0, i), &one);
                }
            }
            // With numbers of their own, examples drop what a batch drops, and gradients add up to the batch's.
            let model = perceptron();
            let of_one = |x: &[Tensor]| {
                let loss = |x: &[Tensor]| loss(&model, &x[0], &x[1]);
                grad(&if keeps { loss(x) } else { checkpoint(loss, x) }, &parameters(&model))
            };
            let gradients = vmap(of_one, &[x.clone(), labels.clone()])?;
            let model = perceptron();
            let mean = cross_entropy(&logits(&model, &x), &labels);
            for (all, batch) in gradients.iter().zip(grad(&mean, &parameters(&model))?) {
                near("gradients of a batch", &all.mean(0), &batch);
            }
            // The same, where the gradient is taken outside.
            let model = perceptron();
            let of_one = |x: &[Tensor]| {
                let loss = |x: &[Tensor]| loss(&model, &x[0], &x[1]);
                if keeps { loss(x) } else { checkpoint(loss, x) }
            };
            let losses = vmap(of_one, &[x.clone(), labels.clone()])?;
            let outside = grad(&losses.sum(..), &parameters(&model))?;
            for (all, sum) in gradients.iter().zip(&outside) {
                near("gradients outside", &all.sum(0), sum);
            }
        }
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn random_numbers() {
    let body = || -> Result<()> {
        let (x, key) = (mixed([4, 3]), Key::new(9));
        let noisy = |x: &[Tensor]| &x[0] + Tensor::rand([3], key, x[0].device());
        // Those of a batch, or those of one example.
        near("different", &vmap(noisy, from_ref(&x))?, &(&x + Tensor::rand([4, 3], key, &device())));
        let same = Vmap::new().randomness(Randomness::Same);
        near("same", &same.map(noisy, from_ref(&x))?, &(&x + Tensor::rand([3], key, &device())));
        // An output of random numbers alone, and numbers that are drawn outside.
        let (drawn, outside) = (|_: &[Tensor]| Tensor::rand([2], key, &device()), Tensor::rand([3], key, &device()));
        near("drawn", &vmap(drawn, from_ref(&x))?, &Tensor::rand([4, 2], key, &device()));
        near("shared", &same.map(drawn, from_ref(&x))?, &Tensor::rand([2], key, &device()).broadcast_to([4, 2]));
        near("outside", &vmap(|x| &x[0] * &outside, from_ref(&x))?, &(&x * &outside));
        // In a map of maps each decides for itself.
        let (a, b) = (mixed([2]), mixed([3]));
        for (outer, inner, shape) in [
            (Randomness::Different, Randomness::Different, [2, 3]),
            (Randomness::Different, Randomness::Same, [2, 1]),
            (Randomness::Same, Randomness::Different, [1, 3]),
            (Randomness::Same, Randomness::Same, [1, 1]),
        ] {
            let pair = |a: &Tensor, b: &Tensor| a * b + Tensor::rand([], key, a.device());
            let inner = Vmap::new().randomness(inner);
            let outer = Vmap::new().randomness(outer);
            let got = outer.map(|a| inner.map(|b| pair(&a[0], &b[0]), from_ref(&b)), from_ref(&a))?;
            near("nested", &got, &(a.unsqueeze(1) * &b + Tensor::rand(shape, key, &device())));
        }
        // A checkpoint that drew its numbers outside draws the same ones inside.
        let w = mixed([3]).tracked();
        let y = checkpoint(|w| w[0].exp() * Tensor::rand([3], key, w[0].device()), from_ref(&w));
        let rows = vmap(|g| Grad::of(&y).cotangent(&g[0]).wrt([&w]), &[Tensor::eye(3, &device())])?.remove(0);
        near("Jacobian of a checkpoint", &rows, &(Tensor::eye(3, &device()) * y.detach()));
        // Numbers that one map drew are not the next one's, also where its rule draws them again.
        let losses = vmap(|x| checkpoint(|x| noisy(x).square().sum(..), x), from_ref(&x))?;
        let rows = vmap(|g| Grad::of(&losses).cotangent(&g[0]).wrt([&x]), &[Tensor::eye(4, &device())])?.remove(0);
        let slopes = (&x + Tensor::rand([4, 3], key, &device())) * 2.0;
        near("Jacobian of a map", &rows, &(Tensor::eye(4, &device()).unsqueeze(2) * slopes));
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn what_is_shared_is_computed_once() -> Result<()> {
    let (x, w) = (mixed([5, 3]), Cell::parameter(positive([3, 4])));
    let y = vmap(|x| x[0].matmul(&w.tensor().exp()).tanh(), from_ref(&x))?;
    let graph = trace(&[y], &[])?.graph;
    let of = |name: &str| graph.nodes().iter().filter(|node| node.op.name() == name).collect::<Vec<_>>();
    assert_eq!(of("exp")[0].ty.shape[..], [3, 4]);
    // The examples are rows of one product: the weights are not repeated.
    let [product] = of("matmul")[..] else { panic!("{graph:?}") };
    assert_eq!(product.op, Op::Contract { batch: 0, contracted: 1 });
    assert!(of("expand").is_empty(), "{graph:?}");
    // Nor by a checkpoint's barriers, which wait for each example's cotangent.
    let slope = |x: &[Tensor]| grad(&checkpoint(|x| x[0].matmul(&w.tensor()).sin(), x).norm(..), x);
    let graph = trace(&vmap(slope, from_ref(&x))?, &[])?.graph;
    let barriers = graph
        .nodes()
        .iter()
        .filter(|node| node.op == Op::Barrier && node.operands.len() == 2)
        .map(|node| &node.ty.shape[..]);
    assert_eq!(barriers.collect::<BTreeSet<_>>(), BTreeSet::from([&[3, 4][..], &[5, 3]]));
    // Rows that indices pick are picked from one matrix, and their gradients go into one.
    let rows = new([[1, 2], [0, 2], [2, 2]]);
    let picked = vmap(|i| w.tensor().index_select(0, &i[0]).square().sum(..), from_ref(&rows))?.sum(..);
    let gradient = grad(&picked, [&w.tensor()])?.remove(0);
    let graph = trace(from_ref(&gradient), &[])?.graph;
    assert!(graph.nodes().iter().all(|node| node.ty.shape.numel() <= 3 * 2 * 4), "{graph:?}");
    near("rows", &gradient, &(w.tensor() * new([[2.0], [2.0], [8.0]])));
    // A parameter's gradient is the sum over the examples.
    let batch = x.matmul(&w.tensor().exp()).tanh().sum(..);
    let sum = vmap(|x| x[0].matmul(&w.tensor().exp()).tanh().sum(..), from_ref(&x))?.sum(..);
    near("sum", &grad(&sum, [&w.tensor()])?[0], &grad(&batch, [&w.tensor()])?[0]);
    Ok(())
}

#[test]
fn gradients_stop_where_they_stopped() {
    on_each_device(|| {
        let (x, w) = (mixed([4, 3]).tracked(), positive([3]).tracked());
        let f = |x: &[Tensor]| x[0].exp().detach() * &x[0] * no_grad(|| w.exp()) + no_grad(|| &x[0] * &w);
        let y = vmap(f, from_ref(&x)).unwrap();
        near("value", &y, &(x.exp() * &x * w.exp() + &x * &w));
        near("detached", &gradient(|x| vmap(f, from_ref(x)).unwrap().sum(..), &x), &(x.exp() * w.exp()));
        let error = grad(&vmap(f, from_ref(&x)).unwrap().sum(..), [&w]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unreached { .. }), "{error}");
        let constant = no_grad(|| vmap(|x| x[0].exp(), from_ref(&x))).unwrap();
        assert!(matches!(grad(&constant.sum(..), [&x]).unwrap_err().kind(), ErrorKind::Unreached { .. }));
    });
}

#[test]
fn custom_gradients_of_shared_inputs() {
    on_each_device(|| {
        let product = |x: &[Tensor]| {
            let rule = |x: &[Tensor], _: &Tensor, g: &Tensor| vec![None, Some(g * &x[2] * 2.0), Some(g * &x[1])];
            custom_gradient("double", x, |x| &x[1] * &x[2] + x[0].sum(..) * 0.0, rule)
        };
        // What nobody asks for may be wrong.
        let half = |x: &[Tensor]| {
            let rule = |_: &[Tensor], _: &Tensor, g: &Tensor| vec![Some(g.clone()), Some(g.reshape([7]))];
            custom_gradient("half", x, |x| &x[0] * &x[1], rule)
        };
        let (x, w, unused) = (mixed([4, 3]), positive([3]).tracked(), mixed([2]).tracked());
        let f = |x: &[Tensor]| product(&[unused.clone(), x[0].clone(), w.clone()]).exp();
        let all = vmap(f, from_ref(&x)).unwrap();
        let (y, targets) = ((&x * &w).exp(), [&x, &w, &unused]);
        near("value", &all, &y);
        let gradients = Grad::of(&all.sum(..)).allow_unused().wrt(targets).unwrap();
        near("batched", &gradients[0], &(&y * &w * 2.0));
        near("shared", &gradients[1], &(&y * &x).sum(0));
        near("none", &gradients[2], &new([0.0, 0.0]));
        let halves = vmap(|x| half(&[x[0].clone(), w.clone()]), from_ref(&x)).unwrap().sum(..);
        near("half", &grad(&halves, [&x]).unwrap()[0], &x.ones_like());
        let error = grad(&halves, [&w]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Reshape { .. }), "{error}");
        let wrong = |x: &[Tensor]| custom_gradient("wrong", x, |x| x[0].exp(), |_, _, _| vec![]);
        let error = grad(&vmap(wrong, from_ref(&x)).unwrap().sum(..), [&x]).unwrap_err().to_string();
        assert!(error.contains("gradients is 0 for 1 inputs of wrong"), "{error}");
    });
}

#[test]
fn outputs_take_any_form() -> Result<()> {
    let x = mixed([2, 3]);
    let (a, [b, c]) = vmap(|x| (x[0].exp(), [x[0].sum(..), Tensor::new(7, &device())]), from_ref(&x))?;
    near("first", &a, &x.exp());
    near("second", &b, &x.sum(1));
    near("repeated", &c, &new([7, 7]));
    let (value, gradients) = vmap(|x| value_and_grad(|x| x[0].square().sum(..), x), from_ref(&x))?;
    near("value", &value, &x.square().sum(1));
    near("gradient", &gradients[0], &(&x * 2.0));
    let none = vmap(|_| Vec::<Tensor>::new(), from_ref(&x))?;
    assert!(none.is_empty());
    near("identity", &vmap(|x| x[0].clone(), from_ref(&x))?, &x);
    // No examples at all give no results, of the right shape.
    let empty = vmap(|x| x[0].exp().unsqueeze(0) + x[0].unsqueeze(1), &[Tensor::zeros([0, 3], &device())])?;
    assert_eq!((empty.shape()[..].to_vec(), empty.to_vec::<f32>()?), (vec![0, 3, 3], vec![]));
    Ok(())
}

#[test]
fn long_functions_do_not_evaluate_what_is_pending() -> Result<()> {
    let device = Device::cpu_with(1, None)?;
    let x = Tensor::new([1, 2], &device);
    let pending = &x * 10;
    let before = device.memory().in_use;
    let long = |one: &[Tensor]| {
        let sum = (0..6000).fold(one[0].clone(), |sum, _| sum + 1);
        assert_eq!(device.memory().in_use, before);
        sum
    };
    assert_eq!((vmap(long, from_ref(&x))? + pending).to_vec::<i32>()?, [6011, 6022]);
    Ok(())
}

#[test]
fn lines_are_those_of_the_function() {
    let far = new([0, 9]);
    let y = vmap(|i| mixed([3]).gather(0, &i[0].unsqueeze(0)), from_ref(&far)).unwrap();
    let line = line!() - 1;
    let error = y.eval().unwrap_err().to_string();
    assert!(error.contains(&format!("vmap.rs:{line}: index 9")), "{error}");
    let x = mixed([2, 3]);
    let error = vmap(|x| x[0].reshape([7]), from_ref(&x)).unwrap_err();
    assert!(error.to_string().contains(&format!("vmap.rs:{}: cannot reshape [3]", line!() - 1)), "{error}");
}

#[test]
fn values_cannot_be_read_inside() -> Result<()> {
    let x = mixed([2, 3]);
    let cell = Cell::buffer(mixed([3]));
    let kind = |result: Result<Tensor>| result.unwrap_err().kind().clone();
    assert_eq!(kind(vmap(|x| x[0].exp().to_vec::<f32>().map(|_| x[0].clone()), from_ref(&x))), ErrorKind::NoValue);
    assert_eq!(kind(vmap(|x| x[0].sum(..).item::<f32>().map(|n| &x[0] * n), from_ref(&x))), ErrorKind::NoValue);
    assert_eq!(kind(vmap(|x| eval([&cell.tensor(), &x[0]]).map(|_| x[0].clone()), from_ref(&x))), ErrorKind::NoValue);
    assert_eq!(kind(vmap(|x| x[0].masked_select(&x[0].gt(0.0)), from_ref(&x))), ErrorKind::NoValue);
    assert_eq!(kind(vmap(|x| cell.set(x[0].exp()).map(|_| x[0].clone()), from_ref(&x))), ErrorKind::NoValue);
    assert_eq!((cell.version(), cell.tensor().to_vec::<f32>()?), (0, mixed([3]).to_vec::<f32>()?));
    let other = Device::cpu_with(1, None)?;
    assert_eq!(kind(vmap(|x| x[0].to_device(&other), from_ref(&x))), ErrorKind::NoValue);
    assert_eq!(
        kind(vmap(|x| Ok(x[0].tracked() * Cell::buffer(x[0].sum(..)).tensor().item::<f32>()?), from_ref(&x))),
        ErrorKind::NoValue
    );
    // The message says what to do, and which op it was.
    let line = line!() + 1;
    let error = vmap(|x| x[0].exp().eval().map(|_| x[0].clone()), from_ref(&x)).unwrap_err().to_string();
    assert!(error.starts_with("exp at ") && error.contains(&format!("vmap.rs:{line}: inside of vmap")), "{error}");
    let mut text = String::new();
    let print = |x: &[Tensor]| {
        text = x[0].to_string();
        x[0].clone()
    };
    vmap(print, from_ref(&x))?;
    assert!(text.contains("inside of vmap"), "{text}");
    // Nor afterwards, where one has got out.
    let mut leaked = None;
    vmap(|x| leaked.insert(x[0].exp()).clone(), from_ref(&x))?;
    assert_eq!(*leaked.unwrap().eval().unwrap_err().kind(), ErrorKind::NoValue);
    // Random numbers of each example have no single value; shared ones, and what depends on no example, have.
    let read = |x: &[Tensor]| Tensor::rand([], Key::new(1), x[0].device()).item::<f32>().map(|n| &x[0] * n);
    assert_eq!(kind(vmap(read, from_ref(&x))), ErrorKind::NoValue);
    assert!(Vmap::new().randomness(Randomness::Same).map(read, from_ref(&x)).is_ok());
    near(
        "constant",
        &vmap(|x| cell.tensor().sum(..).item::<f32>().map(|n| &x[0] * n), from_ref(&x))?,
        &(&x * cell.tensor().sum(..)),
    );
    Ok(())
}

#[test]
fn misuse() {
    let (x, y, s) = (mixed([2, 3]), mixed([3, 3]), new(1.0));
    let f = |x: &[Tensor]| x[0].clone();
    let says = |result: Result<Tensor>, message: &str| {
        let error = result.unwrap_err();
        assert!(error.op() == "vmap" && error.to_string().contains(message), "{error}");
        assert!(error.location().unwrap().file().ends_with("tests/vmap.rs"), "{error}");
    };
    let [x, y, s] = [x, y, s].map(|x| vec![x]);
    let (xy, ys) = ([x.clone(), y.clone()].concat(), [y.clone(), s.clone()].concat());
    says(vmap(f, &xy), "input 0 has 2 examples, but input 1 has 3: batch axes must have equal extents");
    says(Vmap::new().in_axes([Some(1), Some(0)]).out_axes([]).map(f, &xy), "out_axes is [] for 1 outputs");
    says(vmap(f, &[]), "no input has a batch axis");
    says(Vmap::new().in_axes([None, None]).map(f, &xy), "no input has a batch axis");
    says(Vmap::new().in_axes([Some(0)]).map(f, &xy), "in_axes is [Some(0)] for 2 inputs, expected one for each input");
    says(vmap(f, &ys), "expected a batch axis, so at least rank 1, found rank 0 (shape [])");
    says(Vmap::new().in_axes([Some(2)]).map(f, &x), "axis 2 is out of range for shape [2, 3] (rank 2)");
    says(Vmap::new().in_axes([Some(-3)]).map(f, &x), "axis -3 is out of range for shape [2, 3] (rank 2)");
    says(Vmap::new().in_axes([Some(isize::MIN)]).map(f, &x), "is out of range for shape [2, 3] (rank 2)");
    says(Vmap::new().out_axes([2]).map(f, &x), "axis 2 is out of range for shape [2, 3] (rank 2)");
    says(Vmap::new().out_axes([0, 1]).map(f, &x), "out_axes is [0, 1] for 1 outputs, expected one for each output");
    let failed = x[0].reshape([7]);
    assert_eq!(vmap(f, from_ref(&failed)).unwrap_err().to_string(), failed.error().unwrap().to_string());
    let error = vmap(|x| [x[0].clone(), failed.clone()], &x).unwrap_err();
    assert_eq!(error.to_string(), failed.error().unwrap().to_string());
}
