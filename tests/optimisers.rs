//! Every optimiser: it learns digits, its steps share their plan, and it goes on from a saved state with the same bits. Groups,
//! averages, SAM and L-BFGS.

#[path = "support/demos.rs"]
#[allow(dead_code)]
mod demos;
#[path = "support/devices.rs"]
mod devices;

use demos::digits;
use devices::{devices, is_cpu, own_devices};
use gradus::nn::Param;
use gradus::prelude::*;
use gradus::train::{
    AdaBelief, Adadelta, Adafactor, Adagrad, Adamax, AddDecayedWeights, ClipByNorm, ClipByValue, Cyclic, Ema, Group,
    Lamb, Lars, Lbfgs, LbfgsStatus, Lion, Lookahead, Momentum, NAdam, OneCycle, OptimiserState, Orthogonalise, Plateau,
    RAdam, RateOfMatrix, RmsProp, Rprop, Sam, ScaleBy, ScaleByLearningRate, ScheduleFree, ScheduleFreeAdamW,
    WeightAverage, Yogi,
};
use gradus::{Error, Result};

/// An optimiser by name.
struct Named {
    name: &'static str,
    of: fn(Vec<(String, Param)>) -> Optimiser,
}

/// All of them, with rates that suit a small network on digits.
const ALL: &[Named] = &[
    Named { name: "sgd", of: |p| Sgd::new(0.5).of_parameters(p) },
    Named { name: "momentum", of: |p| Sgd::new(0.1).momentum(0.9).dampening(0.1).weight_decay(1e-4).of_parameters(p) },
    Named { name: "nesterov", of: |p| Sgd::new(0.1).momentum(0.9).nesterov().clip_norm(5.0).of_parameters(p) },
    Named { name: "adam", of: |p| Adam::new(5e-3).of_parameters(p) },
    Named { name: "amsgrad", of: |p| Adam::new(5e-3).amsgrad().weight_decay(1e-4).of_parameters(p) },
    Named { name: "adam, nesterov", of: |p| Adam::new(5e-3).nesterov().clip_value(0.5).of_parameters(p) },
    Named { name: "adamw", of: |p| AdamW::new(5e-3).of_parameters(p) },
    Named { name: "nadam", of: |p| NAdam::new(5e-3).of_parameters(p) },
    Named { name: "radam", of: |p| RAdam::new(2e-2).of_parameters(p) },
    Named { name: "adamax", of: |p| Adamax::new(1e-2).of_parameters(p) },
    Named { name: "adabelief", of: |p| AdaBelief::new(5e-3).of_parameters(p) },
    Named { name: "yogi", of: |p| Yogi::new(1e-2).of_parameters(p) },
    Named { name: "rmsprop", of: |p| RmsProp::new(3e-3).of_parameters(p) },
    Named { name: "rmsprop, centred", of: |p| RmsProp::new(5e-4).centred().momentum(0.9).of_parameters(p) },
    Named { name: "adagrad", of: |p| Adagrad::new(5e-2).rate_decay(1e-4).of_parameters(p) },
    Named { name: "adadelta", of: |p| Adadelta::new(3.0).of_parameters(p) },
    Named { name: "adafactor", of: |p| Adafactor::new(5e-2).weight_decay(1e-3).of_parameters(p) },
    Named { name: "lion", of: |p| Lion::new(2e-3).weight_decay(1e-2).of_parameters(p) },
    Named { name: "lamb", of: |p| Lamb::new(1e-2).weight_decay(1e-3).of_parameters(p) },
    Named { name: "lars", of: |p| Lars::new(1.0).trust(5e-3).weight_decay(1e-4).of_parameters(p) },
    Named { name: "muon", of: |p| Muon::new(2e-2).adam(AdamW::new(5e-3)).of_parameters(p) },
    Named { name: "muon, like adam", of: |p| like_adam().of_parameters(p) },
    Named { name: "schedule-free", of: |p| ScheduleFreeAdamW::new(1e-2).of_parameters(p) },
    Named { name: "look-ahead", of: |p| Adam::new(1e-2).lookahead(5, 0.5).of_parameters(p) },
    Named { name: "agc", of: |p| Sgd::new(0.2).momentum(0.9).clip_adaptively(0.1).of_parameters(p) },
    Named { name: "own chain", of: own_chain },
    Named { name: "groups", of: in_groups },
    Named { name: "rprop", of: |p| Rprop::new(1e-3).of_parameters(p) },
];

fn like_adam() -> Muon {
    Muon::new(2e-2).rate_of_matrix(RateOfMatrix::LikeAdam).corrected().weight_decay(1e-2).adam_for("2.*")
}

fn own_chain(parameters: Vec<(String, Param)>) -> Optimiser {
    let decay = AddDecayedWeights { rate: Schedule::linear(1e-3, 0.0, 50) };
    Optimiser::of_parameters(
        parameters,
        1.0,
        vec![
            Box::new(ClipByNorm { limit: 2.0 }),
            Box::new(ClipByValue { limit: 0.5 }),
            Box::new(decay),
            Box::new(Ema::new(0.8)),
            Box::new(ScaleBy(Schedule::linear(0.1, 1.0, 20))),
            Box::new(ScaleByLearningRate),
        ],
    )
}

fn in_groups(parameters: Vec<(String, Param)>) -> Optimiser {
    let rule = Adam::new(5e-3).decoupled_weight_decay(1e-2).clip_norm(2.0).schedule(Schedule::cosine(400, 0.1));
    let rule = rule.group("*.bias", |adam| adam.decoupled_weight_decay(0.0).learning_rate(1e-2).schedule(1.0));
    rule.group(|path: &str| path == "2.weight", |adam| adam.betas(0.8, 0.99).clip_norm(1.0)).of_parameters(parameters)
}

/// A network for digits, and those to train and to test on.
struct Setting {
    model: Sequential,
    train: TensorDataset<2>,
    test: [Tensor; 2],
}

impl Setting {
    /// A plain network.
    fn new(seed: u64, device: &Device) -> Result<Setting> {
        let init = Init::new(seed, device);
        Setting::of(
            Sequential::new().then(Linear::new(64, 64, &init)).then(Relu).then(Linear::new(64, 10, &init)),
            device,
        )
    }

    /// One with dropout, which generalises better.
    fn with_dropout(seed: u64, device: &Device) -> Result<Setting> {
        let init = Init::new(seed, device);
        let hidden = Sequential::new().then(Dropout::new(0.1, &init)).then(Linear::new(64, 128, &init));
        let output = Sequential::new().then(Dropout::new(0.3, &init)).then(Linear::new(128, 10, &init));
        Setting::of(Sequential::new().then(hidden).then(Relu).then(output), device)
    }

    fn of(model: Sequential, device: &Device) -> Result<Setting> {
        let data = digits(device, DType::F32)?;
        let [x, y] = data.tensors();
        // Every fifth row is for the test.
        let rows: Vec<i32> = (0..x.shape()[0] as i32).collect();
        let part = |of_test: bool| -> Result<[Tensor; 2]> {
            let rows: Vec<i32> = rows.iter().copied().filter(|row| (row % 5 == 4) == of_test).collect();
            let index = Tensor::from_vec(rows.clone(), [rows.len()], device);
            let part = [x.index_select(0, &index), y.index_select(0, &index)];
            eval(&part)?;
            Ok(part)
        };
        Ok(Setting { model, train: TensorDataset::new(part(false)?)?, test: part(true)? })
    }

    fn loss(&self, [x, y]: &[Tensor; 2]) -> Tensor {
        CrossEntropy::new().label_smoothing(0.1).loss(&self.model.forward(x), y)
    }

    /// Some steps on one batch.
    fn steps(&self, optimiser: &mut Optimiser, count: usize) -> Result<()> {
        let [x, y] = self.train.tensors();
        let batch = [x.slice(0, ..32), y.slice(0, ..32)];
        eval(&batch)?;
        (0..count).try_for_each(|_| optimiser.step(&self.loss(&batch)))
    }

    /// The percentage of digits to test on that are told right.
    fn accuracy(&self) -> Result<f32> {
        let [x, y] = &self.test;
        self.model.eval();
        let right = no_grad(|| self.model.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..)).item::<f32>();
        self.model.train();
        Ok(100.0 * right?)
    }

    fn weights(&self) -> Result<Vec<f32>> {
        let weights = self.model.parameters().into_iter().map(|(_, p)| p.tensor().to_vec::<f32>());
        Ok(weights.collect::<Result<Vec<_>>>()?.concat())
    }

    fn set_weights(&self, weights: &[f32]) -> Result<()> {
        let mut rest = weights;
        for (_, parameter) in self.model.parameters() {
            let (own, others) = rest.split_at(parameter.shape().numel());
            let device = parameter.tensor().device().clone();
            parameter.set(Tensor::from_vec(own.to_vec(), parameter.shape(), &device))?;
            rest = others;
        }
        Ok(())
    }
}

#[test]
fn each_learns_digits() -> Result<()> {
    let mut failed = Vec::new();
    println!("{:<18} {:>8} {:>10}", "optimiser", "steps", "accuracy");
    for Named { name, of } in ALL {
        let setting = Setting::with_dropout(1, &Device::cpu())?;
        let mut optimiser = of(setting.model.parameters());
        if *name == "rprop" {
            // It compares the signs of gradients of the same examples.
            for _ in 0..150 {
                optimiser.step(&setting.loss(setting.train.tensors()))?;
            }
        } else {
            optimiser.set_schedule(Schedule::cosine(24 * 23, 0.05));
            for epoch in 0..24 {
                for batch in setting.train.batches(64).shuffled(Key::new(epoch)) {
                    optimiser.step(&setting.loss(&batch))?;
                }
            }
        }
        let accuracy = optimiser.evaluate(|| setting.accuracy())?;
        println!("{name:<18} {:>8} {accuracy:>8.2} %", optimiser.steps());
        if accuracy < 96.0 {
            failed.push((*name, accuracy));
        }
    }
    assert!(failed.is_empty(), "below 96 %: {failed:?}");
    Ok(())
}

#[test]
fn sam_and_lbfgs_learn_digits() -> Result<()> {
    let setting = Setting::with_dropout(1, &Device::cpu())?;
    let mut sam =
        Sam::new(Sgd::new(0.1).momentum(0.9).schedule(Schedule::cosine(24 * 23, 0.05)).of(&setting.model), 0.05);
    for epoch in 0..24 {
        for batch in setting.train.batches(64).shuffled(Key::new(epoch)) {
            sam.step(|| setting.loss(&batch))?;
        }
    }
    let accuracy = setting.accuracy()?;
    println!("sam                {:>8} {accuracy:>8.2} %", sam.optimiser().steps());
    assert!(accuracy >= 96.0, "SAM: {accuracy} %");

    let setting = Setting::new(1, &Device::cpu())?;
    let mut lbfgs = Lbfgs::new().of(&setting.model);
    let penalty = || l2_penalty(setting.model.parameters().iter().map(|(_, p)| p)).expect("there are weights");
    let progress = lbfgs.minimise(60, || setting.loss(setting.train.tensors()) + penalty() * 1e-4)?;
    let accuracy = setting.accuracy()?;
    println!("l-bfgs             {:>8} {accuracy:>8.2} %, {progress:?}", lbfgs.steps());
    assert!(accuracy >= 96.0, "L-BFGS: {accuracy} %");
    Ok(())
}

#[test]
fn steps_of_each_make_no_plans_and_few_kernels() -> Result<()> {
    for device in own_devices(None) {
        for Named { name, of } in ALL {
            let setting = Setting::new(1, &device)?;
            let mut optimiser = of(setting.model.parameters());
            setting.steps(&mut optimiser, 2)?;
            let before = device.stats();
            let steps = if is_cpu(&device) { 10 } else { 5 };
            setting.steps(&mut optimiser, steps)?;
            let after = device.stats();
            let made = (after.plans - before.plans, after.pipelines - before.pipelines);
            assert_eq!(made, (0, 0), "plans and pipelines made by {name} on {device}");
            assert_eq!(after.buffers - before.buffers, 0, "buffers made by {name} on {device}");
            let launches = (after.launches - before.launches) / steps as u64;
            // Four parameters: forward and backward take about ten, orthogonal momenta fifteen products each.
            let most = if name.starts_with("muon") { 75 } else { 36 };
            assert!(launches <= most, "{launches} launches for a step of {name} on {device}");
        }
    }
    Ok(())
}

#[test]
fn sam_averages_and_lbfgs_make_no_plans() -> Result<()> {
    for device in own_devices(None) {
        let setting = Setting::new(1, &device)?;
        let [x, y] = setting.train.tensors();
        let batch = [x.slice(0, ..32), y.slice(0, ..32)];
        eval(&batch)?;
        let mut sam = Sam::new(Sgd::new(0.1).momentum(0.9).of(&setting.model), 0.05);
        let mut average = WeightAverage::ema(&setting.model, 0.99).warm_up();
        let mut round = || -> Result<()> {
            sam.step(|| setting.loss(&batch))?;
            average.update()?;
            average.evaluate(|| setting.loss(&batch).item::<f32>()).map(|_| ())
        };
        round()?;
        round()?;
        let before = device.stats().plans;
        (0..5).try_for_each(|_| round())?;
        assert_eq!(device.stats().plans - before, 0, "SAM and an average on {device}");

        let mut lbfgs = Lbfgs::new().history(4).of(&setting.model);
        (0..3).try_for_each(|_| lbfgs.step(|| setting.loss(&batch)).map(|_| ()))?;
        let before = device.stats().plans;
        (0..6).try_for_each(|_| lbfgs.step(|| setting.loss(&batch)).map(|_| ()))?;
        assert_eq!(device.stats().plans - before, 0, "L-BFGS on {device}");
    }
    Ok(())
}

#[test]
fn each_goes_on_from_a_saved_state_with_the_same_bits() -> Result<()> {
    for device in devices() {
        for Named { name, of } in ALL {
            let setting = Setting::new(1, &device)?;
            let mut whole = of(setting.model.parameters());
            setting.steps(&mut whole, 5)?;
            let (weights, state) = (setting.weights()?, whole.state());
            setting.steps(&mut whole, 5)?;
            let expected = setting.weights()?;

            let resumed = Setting::new(2, &device)?;
            resumed.set_weights(&weights)?;
            let mut second = of(resumed.model.parameters());
            second.load_state(&state)?;
            assert_eq!(second.steps(), 5);
            resumed.steps(&mut second, 5)?;
            let got = resumed.weights()?;
            let apart = got.iter().zip(&expected).filter(|(a, b)| a != b);
            let most = apart.clone().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(got == expected, "{name} on {device}: {} weights differ, by {most:e} at most", apart.count());
            // A state that was forgotten would show: without it the bits differ.
            if !state.tensors.is_empty() {
                let fresh = Setting::new(2, &device)?;
                fresh.set_weights(&weights)?;
                fresh.steps(&mut of(fresh.model.parameters()), 5)?;
                assert!(fresh.weights()? != expected, "{name} on {device}");
            }
        }
    }
    Ok(())
}

#[test]
fn sam_averages_and_lbfgs_go_on_from_their_states() -> Result<()> {
    let device = Device::cpu();
    let (setting, resumed) = (Setting::new(1, &device)?, Setting::new(2, &device)?);
    let loss = |setting: &Setting| setting.loss(&setting.test);
    let mut lbfgs = Lbfgs::new().history(3).of(&setting.model);
    let mut average = WeightAverage::mean(&setting.model);
    let step = |setting: &Setting, lbfgs: &mut gradus::train::LbfgsOptimiser, average: &mut WeightAverage| {
        lbfgs.step(|| loss(setting))?;
        average.update()
    };
    (0..5).try_for_each(|_| step(&setting, &mut lbfgs, &mut average))?;
    let (weights, state, averaged) = (setting.weights()?, lbfgs.state(), average.state());
    (0..5).try_for_each(|_| step(&setting, &mut lbfgs, &mut average))?;

    resumed.set_weights(&weights)?;
    let mut second = Lbfgs::new().history(3).of(&resumed.model);
    second.load_state(&state)?;
    let mut other = WeightAverage::mean(&resumed.model);
    other.load_state(&averaged)?;
    (0..5).try_for_each(|_| step(&resumed, &mut second, &mut other))?;
    assert_eq!((second.steps(), other.updates()), (10, 10));
    assert!(resumed.weights()? == setting.weights()?);
    average.apply()?;
    other.apply()?;
    assert!(resumed.weights()? == setting.weights()?);
    // A longer history does not fit, nor does one of other parameters.
    assert!(Lbfgs::new().history(2).of(&resumed.model).load_state(&state).is_err());
    let small = Linear::new(2, 2, &Init::new(0, &device));
    assert!(Lbfgs::new().of(&small).load_state(&state).is_err());
    assert!(WeightAverage::mean(&small).load_state(&averaged).is_err());
    Ok(())
}

#[test]
fn groups_have_their_own_settings() -> Result<()> {
    let device = Device::cpu();
    let layer = || Linear::from_tensors(Tensor::new([[1.0]], &device), Some(Tensor::new([1.0], &device)));
    let model = vec![layer(), layer()];
    let rule = Sgd::new(0.5).weight_decay(0.25);
    let rule = rule.group("*.bias", |sgd| sgd.weight_decay(0.0));
    let rule = rule.group("1.**", |sgd| sgd.learning_rate(0.125).schedule(Schedule::step(1, 0.5)));
    let mut optimiser = rule.of(&model);
    assert_eq!(optimiser.learning_rates(), [0.5, 0.125, 0.5]);
    let ones = || (0..4).map(|i| Tensor::ones(if i % 2 == 0 { vec![1, 1] } else { vec![1] }, &device)).collect();
    let values = || -> Result<Vec<f32>> { model.parameters().iter().map(|(_, p)| p.tensor().item()).collect() };
    optimiser.apply(ones())?;
    // Weights, decayed; biases are in the first group, also that of layer 1.
    assert_eq!(values()?, [1.0 - 0.5 * 1.25, 0.5, 1.0 - 0.125 * 1.25, 0.5]);
    assert_eq!(optimiser.next_learning_rates(), [0.5, 0.0625, 0.5]);
    optimiser.set_learning_rates(&[0.0, 0.0, 1.0]);
    optimiser.apply(ones())?;
    assert_eq!(values()?, [0.375 - (1.0 + 0.25 * 0.375), 0.5, 0.84375, 0.5]);

    let mut plateau = Plateau::falling().patience(0).factor(0.5);
    assert!(!plateau.reduce(1.0, &mut optimiser));
    assert!(plateau.reduce(1.0, &mut optimiser));
    assert_eq!(optimiser.learning_rates(), [0.0, 0.0, 0.5]);

    // What is in no group stays; a common norm is of all, whatever their group.
    let model = vec![layer(), layer()];
    let chain = || -> Vec<Box<dyn gradus::train::Transform>> { vec![Box::new(ScaleByLearningRate)] };
    let shared: Vec<Box<dyn gradus::train::Transform>> = vec![Box::new(ClipByNorm { limit: 1.0 })];
    let groups = vec![Group::of_paths("0.weight", 1.0, chain()), Group::of_paths("1.**", 2.0, chain())];
    let mut optimiser = Optimiser::with_groups(model.parameters(), shared, groups);
    assert_eq!(optimiser.parameters().len(), 3);
    let gradient = |value: f32, shape: &[usize]| Tensor::full(shape, value, &device);
    optimiser.apply(vec![gradient(2.0, &[1, 1]), gradient(4.0, &[1, 1]), gradient(4.0, &[1])])?;
    let found: Vec<f32> = model.parameters().iter().map(|(_, p)| p.tensor().item()).collect::<Result<_>>()?;
    let expected = [1.0 - 2.0 / 6.0, 1.0, 1.0 - 2.0 * 4.0 / 6.0, 1.0 - 2.0 * 4.0 / 6.0];
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, expected {expected:?}");
    Ok(())
}

#[test]
fn a_state_of_other_groups_or_numbers_is_refused() -> Result<()> {
    let layer = Linear::new(2, 1, &Init::new(0, &Device::cpu()));
    let mut nadam = NAdam::new(0.1).of(&layer);
    let state = nadam.state();
    assert_eq!(state.numbers, [("0.0.momentum_product".to_string(), 1.0)]);
    let refused = |nadam: &mut Optimiser, state: OptimiserState, message: &str| {
        let error: Error = nadam.load_state(&state).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(nadam.steps(), 0);
    };
    let base = OptimiserState { steps: 3, ..state.clone() };
    refused(&mut nadam, OptimiserState { numbers: vec![], ..base.clone() }, "none for 0.0.momentum_product");
    let more = [state.numbers.clone(), vec![("1.0.x".into(), 0.0)]].concat();
    refused(&mut nadam, OptimiserState { numbers: more, ..base.clone() }, "1.0.x");
    refused(&mut nadam, OptimiserState { learning_rates: vec![0.1; 2], ..base.clone() }, "2 for 1 groups");
    nadam.load_state(&base)?;
    assert_eq!(nadam.steps(), 3);
    Ok(())
}

#[test]
fn schedules_move_rates_and_momenta() -> Result<()> {
    let device = Device::cpu();
    let parameter = Param::new(Tensor::new([0.0], &device));
    let cycle = OneCycle::new(4).rise(0.5).from_to(0.5, 0.25).linear();
    let rule = Sgd::new(1.0).momentum(cycle.momentum(0.5, 1.0)).schedule(cycle.rate());
    let mut optimiser = rule.of(&parameter);
    // By hand: rates 0.5, 1, 0.625, 0.25 and momenta 1, 0.5, 0.75, 1, for gradients of 1.
    let (mut p, mut v) = (0.0, 0.0);
    for (rate, momentum) in [(0.5, 1.0), (1.0, 0.5), (0.625, 0.75), (0.25, 1.0)] {
        optimiser.apply(vec![Tensor::ones([1], &device)])?;
        v = v * momentum + 1.0;
        p -= rate * v;
        assert_eq!(parameter.tensor().item::<f32>()?, p);
    }
    optimiser.set_schedule(Cyclic::new(0.0, 1.0, 2).schedule());
    assert_eq!(optimiser.next_learning_rates(), [0.0]);
    Ok(())
}

#[test]
fn a_failed_step_of_each_changes_nothing() -> Result<()> {
    let device = Device::cpu();
    for Named { name, of } in ALL {
        let setting = Setting::new(1, &device)?;
        let mut optimiser = of(setting.model.parameters());
        setting.steps(&mut optimiser, 3)?;
        let (weights, state) = (setting.weights()?, optimiser.state());
        let numbers = |state: &OptimiserState| state.numbers.clone();
        let bad = [setting.test[0].slice(0, ..2), Tensor::new([0, 10], &device)];
        assert!(optimiser.step(&setting.loss(&bad)).is_err());
        assert!(setting.weights()? == weights, "{name}");
        assert_eq!((optimiser.steps(), numbers(&optimiser.state())), (3, numbers(&state)), "{name}");
        for ((path, before), (_, after)) in state.tensors.iter().zip(optimiser.state().tensors) {
            assert!(before.to_vec::<f32>()? == after.to_vec::<f32>()?, "{name}: {path}");
        }
    }
    let setting = Setting::new(1, &device)?;
    let before = setting.weights()?;
    let mut sam = Sam::new(Sgd::new(0.1).of(&setting.model), 0.05);
    let mut calls = 0;
    let result = sam.step(|| {
        calls += 1;
        let label = if calls == 1 { 0 } else { 10 };
        setting.loss(&[setting.test[0].slice(0, ..1), Tensor::new([label], &device)])
    });
    assert!(result.is_err() && calls == 2);
    assert!(setting.weights()? == before);
    let mut lbfgs = Lbfgs::new().of(&setting.model);
    let mut calls = 0;
    let result = lbfgs.step(|| {
        calls += 1;
        let label = if calls < 3 { 0 } else { 10 };
        // The first step is too short to be enough, so that there is a third call.
        setting.loss(&[setting.test[0].slice(0, ..1), Tensor::new([label], &device)]) * 1e-3
    });
    assert!(result.is_err(), "{result:?} after {calls} calls");
    assert!(setting.weights()? == before);
    Ok(())
}

#[test]
fn lbfgs_finds_the_minimum_of_rosenbrocks_valley() -> Result<()> {
    for device in devices() {
        let parameter = Param::new(Tensor::new([-1.2, 1.0], &device));
        let loss = || {
            let point = parameter.tensor();
            let (x, y) = (point.select_index(0, 0), point.select_index(0, 1));
            (&x - 1.0).square() + (y - x.square()).square() * 100.0
        };
        let mut lbfgs = Lbfgs::new().gradient_tolerance(1e-4).change_tolerance(0.0).of(&parameter);
        let progress = lbfgs.minimise(60, loss)?;
        let found = parameter.tensor().to_vec::<f32>()?;
        assert!(found.iter().all(|x| (x - 1.0).abs() < 2e-3), "{found:?} after {progress:?} on {device}");
        assert!(progress.evaluations < 120, "{progress:?}");
        assert!(lbfgs.steps() < 60 && progress.state != LbfgsStatus::Descending, "{progress:?}");
        // A loss that is no number stops it, and leaves the parameters.
        let stalled = Lbfgs::new().of(&parameter).step(|| parameter.tensor().sum(..) * f64::NAN)?;
        assert_eq!(stalled.state, LbfgsStatus::Stalled);
        assert_eq!(parameter.tensor().to_vec::<f32>()?, found);
    }
    Ok(())
}

#[test]
fn averages_are_what_their_formulas_say() -> Result<()> {
    for device in devices() {
        let parameter = Param::new(Tensor::new([4.0, -4.0], &device));
        let (mut ema, mut warm) = (WeightAverage::ema(&parameter, 0.5), WeightAverage::ema(&parameter, 0.5).warm_up());
        let mut mean = WeightAverage::mean(&parameter);
        let mut expected = [0.0f64; 3];
        for number in 1..=6 {
            let value = f64::from(number * number);
            parameter.set(Tensor::new([value as f32, -value as f32], &device))?;
            let n = f64::from(number);
            let keep = [0.5, 0.5f64.min(n / (n + 9.0)), (n - 1.0) / n];
            for (average, keep) in expected.iter_mut().zip(keep) {
                *average = if number == 1 { value } else { *average * keep + value * (1.0 - keep) };
            }
            [&mut ema, &mut warm, &mut mean].into_iter().try_for_each(WeightAverage::update)?;
        }
        for (average, expected) in [&ema, &warm, &mean].into_iter().zip(expected) {
            let found = average.evaluate(|| parameter.tensor().to_vec::<f32>())?;
            assert!((f64::from(found[0]) - expected).abs() < 1e-5, "{found:?}, expected {expected}, on {device}");
            assert_eq!(found[1], -found[0]);
            assert_eq!(parameter.tensor().to_vec::<f32>()?, [36.0, -36.0]);
        }
    }
    Ok(())
}

#[test]
fn extreme_gradients_leave_finite_weights() -> Result<()> {
    for device in devices() {
        for Named { name, of } in ALL {
            // Zeros first, so that sizes are zero too, then the least and the largest numbers that squares have.
            let layer = Linear::from_tensors(Tensor::zeros([3, 2], &device), Some(Tensor::ones([3], &device)));
            let mut optimiser = of(layer.parameters());
            for value in [0.0, 0.0, 1e-30, 0.0, 1e15, -1e15] {
                let full = |shape: &[usize]| Tensor::full(shape, value, &device);
                optimiser.apply(vec![full(&[3, 2]), full(&[3])])?;
                for (path, parameter) in layer.parameters() {
                    let found = parameter.tensor().to_vec::<f32>()?;
                    assert!(found.iter().all(|x| x.is_finite()), "{name}, {path}: {found:?} after {value} on {device}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn clipping_by_norm_of_units() -> Result<()> {
    for device in devices() {
        let layer = Linear::from_tensors(Tensor::new([[3.0, 4.0], [0.0, 0.0]], &device), None);
        let mut optimiser = Sgd::new(1.0).clip_adaptively(0.1).of(&layer);
        optimiser.apply(vec![Tensor::new([[0.0, 2.0], [0.3, 0.0]], &device)])?;
        // The first row may move by a tenth of 5, the second by a tenth of 0.001.
        let found = layer.weight.tensor().to_vec::<f32>()?;
        let expected = [3.0, 4.0 - 0.5, -1e-4, 0.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} on {device}");
        let mut momentum = Optimiser::new(&layer, 1.0, vec![Box::new(Momentum::new(0.5, 0.0, false))]);
        momentum.apply(vec![Tensor::zeros([2, 2], &device)])?;
        assert_eq!(layer.weight.tensor().to_vec::<f32>()?, found);
    }
    Ok(())
}

#[test]
fn steps_without_finite_gradients_are_skipped() -> Result<()> {
    for device in devices() {
        let mut all = ALL.iter().map(|named| (named.name, named.of));
        // On GPUs kernels take long to make.
        let count = if is_cpu(&device) { ALL.len() } else { 4 };
        for (name, of) in all.by_ref().take(count) {
            let setting = Setting::new(1, &device)?;
            let mut optimiser = of(setting.model.parameters());
            optimiser.skip_non_finite(true);
            setting.steps(&mut optimiser, 3)?;
            let (weights, state) = (setting.weights()?, optimiser.state());
            for (number, bad) in [f64::NAN, f64::INFINITY].into_iter().enumerate() {
                optimiser.step(&(setting.loss(&setting.test) * bad))?;
                assert!(setting.weights()? == weights, "{name} on {device}");
                assert_eq!(optimiser.skipped_steps()?, number as u64 + 1, "{name} on {device}");
                let kept = state.tensors.iter().zip(optimiser.state().tensors);
                for ((path, before), (_, after)) in kept.filter(|((path, _), _)| path != "skipped_steps") {
                    assert!(before.to_vec::<f32>()? == after.to_vec::<f32>()?, "{name}: {path}");
                }
            }
            setting.steps(&mut optimiser, 1)?;
            assert!(setting.weights()? != weights, "{name} on {device}");
        }
    }
    Ok(())
}

#[test]
fn accumulated_gradients_are_those_of_the_whole() -> Result<()> {
    for device in own_devices(None) {
        let (whole, parts) = (Setting::new(1, &device)?, Setting::new(1, &device)?);
        let (mut first, mut second) = (Adam::new(1e-2).of(&whole.model), Adam::new(1e-2).of(&parts.model));
        let batch = |setting: &Setting, range: std::ops::Range<isize>| {
            let [x, y] = setting.train.tensors();
            [x.slice(0, range.clone()), y.slice(0, range)]
        };
        assert!(second.step_accumulated().is_err());
        let mut before = device.stats().plans;
        for step in 0..6 {
            first.step(&whole.loss(&batch(&whole, 0..64)))?;
            for part in 0..4 {
                second.accumulate(&parts.loss(&batch(&parts, part * 16..(part + 1) * 16)))?;
            }
            second.step_accumulated()?;
            if step > 2 {
                assert_eq!(device.stats().plans, before, "plans made by step {step} on {device}");
            }
            before = device.stats().plans;
        }
        let (expected, found) = (whole.weights()?, parts.weights()?);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "on {device}");
        assert!(second.step_accumulated().is_err(), "nothing is left");
        assert_eq!(second.steps(), 6);
    }
    Ok(())
}

#[test]
fn links_without_golden_numbers_are_what_their_formulas_say() -> Result<()> {
    fn is_send<T: Send>() {}
    is_send::<Optimiser>();
    for device in devices() {
        let chain = |link: Box<dyn gradus::train::Transform>, rate: f64| {
            let parameter = Param::new(Tensor::new([8.0, -8.0], &device));
            let optimiser = Optimiser::new(&parameter, rate, vec![Box::new(ScaleByLearningRate), link]);
            (parameter, optimiser)
        };
        let near = |tensor: Tensor, expected: f64, what: &str| -> Result<()> {
            let found = tensor.to_vec::<f32>()?;
            assert!(
                (f64::from(found[0]) - expected).abs() < 1e-5,
                "{what}: {found:?}, expected {expected}, on {device}"
            );
            assert_eq!(found[1], -found[0], "{what} on {device}");
            Ok(())
        };
        // Gradients that grow by one at each step.
        let gradient = |step: u32| Tensor::new([f64::from(step), -f64::from(step)], &device);

        let (parameter, mut optimiser) = chain(Box::new(Lookahead::new(3, 0.25)), 0.1);
        let (mut fast, mut slow) = (8.0, 8.0);
        for step in 1..=7 {
            optimiser.apply(vec![gradient(step)])?;
            fast -= 0.1 * f64::from(step);
            if step % 3 == 0 {
                slow += 0.25 * (fast - slow);
                fast = slow;
            }
            near(parameter.tensor(), fast, "look-ahead")?;
            optimiser.evaluate(|| near(parameter.tensor(), slow, "slow weights"))?;
            near(parameter.tensor(), fast, "look-ahead after evaluation")?;
        }

        let (parameter, mut optimiser) = chain(Box::new(ScheduleFree::new(0.75, 2.0)), 0.1);
        // At a constant rate the average is the plain mean of z.
        let (mut z, mut sum) = (8.0, 0.0);
        for step in 1..=6 {
            optimiser.apply(vec![gradient(step)])?;
            z -= 0.1 * f64::from(step);
            sum += z;
            let average = sum / f64::from(step);
            near(parameter.tensor(), 0.75 * average + 0.25 * z, "schedule-free")?;
            optimiser.evaluate(|| near(parameter.tensor(), average, "average"))?;
        }

        let (parameter, mut optimiser) = chain(Box::new(Ema::new(0.5)), 1.0);
        let (mut weight, mut mean) = (8.0, 0.0);
        for step in 1..=4 {
            optimiser.apply(vec![gradient(step)])?;
            mean = 0.5 * mean - 0.5 * f64::from(step);
            weight += mean / (1.0 - 0.5_f64.powi(step as i32));
            near(parameter.tensor(), weight, "mean of updates")?;
        }

        // An orthogonal momentum has singular values near 1, whatever the gradient's.
        let matrix = Param::new(Tensor::zeros([6, 3], &device));
        let link = Orthogonalise::new(0.9).rate(RateOfMatrix::LikeAdam).iterations(8);
        let mut optimiser = Optimiser::new(&matrix, 1.0, vec![Box::new(link)]);
        optimiser.apply(vec![Tensor::randn([6, 3], Key::new(3), &device)])?;
        let update = matrix.tensor() / (0.2 * 6.0_f64.sqrt());
        let gram = update.t().matmul(&update).to_vec::<f32>()?;
        for (place, value) in gram.into_iter().enumerate() {
            let range = if place % 4 == 0 { 0.4..1.5 } else { -0.3..0.3 };
            assert!(range.contains(&value), "{value} at {place} of the Gram matrix on {device}");
        }
    }
    Ok(())
}
