//! Steps that are run by an earlier recording have the bits of recorded ones, whatever changes between them; and what could not
//! be run so is recorded.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, is_cpu, own_devices, own_tunings};
use gradus::prelude::*;
use gradus::tensor::graph::{NodeRef, Routine};
use gradus::{Cell, Error, ErrorKind, Result, Rng, checkpoint, custom_gradient};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Nodes are counted by their ids, which all tests share: they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Convolution, batch norm with its running statistics, dropout: what keeps state, draws keys, and overwrites.
struct Net {
    model: Sequential,
    optimiser: Optimiser,
    batches: [[Tensor; 2]; 2],
}

impl Net {
    fn new(device: &Device) -> Result<Net> {
        let init = Init::new(3, device);
        let model = Sequential::new()
            .then(Conv2d::new(1, 4, 3, &init))
            .then(BatchNorm::new(4, &init))
            .then(Relu)
            .then(Flatten)
            .then(Dropout::new(0.3, &init))
            .then(Linear::new(4 * 4 * 4, 3, &init));
        let rule = AdamW::new(1e-2).clip_norm(1.0).schedule(Schedule::cosine(30, 0.1));
        let optimiser = rule.group("*.bias", |adam| adam.weight_decay(0.0)).of(&model);
        let batch = |rows: usize, seed| {
            let x = Tensor::randn([rows, 1, 6, 6], Key::new(seed), device);
            let y = Tensor::from_vec((0..rows as i32).map(|row| row % 3).collect::<Vec<_>>(), [rows], device);
            eval(&[x.clone(), y.clone()]).map(|()| [x, y])
        };
        Ok(Net { model, optimiser, batches: [batch(6, 1)?, batch(4, 2)?] })
    }

    /// Step number `step`, with everything that may change from one to the next.
    fn step(&mut self, step: usize) -> Result<f32> {
        // The last batch of an epoch is smaller.
        let [x, y] = &self.batches[usize::from(step % 4 == 3)];
        if step == 7 {
            self.optimiser.set_learning_rate(0.0);
        }
        if step == 8 {
            self.optimiser.set_learning_rate(3e-2);
        }
        if step % 5 == 4 {
            self.model.eval();
        }
        let (logits, held) = (self.model.forward(x), self.model.parameters()[0].1.tensor());
        let loss = cross_entropy(&logits, y) * (1.0 + step as f64);
        if step == 9 {
            // A loss that is there already has no graph to look for.
            loss.eval()?;
        }
        // Now and then the old weights must outlive the step.
        let held = step.is_multiple_of(3).then_some(held);
        let before = held.as_ref().map(|held| held.to_vec::<f32>()).transpose()?;
        self.optimiser.step(&loss)?;
        if let (Some(held), Some(before)) = (held, before) {
            assert_eq!(held.to_vec::<f32>()?, before, "step {step}: what is held keeps its value");
        }
        self.model.train();
        // Logits were asked for with the step, and those of a dropout are drawn but once.
        let sum = logits.sum(..).item::<f32>()?;
        assert!(sum.is_finite());
        Ok(loss.item::<f32>()? + sum)
    }

    fn state(&self) -> Result<Vec<Vec<f32>>> {
        let mut state = Vec::new();
        for (_, tensor) in self.model.state_dict() {
            state.push(tensor.to_dtype(DType::F32).to_vec::<f32>()?);
        }
        for (_, tensor) in self.optimiser.state().tensors {
            state.push(tensor.to_vec::<f32>()?);
        }
        Ok(state)
    }
}

/// The nodes that `body` records.
fn recorded_by(device: &Device, body: impl FnOnce() -> Result<()>) -> Result<u64> {
    let id = || NodeRef::new(&Tensor::zeros([], device)).map(|node| node.id());
    let before = id()?;
    body()?;
    Ok(id()? - before - 1)
}

#[test]
fn steps_have_the_bits_of_recorded_ones() -> Result<()> {
    let _alone = alone();
    for device in own_devices(None) {
        let (mut run, mut recorded) = (Net::new(&device)?, Net::new(&device)?);
        let mut known = Vec::new();
        for step in 0..20 {
            let (mut loss, mut expected) = (0.0, 0.0);
            let nodes = recorded_by(&device, || run.step(step).map(|value| loss = value))?;
            // While a profile is made, every step is recorded.
            let all =
                recorded_by(&device, || device.profile(|| recorded.step(step)).map(|(value, _)| expected = value))?;
            assert_eq!(loss.to_bits(), expected.to_bits(), "step {step} on {device}");
            assert!(run.state()? == recorded.state()?, "step {step} on {device}");
            if nodes < all / 2 {
                known.push(step);
            }
        }
        // Of each kind of graph (whole batches, with weights held and without, small ones, evaluation) two are recorded first.
        assert_eq!(known, [5, 8, 10, 13, 16, 17, 18], "{device}");
    }
    Ok(())
}

#[test]
fn known_steps_record_their_forward_pass_alone() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, None)?;
    let init = Init::new(0, &device);
    let model = Sequential::new().then(Linear::new(4, 8, &init)).then(Relu).then(Linear::new(8, 2, &init));
    let mut optimiser = Adam::new(1e-3).of(&model);
    let x = Tensor::randn([3, 4], Key::new(0), &device);
    let y = Tensor::new([0, 1, 1], &device);
    eval(&[x.clone(), y.clone()])?;
    let loss = || cross_entropy(&model.forward(&x), &y);
    let forward = recorded_by(&device, || NodeRef::new(&loss()).map(drop))?;
    let mut steps = Vec::new();
    for _ in 0..5 {
        steps.push(recorded_by(&device, || optimiser.step(&loss()))?);
    }
    // A leaf for each of four parameters and eight moments.
    assert_eq!(steps[2..], [forward + 12; 3], "{steps:?}");
    assert!(steps[1] > 3 * forward, "{steps:?}");
    Ok(())
}

/// Gradients that are there already, still to be computed, or given to two parameters; on GPUs, updates of many tensors are
/// launched together, but not while a profile is made.
#[test]
fn steps_with_given_gradients_have_the_bits_of_recorded_ones() -> Result<()> {
    const SIZES: [usize; 12] = [4, 4, 1, 3, 100, 1025, 64, 4, 4096, 7, 100, 12];
    let _alone = alone();
    for device in own_tunings() {
        let random = |size: usize, seed: u64| Tensor::randn([size], Key::new(seed), &device);
        let new = || -> Result<(Vec<Param>, Optimiser)> {
            let parameters: Vec<Param> = SIZES.iter().map(|&size| Param::new(random(size, size as u64))).collect();
            let optimiser = AdamW::new(1e-2).schedule(Schedule::cosine(30, 0.1)).of(&parameters);
            Ok((parameters, optimiser))
        };
        let ((weights, mut run), (expected, mut recorded)) = (new()?, new()?);
        let (mut known, mut launches) = (Vec::new(), Vec::new());
        for step in 0..16 {
            let sizes = SIZES.iter().enumerate();
            let mut given: Vec<Tensor> = sizes.map(|(i, &size)| random(size, (100 * step + i) as u64)).collect();
            eval(&given)?;
            match step % 4 {
                2 => given.iter_mut().for_each(|gradient| *gradient = &*gradient * 2.0),
                3 => given[1] = given[0].clone(),
                _ => {}
            }
            let before = device.stats().launches;
            let nodes = recorded_by(&device, || run.apply(given.clone()))?;
            launches.push(device.stats().launches - before);
            let all = recorded_by(&device, || device.profile(|| recorded.apply(given)).map(drop))?;
            for (i, (weight, expected)) in weights.iter().zip(&expected).enumerate() {
                let [got, expected] = [weight, expected].map(|param| param.tensor().to_vec::<f32>());
                assert!(got? == expected?, "parameter {i} after step {step} on {device}");
            }
            if nodes < all / 2 {
                known.push(step);
            }
        }
        // Of each kind two are recorded first, and so is the very first step, before which parameters have no values.
        assert_eq!(known, [5, 8, 9, 10, 11, 12, 13, 14, 15], "{device}");
        let most = if is_cpu(&device) { SIZES.len() } else { SIZES.len() - 3 };
        assert!(launches[12] <= most as u64, "{launches:?} launches on {device}");
    }
    Ok(())
}

#[test]
fn what_a_rule_captures_is_looked_at_each_time() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, None)?;
    let weight = Param::new(Tensor::new([0.0], &device));
    let mut optimiser = Sgd::new(1.0).of_parameters(vec![("w".into(), weight.clone())]);
    for step in 1..6 {
        let own = step as f32;
        let y = custom_gradient("own", &[weight.tensor()], |x| &x[0] * 1.0, move |_, _, g| vec![Some(g * own)]);
        optimiser.step(&y.sum(..))?;
    }
    assert_eq!(weight.tensor().item::<f32>()?, -15.0);
    Ok(())
}

#[test]
fn numbers_of_checkpoints_are_those_of_their_step() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, None)?;
    let weight = Cell::parameter(Tensor::new([1.0, 2.0], &device));
    let mut routine = Routine::default();
    let mut expected = [1.0_f64, 2.0];
    for step in 1..6 {
        let rate = 0.01 * step as f64;
        let y = checkpoint(|w| (&w[0] * rate).square().sum(..), &[weight.tensor()]);
        routine.assign(vec![y.clone()], &[], |_, _| {
            let gradient = grad(&y, [&weight.tensor()])?.remove(0);
            Ok(vec![(weight.clone(), weight.tensor() - gradient)])
        })?;
        expected = expected.map(|w| w - 2.0 * rate * rate * w);
    }
    for (found, expected) in weight.tensor().to_vec::<f32>()?.into_iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
    }
    Ok(())
}

#[test]
fn keys_are_drawn_anew_and_captured_tensors_stay() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, None)?;
    let cell = Cell::parameter(Tensor::zeros([4], &device));
    let (rng, shift) = (Rng::new(5), Tensor::new([1.0, 2.0, 3.0, 4.0], &device));
    let mut routine = Routine::default();
    let (mut calls, mut expected) = (0, vec![0.0_f32; 4]);
    let other = Rng::new(5);
    for step in 0..5 {
        let loss = (cell.tensor() * 2.0).sum(..);
        routine.assign(vec![loss.clone()], &[step as f64], |_, numbers| {
            calls += 1;
            let noise = Tensor::rand([4], rng.key().fold_in(7), &device);
            Ok(vec![(cell.clone(), cell.tensor() + noise + &shift * numbers[0])])
        })?;
        let noise = Tensor::rand([4], other.key().fold_in(7), &device).to_vec::<f32>()?;
        for (index, value) in expected.iter_mut().enumerate() {
            *value = *value + noise[index] + (index + 1) as f32 * step as f32;
        }
    }
    assert_eq!(calls, 2);
    assert_eq!(cell.tensor().to_vec::<f32>()?, expected);
    Ok(())
}

#[test]
fn what_reads_a_value_is_recorded_each_time() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, None)?;
    let cell = Cell::parameter(Tensor::new([1.0], &device));
    let mut routine = Routine::default();
    for _ in 0..5 {
        let loss = (cell.tensor() * 2.0).sum(..);
        routine.assign(vec![loss.clone()], &[], |_, _| {
            let value = cell.tensor().item::<f32>()?;
            Ok(vec![(cell.clone(), &cell.tensor() * 0.0 + value + 1.0)])
        })?;
    }
    assert_eq!(cell.tensor().item::<f32>()?, 6.0);
    Ok(())
}

#[test]
fn cells_of_one_shape_are_not_taken_for_each_other() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, None)?;
    let cells = [1.0, 10.0].map(|value| Cell::parameter(Tensor::new([value], &device)));
    let mut routine = Routine::default();
    for step in 0..8 {
        // The same graph, of one cell or of the other.
        let cell = &cells[step % 2];
        let loss = (cell.tensor() * 2.0).sum(..);
        routine.assign(vec![loss.clone()], &[], |_, _| {
            let gradient = grad(&loss, [&cell.tensor()])?.remove(0);
            Ok(vec![(cell.clone(), cell.tensor() + gradient)])
        })?;
    }
    assert_eq!(cells[0].tensor().item::<f32>()?, 9.0);
    assert_eq!(cells[1].tensor().item::<f32>()?, 18.0);
    Ok(())
}

#[test]
fn a_stopped_gradient_is_another_graph() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, None)?;
    let cell = Cell::parameter(Tensor::new([2.0], &device));
    let mut routine = Routine::default();
    let mut expected = 2.0_f32;
    for step in 0..8 {
        let (w, stops) = (cell.tensor(), step % 2 == 1);
        // w · w, or w times a constant that is equal.
        let other = if stops { no_grad(|| &w * 1.0) } else { &w * 1.0 };
        let loss = (&w * other).sum(..);
        drop(w);
        routine.assign(vec![loss.clone()], &[], |_, _| {
            let gradient = grad(&loss, [&cell.tensor()])?.remove(0);
            Ok(vec![(cell.clone(), cell.tensor() - gradient * 0.125)])
        })?;
        expected -= if stops { expected } else { 2.0 * expected } * 0.125;
    }
    assert_eq!(cell.tensor().item::<f32>()?, expected);
    Ok(())
}

#[test]
fn a_step_without_memory_changes_nothing() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu_with(1, Some(64 << 20))?;
    let n = 1 << 20;
    let cell = Cell::parameter(Tensor::ones([n], &device));
    let state = Cell::buffer(Tensor::zeros([n], &device));
    let rng = Rng::new(3);
    let mut routine = Routine::default();
    let step = |routine: &mut Routine| {
        let loss = (cell.tensor() * 2.0).sum(..);
        routine.assign(vec![loss.clone()], &[], |_, _| {
            let gradient = grad(&loss, [&cell.tensor()])?.remove(0);
            let new = state.tensor() + gradient + Tensor::rand([n], rng.key(), &device) * 0.0;
            Ok(vec![(cell.clone(), cell.tensor() - new.sort(0, false)), (state.clone(), new)])
        })
    };
    (0..3).try_for_each(|_| step(&mut routine))?;
    let (before, version) = (cell.tensor().to_vec::<f32>()?, cell.version());
    // All that is free, but for a little.
    let mut hoard = Vec::new();
    let refused = loop {
        let more = Tensor::ones([1 << 18], &device) * (1.0 + hoard.len() as f64);
        match more.eval() {
            Ok(()) => hoard.push(more),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused.kind(), ErrorKind::OutOfMemory { .. }), "{refused}");
    let error: Error = step(&mut routine).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::OutOfMemory { .. }), "{error}");
    assert_eq!((cell.tensor().to_vec::<f32>()?, cell.version()), (before.clone(), version));
    // The run drew a key and gave it back; recording the step drew one.
    assert_eq!(rng.state().drawn, 4);
    drop(hoard);
    step(&mut routine)?;
    // 1 − 2 − 4 − 6 − 8.
    assert_eq!(cell.tensor().to_vec::<f32>()?[0], -19.0);
    Ok(())
}

#[test]
fn readers_see_whole_steps() -> Result<()> {
    let _alone = alone();
    for device in devices() {
        let cells = [(); 3].map(|()| Cell::parameter(Tensor::zeros([50_000], &device)));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        let mut last = 0.0;
                        while !done.load(Ordering::Relaxed) {
                            let value = cells[1].tensor();
                            let (least, most) = (value.min(..).item::<f32>()?, value.max(..).item::<f32>()?);
                            assert!(least == most && least >= last, "{least} {most} after {last}");
                            last = least;
                        }
                        Ok(())
                    })
                })
                .collect();
            let mut routine = Routine::default();
            let steps = 200;
            for step in 0..steps {
                let loss = cells.iter().map(|cell| cell.tensor().sum(..)).reduce(|a, b| a + b).expect("three");
                routine.assign(vec![loss.clone()], &[f64::from(step)], |_, numbers| {
                    Ok(cells.iter().map(|cell| (cell.clone(), cell.tensor() + numbers[0])).collect())
                })?;
            }
            done.store(true, Ordering::Relaxed);
            readers.into_iter().try_for_each(|reader| reader.join().expect("a reader"))?;
            for cell in &cells {
                assert_eq!(cell.tensor().max(..).item::<f32>()?, (steps * (steps - 1) / 2) as f32);
            }
            Ok(())
        })?;
    }
    Ok(())
}
