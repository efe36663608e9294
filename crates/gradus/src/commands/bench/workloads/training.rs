//! Training steps: forward, backward and an optimiser, with no value read.

use super::super::inputs::{labels, tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload, worse};
use gradus::prelude::*;
use gradus::{Result, compile};
use std::rc::Rc;

pub(super) fn workloads() -> Vec<Workload> {
    // Three products for each of the forward pass: two give gradients.
    let step = |forward: usize, parameters: usize| {
        // A step of Adam reads the gradient, reads and writes the parameter and two moments.
        (Unit::Steps, Cost::operations(3 * forward).and_bytes(4 * 7 * parameters))
    };
    let perceptron = |batch: usize| step(2 * batch * (784 * 512 + 512 * 256 + 256 * 10), 535_818);
    let convolutions = 2 * 64 * (784 * 9 * 8 + 196 * 9 * 8 * 16 + 784 * 10);
    // Projections and the network, and a half of the logits and their use, since the rest is masked.
    let block = 2 * 8 * 128 * (12 * 128 * 128) + 2 * 8 * 128 * 128 * 128;
    let whole = (Unit::Time, Cost::default());
    vec![
        Workload::new("mlp128", Suite::Quick, perceptron(128), |device| mlp(128, device)),
        Workload::new("mlp1024", Suite::Quick, perceptron(1024), |device| mlp(1024, device)),
        Workload::new("cnn64", Suite::Quick, step(convolutions, 9_098), cnn),
        Workload::new("tfm8", Suite::Quick, step(block, 198_272), transformer),
        Workload::new("linreg", Suite::Quick, whole, |device| line(false, device)),
        Workload::new("linreg_compiled", Suite::Quick, whole, |device| line(true, device)),
        Workload::new("digits_epoch", Suite::Full, whole, digits),
        Workload::new("adam_10m", Suite::Full, (Unit::Bytes, Cost::bytes(4 * 7 * TENSORS * ELEMENTS)), adam),
    ]
}

/// A layer without bias at first, whose weight is given as [in, out].
pub(super) fn linear(inputs: usize, outputs: usize, seed: u32, device: &Device) -> Linear {
    let weight = tensor([inputs, outputs], seed, 1.0 / (inputs as f32).sqrt(), device).t();
    Linear::from_tensors(weight, Some(Tensor::zeros([outputs], device)))
}

fn conv(inputs: usize, outputs: usize, seed: u32, device: &Device) -> Conv2d {
    let weight = tensor([outputs, inputs, 3, 3], seed, 1.0 / (9.0 * inputs as f32).sqrt(), device);
    Conv2d::from_tensors(weight, Some(Tensor::zeros([outputs], device)), Conv::new().padding(1))
}

/// Steps of Adam; checked by the losses of the first step and the eleventh.
fn train(device: &Device, model: &impl Module, loss: impl Fn() -> Tensor + 'static) -> Result<Run> {
    train_after(10, device, model, loss)
}

/// Steps of Adam; checked by the losses of the first step, and after so many.
pub(super) fn train_after(
    steps: usize,
    device: &Device,
    model: &impl Module,
    loss: impl Fn() -> Tensor + 'static,
) -> Result<Run> {
    let mut optimiser = Adam::new(1e-3).of(model);
    let mut step = move || {
        let loss = loss();
        optimiser.step(&loss).map(|()| loss)
    };
    let losses = (0..=steps).map(|_| step()?.item::<f32>()).collect::<Result<Vec<f32>>>()?;
    Ok(Run::of(format!("{:.6}->{:.6}", losses[0], losses[steps]), device, move || step().map(drop)))
}

fn mlp(batch: usize, device: &Device) -> Result<Run> {
    let model = Sequential::new()
        .then(linear(784, 512, 11, device))
        .then(Relu)
        .then(linear(512, 256, 12, device))
        .then(Relu)
        .then(linear(256, 10, 13, device));
    let model = Rc::new(model);
    let (x, y) = (tensor([batch, 784], 10, 1.0, device), labels(batch, device));
    let shared = model.clone();
    train(device, &*model, move || cross_entropy(&shared.forward(&x), &y))
}

fn cnn(device: &Device) -> Result<Run> {
    let (first, second) = (conv(1, 8, 21, device), conv(8, 16, 22, device));
    let output = linear(784, 10, 23, device);
    let pool = Pool::new(2);
    let (x, y) = (tensor([64, 1, 28, 28], 20, 1.0, device), labels(64, device));
    let model = Layers(vec![Box::new(first.clone()), Box::new(second.clone()), Box::new(output.clone())]);
    train(device, &model, move || {
        let h = first.forward(&x).relu().max_pool(&pool);
        let h = second.forward(&h).relu().max_pool(&pool);
        cross_entropy(&output.forward(&h.reshape([64, 784])), &y)
    })
}

/// Parts of a model, whose parameters are one optimiser's.
struct Layers(Vec<Box<dyn Module>>);

impl Module for Layers {
    fn visit(&self, walk: &mut Walk<'_>) {
        for (i, layer) in self.0.iter().enumerate() {
            walk.field(&i.to_string(), layer.as_ref());
        }
    }
}

/// One block: causal attention with four heads, and a network, each behind a layer norm and beside a residual.
fn transformer(device: &Device) -> Result<Run> {
    let (batch, length, width, heads) = (8, 128, 128, 4);
    let norm = || LayerNorm::new([width], &Init::new(0, device));
    let norms = [norm(), norm()];
    let [query, key, value, output] = [31, 32, 33, 34].map(|seed| linear(width, width, seed, device));
    let (up, down) = (linear(width, 4 * width, 35, device), linear(4 * width, width, 36, device));
    let (x, y) = (tensor([batch, length, width], 30, 1.0, device), tensor([batch, length, width], 37, 1.0, device));
    let mut parts: Vec<Box<dyn Module>> = norms.iter().map(|norm| Box::new(norm.clone()) as Box<dyn Module>).collect();
    parts.extend([&query, &key, &value, &output, &up, &down].map(|part| Box::new(part.clone()) as Box<dyn Module>));
    let causal = Attention::new().causal();
    train(device, &Layers(parts), move || {
        let split = |x: Tensor| x.reshape([batch, length, heads, width / heads]).permute([0, 2, 1, 3]);
        let z = norms[0].forward(&x);
        let [q, k, v] = [&query, &key, &value].map(|projection| split(projection.forward(&z)));
        let mixed = q.attention(&k, &v, &causal).permute([0, 2, 1, 3]).reshape([batch, length, width]);
        let r = &x + output.forward(&mixed);
        let z = down.forward(&up.forward(&norms[1].forward(&r)).gelu());
        mse_loss(&(r + z), &y)
    })
}

/// A line through 100 points: 1000 steps of gradient descent, with the loss read at every hundredth.
fn line(compiled: bool, device: &Device) -> Result<Run> {
    let x: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect();
    let y = x.iter().zip(values(100, 77, 0.1)).map(|(x, noise)| 3.0 * x + noise).collect();
    let x = Tensor::from_vec(x, [100, 1], device);
    let y = Tensor::from_vec(y, [100, 1], device);
    let on = device.clone();
    let run = move || if compiled { descend_compiled(&x, &y, &on) } else { descend(&x, &y, &on) };
    let check = format!("{:.6}", run()?);
    Ok(Run { whole: true, ..Run::of(check, device, move || run().map(drop)) })
}

fn descend(x: &Tensor, y: &Tensor, device: &Device) -> Result<f32> {
    let model = linear(1, 1, 41, device);
    let mut optimiser = Sgd::new(0.01).of(&model);
    let mut last = 0.0;
    for step in 1..=1000 {
        let loss = mse_loss(&model.forward(x), y);
        optimiser.step(&loss)?;
        if step % 100 == 0 {
            last = loss.item()?;
        }
    }
    Ok(last)
}

fn descend_compiled(x: &Tensor, y: &Tensor, device: &Device) -> Result<f32> {
    let model = linear(1, 1, 41, device);
    let mut state = [model.weight.tensor(), Tensor::zeros([1], device)];
    let step = compile(|state| {
        let loss = |p: &[Tensor]| mse_loss(&(x.matmul(&p[0].t()) + &p[1]), y);
        let (loss, gradients) = value_and_grad(loss, state)?;
        Ok(vec![&state[0] - &gradients[0] * 0.01, &state[1] - &gradients[1] * 0.01, loss])
    });
    let mut last = 0.0;
    for number in 1..=1000 {
        let [weight, bias, loss] = <[Tensor; 3]>::try_from(step.call(&state)?).expect("the step has three results");
        state = [weight, bias];
        if number % 100 == 0 {
            last = loss.item()?;
        }
    }
    Ok(last)
}

/// Real digits (`examples/data`): an installed program has no examples beside it.
const DIGITS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits-8x8.csv.gz"));

/// An epoch of the 1438 digits of 8×8 pixels that the examples train with, shuffled, in batches of 64. Checked by the loss, after
/// the first epoch, on the 359 others.
fn digits(device: &Device) -> Result<Run> {
    let options = CsvOptions { has_header: false, ..CsvOptions::default() };
    let table = Table::from_reader(DIGITS, "digits", &options).expect("the file is part of the program");
    let (test, train) = table.split_by(|row| row % 5 == 4);
    let tensors = |table: &Table| {
        let (pixels, digits) = table.split_column(64);
        let digits: Vec<i32> = digits.into_iter().map(|digit| digit as i32).collect();
        let count = digits.len();
        [pixels.to_tensor(device) / 16.0, Tensor::from_vec(digits, [count], device)]
    };
    let (data, [test_x, test_y]) = (TensorDataset::new(tensors(&train))?, tensors(&test));
    eval(data.tensors())?;
    let model = Sequential::new().then(linear(64, 64, 11, device)).then(Relu).then(linear(64, 10, 12, device));
    let model = Rc::new(model);
    let mut optimiser = Adam::new(1e-3).of(&*model);
    let (shared, mut epoch) = (model.clone(), 0);
    let mut run = move || -> Result<()> {
        epoch += 1;
        for [x, y] in data.batches(64).shuffled(Key::new(epoch)) {
            optimiser.step(&cross_entropy(&shared.forward(&x), &y))?;
        }
        Ok(())
    };
    run()?;
    let loss = no_grad(|| cross_entropy(&model.forward(&test_x), &test_y)).item::<f32>()?;
    Ok(Run::of(format!("{loss:.6}"), device, run))
}

/// Parameters of which an optimiser takes a step, in so many tensors.
const TENSORS: usize = 100;
const ELEMENTS: usize = 100_000;

/// A step of Adam with given gradients. They stay the same, so that both moments, once corrected, are the gradient and its square:
/// after three steps from zero, a parameter is −3 · 0.001 · g / (|g| + 10⁻⁸). Checked by the largest distance from this.
fn adam(device: &Device) -> Result<Run> {
    let zeros = || Param::new(Tensor::zeros([ELEMENTS], device));
    let model: Vec<Param> = (0..TENSORS).map(|_| zeros()).collect();
    let gradients: Vec<Tensor> = (0..TENSORS as u32).map(|i| tensor([ELEMENTS], 100 + i, 1.0, device)).collect();
    eval(&gradients)?;
    let mut optimiser = Adam::new(1e-3).of(&model);
    let mut step = move || optimiser.apply(gradients.clone());
    (0..3).try_for_each(|_| step())?;
    let mut worst = 0.0;
    for (i, parameter) in model.iter().enumerate() {
        let expected = values(ELEMENTS, 100 + i as u32, 1.0).into_iter().map(f64::from);
        for (got, g) in parameter.tensor().to_vec::<f32>()?.into_iter().zip(expected) {
            worst = worse(worst, (f64::from(got) + 3e-3 * g / (g.abs() + 1e-8)).abs());
        }
    }
    Ok(Run::of(format!("{worst:.1e}"), device, step))
}
