//! Training as a whole: losses of two precisions and of two devices agree, every parameter moves, memory stays flat, a
//! failed step changes nothing, and an optimiser's state can be saved and loaded.

#[path = "support/demos.rs"]
mod demos;
#[path = "support/devices.rs"]
mod devices;

use demos::{Digits, Losses, digits, digits_network, linear_regression, logistic_regression};
use devices::{devices, has, is_cpu, own_devices};
use gradus::nn::{Initializer, Module as _, Walk};
use gradus::prelude::*;
use gradus::train::OptimiserState;
use gradus::{Error, Result};

/// A network with everything that there is to train.
struct Everything {
    layers: Sequential,
    tied: Linear,
}

impl Module for Everything {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.field("layers", &self.layers);
        walk.field("tied", &self.tied);
    }
}

impl Everything {
    fn new(init: &Init) -> Everything {
        let tied = Linear::new(16, 16, init);
        let layers = Sequential::new()
            .then(Linear::new(64, 16, init))
            .then(Relu)
            .then(Dropout::new(0.2, init))
            .then(tied.clone())
            .then(Tanh)
            .then(Linear::without_bias(16, 16, init))
            .then(Gelu);
        Everything { layers, tied }
    }
}

impl Layer for Everything {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.tied.forward(&self.layers.forward(x)).slice(1, ..10)
    }
}

/// The first losses of a seeded run, as f64.
fn losses(device: &Device, dtype: DType, seed: u64, steps: usize) -> Result<Vec<f64>> {
    // Weights are drawn in f32, so that both precisions start at the same point.
    let narrow = Everything::new(&Init::new(seed, device));
    let wide = Everything::new(&Init::new(seed, device).dtype(dtype));
    for ((_, from), (_, to)) in narrow.parameters().into_iter().zip(wide.parameters()) {
        to.set(from.tensor().to_dtype(dtype))?;
    }
    // The masks of dropout are f32 draws in both.
    let data = digits(device, dtype)?;
    let mut optimiser = Adam::new(2e-2).of(&wide);
    let mut losses = Vec::new();
    for [x, y] in data.batches(32).shuffled(Key::new(seed)).take(steps) {
        let loss = cross_entropy(&wide.forward(&x), &y);
        optimiser.step(&loss)?;
        losses.push(loss.to_device(&Device::cpu()).to_dtype(DType::F64).item::<f64>()?);
    }
    Ok(losses)
}

#[test]
fn ten_losses_agree_between_f32_and_f64() -> Result<()> {
    let device = Device::cpu();
    let (narrow, wide) = (losses(&device, DType::F32, 5, 10)?, losses(&device, DType::F64, 5, 10)?);
    assert!(wide[9] < wide[0], "the loss falls: {wide:?}");
    for (step, (a, b)) in narrow.iter().zip(&wide).enumerate() {
        assert!((a - b).abs() <= 1e-4 * b.abs(), "loss {step}: {a} in f32, {b} in f64");
    }
    Ok(())
}

#[test]
fn a_network_of_f16_learns_as_one_of_f32() -> Result<()> {
    for device in devices().iter().filter(|device| has(device, DType::F16)) {
        let (narrow, wide) = (losses(device, DType::F16, 5, 30)?, losses(device, DType::F32, 5, 30)?);
        assert!(wide[29] < 0.5 * wide[0], "the loss falls: {wide:?}");
        for (step, (a, b)) in narrow.iter().zip(&wide).enumerate() {
            assert!((a - b).abs() <= 0.02 * wide[0], "loss {step}: {a} in f16, {b} in f32, on {device}");
        }
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_bits_whatever_the_number_of_threads() -> Result<()> {
    let bits = |threads| -> Result<Vec<u64>> {
        let device = Device::cpu_with(threads, None)?;
        Ok(losses(&device, DType::F32, 9, 30)?.into_iter().map(f64::to_bits).collect())
    };
    let one = bits(1)?;
    assert_eq!(one, bits(1)?);
    assert_eq!(one, bits(2)?);
    assert_eq!(one, bits(3)?);
    let device = Device::cpu_with(1, None)?;
    assert_ne!(one[0], losses(&device, DType::F32, 10, 1)?[0].to_bits());
    Ok(())
}

#[test]
fn ten_losses_agree_between_devices() -> Result<()> {
    let demos: [(&str, Losses); 3] = [
        ("linear regression", linear_regression),
        ("logistic regression", logistic_regression),
        ("digits", digits_network),
    ];
    let devices = devices();
    for (name, losses) in demos {
        let expected = losses(&devices[0], 10)?;
        assert!(expected[9] < expected[0], "{name}: the loss falls: {expected:?}");
        for device in &devices[1..] {
            for (step, (got, expected)) in losses(device, 10)?.into_iter().zip(&expected).enumerate() {
                let near = (got - expected).abs() <= 1e-4 * expected.abs();
                assert!(near, "{name}, loss {step}: {got} on {device}, {expected} on the CPU");
            }
        }
    }
    Ok(())
}

#[test]
fn a_network_learns_as_much_on_every_device() -> Result<()> {
    let accuracy = |device: &Device| -> Result<f32> {
        let mut network = Digits::new(42, device)?;
        for epoch in 0..8 {
            network.train(epoch, usize::MAX)?;
        }
        network.accuracy()
    };
    let accuracies = devices().iter().map(accuracy).collect::<Result<Vec<f32>>>()?;
    assert!(accuracies.iter().all(|a| *a > 96.0 && (a - accuracies[0]).abs() < 1.0), "{accuracies:?} %");
    Ok(())
}

#[test]
fn every_parameter_moves_after_one_step() -> Result<()> {
    for (device, rule) in devices().iter().flat_map(|device| ["sgd", "momentum", "adam"].map(|rule| (device, rule))) {
        let model = Everything::new(&Init::new(3, device));
        let before: Vec<(String, Vec<f32>)> = model
            .parameters()
            .into_iter()
            .map(|(path, p)| Ok((path, p.tensor().to_vec::<f32>()?)))
            .collect::<Result<_>>()?;
        let paths: Vec<&str> = before.iter().map(|(path, _)| path.as_str()).collect();
        // The tied layer comes once, under its first path.
        assert_eq!(paths, ["layers.0.weight", "layers.0.bias", "layers.3.weight", "layers.3.bias", "layers.5.weight"]);
        let mut optimiser = match rule {
            "sgd" => Sgd::new(0.1).of(&model),
            "momentum" => Sgd::new(0.1).momentum(0.9).nesterov().of(&model),
            _ => Adam::new(0.01).of(&model),
        };
        let data = digits(device, DType::F32)?;
        for [x, y] in data.batches(32).take(1) {
            optimiser.step(&cross_entropy(&model.forward(&x), &y))?;
        }
        for ((path, before), (_, after)) in before.iter().zip(model.parameters()) {
            assert_ne!(*before, after.tensor().to_vec::<f32>()?, "{path} did not move under {rule} on {device}");
        }
    }
    Ok(())
}

#[test]
fn memory_is_flat_over_thousands_of_steps() -> Result<()> {
    for device in own_devices(None) {
        let model = Everything::new(&Init::new(3, &device));
        let mut optimiser = Adam::new(1e-3).of(&model);
        let data = digits(&device, DType::F32)?;
        let mut total = Tensor::zeros([0; 0], &device);
        let mut after_warm_up = None;
        let mut step = 0;
        for epoch in 0..if is_cpu(&device) { 140 } else { 20 } {
            // A last, smaller batch comes too.
            for [x, y] in data.batches(64).shuffled(Key::new(epoch)) {
                let loss = cross_entropy(&model.forward(&x), &y);
                optimiser.step(&loss)?;
                // Never read: it must not keep the graphs of all steps.
                total = total + loss;
                step += 1;
            }
            if epoch == 1 {
                after_warm_up = Some(device.memory());
            }
        }
        let (early, late) = (after_warm_up.expect("there is an epoch 1"), device.memory());
        assert!(step > if is_cpu(&device) { 4000 } else { 500 });
        // Up to 4,096 additions of single numbers may wait to be computed; a GPU hands out memory in grains.
        let waiting = 2 * if is_cpu(&device) { 4096 * size_of::<f32>() } else { step * 256 };
        assert!(late.in_use <= early.in_use + waiting, "{late:?} after {step} steps, {early:?} at first, {device}");
        assert!(late.peak <= early.peak + waiting, "{late:?} after {step} steps, {early:?} at first, {device}");
        assert!(total.item::<f32>()? > 0.0);
    }
    Ok(())
}

#[test]
fn a_loss_can_be_read_after_its_step() -> Result<()> {
    for device in devices() {
        let model = Linear::from_tensors(Tensor::new([[1.0]], &device), None);
        let mut optimiser = Sgd::new(0.5).of(&model);
        let x = Tensor::new([[2.0]], &device);
        let y = model.forward(&x);
        let loss = y.square().sum(..);
        optimiser.step(&loss)?;
        // Both were computed with the weight from before the step.
        assert_eq!((loss.item::<f32>()?, y.item::<f32>()?), (4.0, 2.0));
        assert_eq!(model.weight.tensor().item::<f32>()?, 1.0 - 0.5 * 8.0);
    }
    Ok(())
}

#[test]
fn a_failed_step_changes_nothing() -> Result<()> {
    for device in devices() {
        let model = Sequential::new().then(Linear::new(3, 3, &Init::new(0, &device)));
        let mut optimiser = Adam::new(0.1).of(&model);
        let x = Tensor::ones([2, 3], &device);
        optimiser.step(&cross_entropy(&model.forward(&x), &Tensor::new([0, 2], &device)))?;
        let weights = || -> Result<Vec<Vec<f32>>> {
            model.parameters().iter().map(|(_, p)| p.tensor().to_vec::<f32>()).collect()
        };
        let before = weights()?;
        let bad: Error = optimiser.step(&cross_entropy(&model.forward(&x), &Tensor::new([0, 3], &device))).unwrap_err();
        assert!(bad.to_string().contains("index 3 is out of range for axis 1 of extent 3"), "{bad}");
        assert_eq!(weights()?, before, "on {device}");
        assert_eq!(optimiser.steps(), 1);
        // And training goes on.
        optimiser.step(&cross_entropy(&model.forward(&x), &Tensor::new([0, 1], &device)))?;
        assert_ne!(weights()?, before, "on {device}");
    }
    Ok(())
}

#[test]
fn a_parameter_that_the_loss_does_not_reach_is_named() -> Result<()> {
    let device = Device::cpu();
    let init = Init::new(0, &device);
    let model = vec![Linear::new(2, 2, &init), Linear::new(2, 2, &init)];
    let mut optimiser = Sgd::new(0.1).of(&model);
    let error = optimiser.step(&model[0].forward(&Tensor::ones([1, 2], &device)).sum(..)).unwrap_err().to_string();
    assert!(error.contains("the loss does not depend on 1.weight"), "{error}");
    Ok(())
}

#[test]
fn an_error_inside_a_model_names_the_layer() {
    let device = Device::cpu();
    let init = Init::new(0, &device);
    let model = Sequential::new()
        .then(Linear::new(4, 5, &init))
        .then(Sequential::new().then(Relu).then(Linear::new(6, 2, &init)));
    let error = model.forward(&Tensor::ones([3, 4], &device)).to_vec::<f32>().unwrap_err().to_string();
    assert!(error.contains("in module 1.1"), "{error}");
    assert!(error.contains("[3, 5]") && error.contains("[6, 2]"), "{error}");
}

#[test]
fn dropout_drops_in_training_only_and_by_its_seed() -> Result<()> {
    for device in devices() {
        let x = Tensor::ones([100, 100], &device);
        let layer = |seed| Dropout::new(0.25, &Init::new(seed, &device));
        let dropout = layer(1);
        let (first, second) = (dropout.forward(&x).to_vec::<f32>()?, dropout.forward(&x).to_vec::<f32>()?);
        assert_ne!(first, second, "each pass draws anew");
        assert_eq!(first, layer(1).forward(&x).to_vec::<f32>()?, "the seed decides");
        assert_ne!(first, layer(2).forward(&x).to_vec::<f32>()?);
        let kept = first.iter().filter(|&&v| v != 0.0).count();
        assert!((7300..7700).contains(&kept), "{kept} of 10000 kept");
        assert!(first.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
        dropout.eval();
        assert_eq!(dropout.forward(&x).to_vec::<f32>()?, x.to_vec::<f32>()?);
        dropout.train();
        assert_ne!(dropout.forward(&x).to_vec::<f32>()?, x.to_vec::<f32>()?);
        let error = Dropout::new(1.5, &Init::new(0, &device)).forward(&x).eval().unwrap_err().to_string();
        assert!(error.contains("p is 1.5, expected a probability in 0..=1"), "{error}");
    }
    Ok(())
}

#[test]
fn initialisers_have_their_moments() -> Result<()> {
    let device = Device::cpu();
    // Fans 200 and 300; mean, standard deviation and largest magnitude that the formulas give.
    let xavier = |gain: f64| gain * (2.0f64 / 500.0).sqrt();
    let he = 2f64.sqrt() / 200f64.sqrt();
    let root3 = 3f64.sqrt();
    let cases = [
        (Initializer::Zeros, 0.0, 0.0, 0.0),
        (Initializer::Ones, 1.0, 0.0, 1.0),
        (Initializer::Constant(-2.5), -2.5, 0.0, 2.5),
        (Initializer::Uniform { low: -1.0, high: 3.0 }, 1.0, 4.0 / 12f64.sqrt(), 3.0),
        (Initializer::Normal { mean: 0.5, std: 0.1 }, 0.5, 0.1, f64::INFINITY),
        (Initializer::XavierUniform { gain: 2.0 }, 0.0, xavier(2.0), xavier(2.0) * root3),
        (Initializer::XavierNormal { gain: 1.0 }, 0.0, xavier(1.0), f64::INFINITY),
        (Initializer::KaimingUniform { gain: 2f64.sqrt() }, 0.0, he, he * root3),
        (Initializer::KaimingNormal { gain: 2f64.sqrt() }, 0.0, he, f64::INFINITY),
    ];
    for (initializer, mean, std, largest) in cases {
        let weight = initializer.tensor([300, 200], Key::new(4), (&device, DType::F64));
        let (m, s) = (weight.mean(..).item::<f64>()?, weight.std(.., 0).item::<f64>()?);
        assert!((m - mean).abs() <= 0.02 * std + 1e-12, "{initializer:?}: mean {m}, expected {mean}");
        assert!((s - std).abs() <= 0.02 * std + 1e-12, "{initializer:?}: std {s}, expected {std}");
        let most = weight.abs().max(..).item::<f64>()?;
        assert!(most <= largest * (1.0 + 1e-12), "{initializer:?}: magnitude {most}, expected at most {largest}");
        let again = initializer.tensor([300, 200], Key::new(4), (&device, DType::F64));
        assert_eq!(weight.to_vec::<f64>()?, again.to_vec::<f64>()?, "{initializer:?} is seeded");
    }
    let error = Initializer::XavierNormal { gain: 1.0 }.tensor([7], Key::new(0), &device).eval().unwrap_err();
    assert!(error.to_string().contains("fans are not defined"), "{error}");
    Ok(())
}

#[test]
fn penalties_pull_towards_zero() -> Result<()> {
    let device = Device::cpu();
    let layer = Linear::from_tensors(Tensor::new([[3.0, -4.0]], &device), None);
    let value = |penalty: Option<Tensor>| penalty.expect("there is a weight").item::<f32>();
    assert_eq!(value(l1_penalty([&layer.weight]))?, 7.0);
    assert_eq!(value(l2_penalty([&layer.weight]))?, 25.0);
    let weight = layer.weight.tensor();
    let penalty = l1_penalty([&layer.weight]).expect("there is a weight");
    assert_eq!(grad(&penalty, [&weight])?[0].to_vec::<f32>()?, [1.0, -1.0]);
    assert!(l2_penalty([]).is_none());
    Ok(())
}

#[test]
fn an_optimiser_goes_on_from_a_loaded_state() -> Result<()> {
    for device in devices() {
        let target = Tensor::new([[0.5, -1.0, 2.0]], &device);
        let model = || Linear::from_tensors(Tensor::ones([1, 3], &device), None);
        let weights = |model: &Linear| model.weight.tensor().to_vec::<f32>();
        let rules: [fn(&Linear) -> Optimiser; 4] = [
            |model| Sgd::new(0.1).of(model),
            // The first step takes the gradient undamped, so that the number of steps matters.
            |model| Sgd::new(0.1).momentum(0.9).dampening(0.5).of(model),
            |model| Adam::new(0.1).of(model),
            |model| Adam::new(0.1).clip_value(1.0).decoupled_weight_decay(0.1).of(model),
        ];
        for rule in rules {
            let step = |model: &Linear, optimiser: &mut Optimiser| {
                optimiser.step(&(model.weight.tensor() - &target).square().sum(..))
            };
            let first = model();
            let mut optimiser = rule(&first);
            (0..3).try_for_each(|_| step(&first, &mut optimiser))?;
            optimiser.set_learning_rate(0.05);
            let (state, half) = (optimiser.state(), weights(&first)?);
            (0..3).try_for_each(|_| step(&first, &mut optimiser))?;

            let second = Linear::from_tensors(Tensor::from_vec(half, [1, 3], &device), None);
            let mut resumed = rule(&second);
            resumed.load_state(&state)?;
            assert_eq!((resumed.steps(), resumed.learning_rate()), (3, 0.05));
            (0..3).try_for_each(|_| step(&second, &mut resumed))?;
            assert_eq!(weights(&second)?, weights(&first)?, "on {device}");
            // A state is what it was when it was taken, and comes from any device.
            let on_cpu = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.to_device(&Device::cpu()));
            resumed.load_state(&OptimiserState { tensors: state.tensors.iter().map(on_cpu).collect(), ..state })?;
            assert_eq!(resumed.steps(), 3);
        }
    }
    Ok(())
}

#[test]
fn an_optimiser_refuses_a_state_that_is_not_its_own() -> Result<()> {
    let device = Device::cpu();
    let model = |width| Linear::without_bias(width, 1, &Init::new(0, &device));
    let (layer, wider) = (model(2), model(3));
    let mut optimiser = Adam::new(0.1).of(&layer);
    let cases = [
        (Sgd::new(0.1).of(&layer).state(), "none for 0.mean.weight"),
        (Adam::new(0.1).of(&[model(2), model(2)]).state(), "none for 0.mean.weight"),
        (Adam::new(0.1).of(&wider).state(), "the new value has shape [1, 3], expected [1, 2]"),
        (OptimiserState { tensors: Vec::new(), ..optimiser.state() }, "none for 0.mean.weight"),
    ];
    for (state, message) in cases {
        let error = optimiser.load_state(&OptimiserState { steps: 7, ..state }).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(optimiser.steps(), 0);
    }
    let error = Sgd::new(0.1).of(&layer).load_state(&optimiser.state()).unwrap_err().to_string();
    assert!(error.contains("0.mean.weight"), "{error}");
    Ok(())
}
