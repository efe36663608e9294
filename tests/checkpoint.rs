//! Checkpoints: gradients stay the same, the inside is computed again, and memory falls.

#[allow(dead_code)] // This file uses a part of it.
#[path = "support/bench.rs"]
mod bench;
#[path = "support/devices.rs"]
mod devices;

use bench::{check, check_all, device, mixed, new, on_each_device, positive};
use devices::{is_cpu, own_devices};
use gradus::nn::{Dropout, Init, Layer, Linear, Module};
use gradus::tensor::graph::trace;
use gradus::{Cell, Device, Error, ErrorKind, Grad, Key, Result, Tensor};
use gradus::{checkpoint, custom_gradient, grad, no_grad, stack};
use std::slice::from_ref;

type Function = fn(&[Tensor]) -> Tensor;

/// How often an op occurs in the graph that computes tensors.
fn count(tensors: &[Tensor], op: &str) -> usize {
    trace(tensors, &[]).unwrap().graph.nodes().iter().filter(|node| node.op.name() == op).count()
}

/// The same numbers: to the bit on the CPU, where no order of operations differs, and near on a GPU.
#[track_caller]
fn equal(got: &[Tensor], expected: &[Tensor]) {
    let is_exact = got.iter().all(|tensor| is_cpu(tensor.device()));
    near(got, expected, if is_exact { 0.0 } else { 1e-5 });
}

#[track_caller]
fn near(got: &[Tensor], expected: &[Tensor], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.shape(), expected.shape());
        let (got, expected) = (got.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
        let near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(got.iter().zip(&expected).all(near), "{got:?}, expected {expected:?}");
    }
}

#[test]
fn gradients_are_those_without() {
    on_each_device(|| {
        let functions: [(&str, Function); 7] = [
            ("map", |x| x[0].exp() * x[1].sin() + &x[0]),
            ("matmul", |x| x[0].matmul(&x[1].t()).tanh().matmul(&x[1])),
            ("softmax", |x| (&x[0] * &x[1]).softmax(-1).log_softmax(0)),
            ("one input of two", |x| x[1].square().sum(0)),
            ("views", |x| stack(&[&x[0].flip(1), &x[1].slice(1, 1..).pad(1, 1, 0)], 0).permute([2, 0, 1])),
            ("max", |x| x[0].max(1) * x[1].prod(..)),
            ("choice", |x| x[0].gt(&x[1] * 0.9).where_(x[0].square(), x[1].exp())),
        ];
        for (name, f) in functions {
            let inputs = [mixed([3, 4]).tracked(), positive([3, 4]).tracked()];
            let gradients = |y: &Tensor| {
                let first = Grad::of(&y.sin().sum(..)).allow_unused().wrt(&inputs).unwrap();
                let norm = first.iter().map(|g| g.square().sum(..)).reduce(|a, b| a + b).unwrap();
                let second = Grad::of(&norm).allow_unused().wrt(&inputs).unwrap();
                [first, second]
            };
            let ([first, second], [plain, second_plain]) = (gradients(&checkpoint(f, &inputs)), gradients(&f(&inputs)));
            equal(&first, &plain);
            // What both passes read has one sum of cotangents there, and two here.
            near(&second, &second_plain, 1e-5);
            check_all(name, 2, &inputs, |x| checkpoint(f, x));
        }
    });
}

#[test]
fn gradients_reach_what_is_captured() {
    let body = || -> Result<()> {
        let w = Cell::parameter(mixed([4, 4]));
        let x = positive([2, 4]).tracked();
        let scale = x.sum(..).exp();
        let f = |h: &[Tensor]| h[0].matmul(&w.tensor()).sigmoid() * &scale;
        let targets = [x.clone(), w.tensor(), scale.clone()];
        let expected = grad(&f(&[f(from_ref(&x))]).sum(..), &targets)?;
        let got = grad(&checkpoint(f, &[checkpoint(f, from_ref(&x))]).sum(..), &targets)?;
        equal(&got, &expected);
        // A leaf that is made inside.
        let mut leaf = None;
        let y = checkpoint(|x| leaf.insert((&x[0] * 2.0).tracked()).exp(), from_ref(&x));
        let leaf = leaf.expect("it was called");
        equal(&grad(&y.sum(..), [&leaf])?, &[leaf.exp()]);
        // An index, and an input that nothing flows to.
        let rows = new([1, 0, 1]);
        let g = |h: &[Tensor]| h[0].index_select(0, &h[1]) * h[2].detach() * h[3].gt(0.0).where_(h[0].sum(..), 1.0);
        let inputs = [x.clone(), rows, x.slice(0, ..1) * 2.0, new(1.0)];
        equal(&grad(&checkpoint(g, &inputs).sum(..), [&x])?, &grad(&g(&inputs).sum(..), [&x])?);
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn the_inside_is_computed_again_behind_barriers() -> Result<()> {
    let x = mixed([3]).tracked();
    let w = Cell::parameter(positive([3]));
    let f = |x: &[Tensor]| (&x[0] * w.tensor()).exp().sin().tanh();
    let without = f(from_ref(&x)).sum(..);
    let loss = checkpoint(f, from_ref(&x)).sum(..);
    assert_eq!((count(from_ref(&loss), "exp"), count(from_ref(&loss), "barrier")), (1, 1));
    let values = |loss: Tensor, mut gradients: Vec<Tensor>| {
        gradients.push(loss);
        gradients
    };
    let without = values(without.clone(), grad(&without, [&x, &w.tensor()])?);
    let with = values(loss.clone(), grad(&loss, [&x, &w.tensor()])?);
    assert_eq!((count(&without, "exp"), count(&with, "exp")), (1, 2));
    assert_eq!((count(&without, "tanh"), count(&with, "tanh")), (1, 2));
    // Every input waits for the cotangent, the parameter too.
    let graph = trace(&with, &[])?.graph;
    let waits = |node: &&gradus::ir::Node| node.op.name() == "barrier" && node.operands.len() == 2;
    let barriers: Vec<_> = graph.nodes().iter().filter(waits).collect();
    assert_eq!(barriers.len(), 2);
    assert_eq!(barriers[0].operands[1], barriers[1].operands[1]);
    for barrier in barriers {
        assert_eq!(graph.nodes()[barrier.operands[0]].op.name(), "input");
        assert_ne!(graph.nodes()[barrier.operands[1]].op.name(), "input");
    }
    equal(&with, &without);
    // What was recorded inside stands on its line in both passes.
    let far = new([7]);
    let y = checkpoint(|x| x[0].gather(0, &far), from_ref(&x));
    let line = line!() - 1;
    let error = grad(&y.sum(..).square(), [&x])?[0].eval().unwrap_err().to_string();
    assert!(error.contains(&format!("checkpoint.rs:{line}: index 7")), "{error}");
    Ok(())
}

#[test]
fn memory_falls() -> Result<()> {
    const SIDE: usize = 128;
    let block = |x: &[Tensor]| (0..6).fold(x[0].clone(), |x, _| x.matmul(&x.t()).softmax(-1));
    let peak = |device: &Device, keeps: bool| -> Result<usize> {
        let x = Tensor::rand([SIDE, SIDE], Key::new(1), device).tracked();
        let mut y = x.clone();
        for _ in 0..6 {
            y = if keeps { block(&[y]) } else { checkpoint(block, &[y]) };
        }
        grad(&y.square().sum(..), [&x])?[0].eval()?;
        Ok(device.memory().peak)
    };
    let (with, without) = (own_devices(None), own_devices(None));
    for (a, b) in with.iter().zip(&without) {
        let (with, without) = (peak(a, false)?, peak(b, true)?);
        assert!(2 * with < without, "{with} bytes with checkpoints, {without} without, on {a}");
    }
    Ok(())
}

#[test]
fn a_checkpoint_keeps_no_values() -> Result<()> {
    // Each output knows how to be computed again, but not from what.
    let device = Device::cpu_with(1, None)?;
    let mut h = Tensor::rand([1024], Key::new(3), &device);
    let mut in_use = Vec::new();
    for _ in 0..5 {
        h = checkpoint(|h| h[0].sin().exp().tanh(), &[h]);
        h.eval()?;
        in_use.push(device.memory().in_use);
    }
    assert_eq!(in_use, [4096; 5]);
    Ok(())
}

#[test]
fn checkpoints_nest() {
    let inner = |x: &[Tensor]| x[0].sin().matmul(&x[1]);
    let outer = |x: &[Tensor]| checkpoint(inner, &[checkpoint(inner, x).tanh(), x[1].clone()]).exp();
    let plain = |x: &[Tensor]| inner(&[inner(x).tanh(), x[1].clone()]).exp();
    on_each_device(|| {
        let inputs = [mixed([3, 3]).tracked(), positive([3, 3]).tracked()];
        let gradients = |y: Tensor| grad(&y.sum(..), &inputs).unwrap();
        let nested = checkpoint(outer, &inputs);
        equal(&gradients(nested.clone()), &gradients(plain(&inputs)));
        // Forward; again for the outside; again for the inside.
        let all = [gradients(nested.clone()), vec![nested]].concat();
        assert_eq!((count(&all, "sin"), count(&all, "exp"), count(&all, "tanh")), (6, 2, 2));
        check_all("nested", 2, &inputs, |x| checkpoint(outer, x));
    });
}

#[test]
fn random_numbers_are_the_same_and_the_function_is_called_once() {
    let body = || -> Result<()> {
        let init = Init::new(5, &device());
        let (linear, dropout) = (Linear::new(6, 6, &init), Dropout::new(0.5, &init));
        let x = positive([40, 6]).tracked();
        let mut calls = 0;
        let block = |x: &[Tensor]| {
            calls += 1;
            dropout.forward(&x[0])
        };
        let dropped = checkpoint(block, from_ref(&x));
        let gradient = grad(&dropped.sum(..), [&x])?.remove(0);
        assert_eq!(calls, 1);
        let (dropped, gradient) = (dropped.to_vec::<f32>()?, gradient.to_vec::<f32>()?);
        assert!(dropped.iter().zip(&gradient).all(|(y, g)| *g == if *y == 0.0 { 0.0 } else { 2.0 }));
        assert!(dropped.contains(&0.0) && gradient.contains(&2.0));
        // A noise that is drawn inside, and captured from outside.
        let noise = Tensor::randn([40, 6], Key::new(1), &device());
        let f =
            |x: &[Tensor]| (linear.forward(&x[0]) * &noise * Tensor::randn([40, 6], Key::new(2), &device())).sigmoid();
        let parameters: Vec<Tensor> = linear.parameters().iter().map(|(_, p)| p.tensor()).collect();
        equal(&grad(&checkpoint(f, from_ref(&x)).sum(..), &parameters)?, &grad(&f(from_ref(&x)).sum(..), &parameters)?);
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn several_outputs() {
    let body = || -> Result<()> {
        let x = mixed([2, 3]).tracked();
        let f = |x: &[Tensor]| (x[0].exp(), [x[0].exp().sum(0), x[0].clone()]);
        let loss = |(a, [b, c]): (Tensor, [Tensor; 2])| (a * b * c).sin().sum(..);
        let expected = grad(&loss(f(from_ref(&x))), [&x])?;
        equal(&grad(&loss(checkpoint(f, from_ref(&x))), [&x])?, &expected);
        let fallible =
            |x: &[Tensor]| -> Result<Vec<Tensor>> { Ok(vec![x[0].tanh(), x[0].dims::<2>()?[1] as f64 * &x[0]]) };
        let outputs = checkpoint(fallible, from_ref(&x))?;
        equal(&grad(&(&outputs[0] * &outputs[1]).sum(..), [&x])?, &grad(&(x.tanh() * &x * 3.0).sum(..), [&x])?);
        let error = checkpoint(|x| x[0].dims::<1>().map(|_| x[0].exp()), from_ref(&x)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Rank { .. }));
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn what_is_inside_may_have_rules_and_gradients_of_its_own() {
    on_each_device(|| {
        let cube = |x: &Tensor| {
            let rule = |x: &[Tensor], y: &Tensor, g: &Tensor| vec![Some(g * y / &x[0] * 3.0)];
            custom_gradient("cube", from_ref(x), |x| x[0].square() * &x[0], rule)
        };
        check("custom gradient", 2, &mixed([3]), |x| checkpoint(|x| cube(&x[0].sin()).exp(), from_ref(x)));
        let slope = |x: &[Tensor]| {
            let y = x[0].sin() * &x[0];
            grad(&y.sum(..), x).unwrap().remove(0) * &x[0]
        };
        check("gradient", 2, &mixed([3]), |x| checkpoint(slope, from_ref(x)));
    });
}

#[test]
fn without_gradients_there_is_nothing_to_compute_again() -> Result<()> {
    let x = mixed([3]).tracked();
    let f = |x: &[Tensor]| x[0].exp();
    // Nothing is wrapped that has no gradient.
    let constants = [
        no_grad(|| checkpoint(f, from_ref(&x))),
        checkpoint(|x| f(x).detach(), from_ref(&x)),
        checkpoint(|x| f(x).argmax(0), from_ref(&x)),
        checkpoint(|_| Tensor::rand([2], Key::new(0), &device()), from_ref(&x)),
        checkpoint(|x| x[0].clone(), from_ref(&x)),
    ];
    assert_eq!(count(&constants, "barrier"), 0);
    // A gradient that is taken without gradients is a constant, and right.
    let loss = checkpoint(|x| f(x).square(), from_ref(&x)).sum(..);
    let constant = no_grad(|| grad(&loss, [&x]))?.remove(0);
    assert!(matches!(grad(&constant.sum(..), [&x]).unwrap_err().kind(), ErrorKind::Unreached { .. }));
    equal(&[constant], &grad(&f(from_ref(&x)).square().sum(..), [&x])?);
    Ok(())
}

#[test]
fn errors_are_those_without() -> Result<()> {
    let w = Cell::parameter(mixed([3]));
    w.set_name("w");
    let x = mixed([3]).tracked();
    let kind = |error: Error| error.kind().clone();
    let failed = checkpoint(|x| x[0].reshape([7]).exp(), from_ref(&x));
    assert!(matches!(failed.error().unwrap().kind(), ErrorKind::Reshape { .. }));
    let of = |f: fn(&[Tensor]) -> Tensor, targets: &[&Tensor]| {
        grad(&checkpoint(f, from_ref(&x)).sum(..), targets.iter().copied())
    };
    let unreached = of(|x| x[0].exp(), &[&x, &w.tensor()]).unwrap_err();
    assert!(matches!(kind(unreached), ErrorKind::Unreached { target } if target == "w"));
    assert!(matches!(kind(of(|x| x[0].detach() * 2.0 + 1.0, &[&x]).unwrap_err()), ErrorKind::Unreached { .. }));
    let line = line!() + 1;
    let through = of(|x| x[0].gt(0.0).to_dtype(gradus::DType::F32).exp(), &[&x]).unwrap_err();
    assert!(matches!(kind(through), ErrorKind::NotDifferentiable { at, .. } if at.ends_with(&format!(":{line}"))));
    // An input that is not asked for may do what it likes.
    let y = checkpoint(|x| x[0].exp() * x[1].gt(0.0).to_dtype(gradus::DType::F32), &[x.clone(), w.tensor()]);
    assert!(grad(&y.sum(..), [&x]).is_ok());

    let loss = checkpoint(|x| (&x[0] * w.tensor()).exp(), from_ref(&x)).sum(..);
    let before = grad(&loss, [&x])?;
    loss.eval()?;
    equal(&grad(&loss, [&x])?, &before);
    w.set(w.tensor() * 2.0)?;
    for target in [&x, &w.tensor()] {
        let updated = grad(&loss, [target]).unwrap_err();
        assert!(matches!(kind(updated), ErrorKind::ParameterUpdated { name } if name == "w"));
    }
    let untracked = mixed([3]);
    let loss = checkpoint(|x| x[0].exp(), from_ref(&untracked)).sum(..);
    assert!(grad(&loss, [&untracked]).is_ok());
    loss.eval()?;
    assert!(matches!(kind(grad(&loss, [&untracked]).unwrap_err()), ErrorKind::GraphFreed));
    Ok(())
}
