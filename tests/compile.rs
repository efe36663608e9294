//! Compiled functions give the bits that the same functions give without `compile`, on every device.

#[path = "support/devices.rs"]
mod devices;

use devices::own_devices;
use gradus::prelude::*;
use gradus::{Cell, ErrorKind, Result, compile};
use std::cell::Cell as Counter;
use std::slice::from_ref;

/// The elements of several tensors, as bits.
fn bits(tensors: &[Tensor]) -> Vec<Vec<u32>> {
    tensors.iter().map(|t| t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()).collect()
}

fn network(device: &Device) -> Sequential {
    let init = Init::new(42, device);
    let (first, last) = (Linear::new(6, 9, &init), Linear::new(9, 2, &init));
    let model = Sequential::new().then(first).then(Gelu).then(Dropout::new(0.3, &init)).then(last);
    eval(&model.parameters().iter().map(|(_, p)| p.tensor()).collect::<Vec<_>>()).unwrap();
    model
}

/// A loss, its gradients, and something random besides.
fn step(model: &Sequential, rng: &Rng, x: &Tensor) -> Result<Vec<Tensor>> {
    let noise = Tensor::randn(x.shape(), rng.split().key(), x.device()) * 0.1;
    let loss = model.forward(&(x + noise)).square().mean(..);
    let parameters: Vec<Tensor> = model.parameters().iter().map(|(_, p)| p.tensor()).collect();
    let mut results = grad(&loss, &parameters)?;
    results.push(loss);
    Ok(results)
}

#[test]
fn a_compiled_step_gives_the_same_bits_and_draws_the_same_keys() {
    for device in own_devices(None) {
        let (plain, model) = (network(&device), network(&device));
        let (rng, same) = (Rng::new(7), Rng::new(7));
        let recorded = Counter::new(0);
        let compiled = compile(|x| {
            recorded.set(recorded.get() + 1);
            step(&model, &same, &x[0])
        });
        for number in 0..6 {
            // Shapes come back.
            let x = Tensor::randn([3 + number % 2, 6], Key::new(number as u64), &device);
            x.eval().unwrap();
            let expected = step(&plain, &rng, &x).unwrap();
            // In one run: what shares a kernel may round otherwise.
            eval(&expected).unwrap();
            let found = compiled.call(&[x]).unwrap();
            assert_eq!(bits(&found), bits(&expected), "call {number} on {device}");
            assert_eq!(rng.state(), same.state(), "call {number} on {device}");
            // Both models learn, so that the next call must see new weights.
            for (model, gradients) in [(&plain, &expected), (&model, &found)] {
                for ((_, parameter), gradient) in model.parameters().iter().zip(gradients) {
                    parameter.set(parameter.tensor() - gradient * 0.1).unwrap();
                }
            }
        }
        assert_eq!(recorded.get(), 2, "once for each shape");
    }
}

#[test]
fn a_compiled_call_makes_nothing() {
    for device in own_devices(None) {
        let model = network(&device);
        let compiled = compile(|x| Ok(vec![model.forward(&x[0])]));
        let x = Tensor::ones([4, 6], &device);
        x.eval().unwrap();
        compiled.call(from_ref(&x)).unwrap();
        compiled.call(from_ref(&x)).unwrap();
        let before = device.stats();
        for _ in 0..10 {
            compiled.call(from_ref(&x)).unwrap();
        }
        let after = device.stats();
        assert!(after.launches > before.launches);
        assert_eq!(
            (after.plans, after.pipelines, after.bind_groups, after.buffers),
            (before.plans, before.pipelines, before.bind_groups, before.buffers)
        );
    }
}

#[test]
fn inputs_may_be_tracked_returned_and_left_out() {
    let device = Device::cpu();
    let compiled = compile(|x| {
        let (value, gradients) = value_and_grad(|x| (&x[0] * &x[0] * &x[1]).sum(..), &x[..2])?;
        Ok(vec![x[1].clone(), value, gradients[0].clone(), gradients[0].clone()])
    });
    let inputs =
        |a: f32, b: f32| [Tensor::new([a], &device), Tensor::new([b], &device) * 1.0, Tensor::new([9.0], &device)];
    for (a, b) in [(2.0, 3.0), (4.0, 5.0)] {
        let results = compiled.call(&inputs(a, b)).unwrap();
        let values: Vec<f32> = results.iter().map(|r| r.item().unwrap()).collect();
        assert_eq!(values, [b, a * a * b, 2.0 * a * b, 2.0 * a * b]);
        assert!(results.iter().all(|r| grad(r, [r]).is_ok()), "a result is a leaf like any other");
    }
    assert!(compile(|_| Ok(Vec::new())).call(&[]).unwrap().is_empty());
}

#[test]
fn cells_are_read_anew_and_captured_tensors_stay() {
    for device in own_devices(None) {
        let cell = Cell::buffer(Tensor::zeros([2], &device));
        let captured = Tensor::new([1.0, 2.0], &device) * 10.0;
        let key = Key::new(3);
        let fixed = Tensor::rand([2], key, &device);
        let compiled = compile(|x| {
            let ones = Tensor::ones([2], x[0].device());
            Ok(vec![&captured + cell.tensor() + ones, Tensor::rand([2], key, x[0].device()), cell.tensor().tracked()])
        });
        let x = Tensor::zeros([], &device);
        for number in 0..4 {
            let [sum, random, read] = <[Tensor; 3]>::try_from(compiled.call(from_ref(&x)).unwrap()).ok().unwrap();
            let n = number as f32;
            assert_eq!(sum.to_vec::<f32>().unwrap(), [11.0 + n, 21.0 + n]);
            assert_eq!(read.to_vec::<f32>().unwrap(), [n, n]);
            assert_eq!(bits(&[random]), bits(from_ref(&fixed)));
            cell.set(cell.tensor() + 1.0).unwrap();
            assert_eq!(read.to_vec::<f32>().unwrap(), [n, n], "a result keeps its value");
        }
    }
}

#[test]
fn reading_and_assigning_inside_are_errors() {
    let device = Device::cpu();
    let model = Linear::new(1, 1, &Init::new(0, &device));
    let weight = model.weight.clone();
    let before = weight.tensor().item::<f32>().unwrap();
    let rng = Rng::new(0);
    let x = Tensor::ones([1, 1], &device);
    type Body<'a> = &'a dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>;
    let inner = compile(|x| Ok(vec![x[0].exp()]));
    let wrongs: [Body<'_>; 6] = [
        &|x| x[0].item::<f32>().map(|_| Vec::new()),
        &|x| weight.set(&x[0] * 2.0).map(|_| Vec::new()),
        &|x| Sgd::new(0.1).of(&model).step(&model.forward(&x[0]).sum(..)).map(|_| Vec::new()),
        &|x| Ok(vec![x[0].to_device(&Device::cpu_with(1, None)?)]),
        &|_| Ok(vec![Tensor::permutation(5, rng.key(), &device)]),
        &|x| inner.call(x),
    ];
    for (number, wrong) in wrongs.into_iter().enumerate() {
        let error = compile(wrong).call(from_ref(&x)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Recording, "{number}: {error}");
    }
    assert_eq!(weight.tensor().item::<f32>().unwrap(), before);
    assert_eq!(weight.cell().version(), 0);
    // Recording has ended, also after a panic.
    std::panic::catch_unwind(|| compile(|_| panic!("on purpose")).call(&[])).unwrap_err();
    assert_eq!(x.exp().item::<f32>().unwrap(), 1f32.exp());
    // What a function lets out cannot be read.
    let leaked = std::sync::Mutex::new(None);
    let leaking = compile(|x| {
        *leaked.lock().unwrap() = Some(x[0].clone() + 1.0);
        Ok(vec![x[0].exp()])
    });
    leaking.call(from_ref(&x)).unwrap();
    let leaked = leaked.into_inner().unwrap().unwrap();
    assert_eq!(*leaked.eval().unwrap_err().kind(), ErrorKind::Recording);
}

#[test]
fn errors_are_passed_on() {
    let device = Device::cpu();
    let (x, misfit) = (Tensor::ones([2], &device), Tensor::ones([3], &device));
    let added = compile(|x| Ok(vec![&x[0] + &x[1]]));
    assert!(added.call(&[x.clone(), misfit.clone()]).unwrap_err().to_string().contains("do not broadcast"));
    assert!(added.call(&[x.clone(), &x + &misfit]).unwrap_err().to_string().contains("do not broadcast"));
    assert_eq!(added.call(&[x.clone(), x.clone()]).unwrap()[0].to_vec::<f32>().unwrap(), [2.0, 2.0]);
    let picked = compile(|x| Ok(vec![x[0].gather(0, &x[1])]));
    assert!(picked.call(&[x.clone(), Tensor::new([1], &device)]).is_ok());
    let error = picked.call(&[x, Tensor::new([2], &device)]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Index { index: 2, .. }), "{error}");
}
