//! What a loop in its stride makes anew: nothing. Plans, pipelines, bind groups and buffers are counted on every device,
//! as [`Device::stats`] counts them.

#[path = "support/devices.rs"]
mod devices;

use devices::{is_cpu, own_devices, own_tunings};
use gradus::Result;
use gradus::prelude::*;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};

/// The first step plans, and the second may still make what the first did not leave in the pools.
const WARM_UP: usize = 2;
/// Where the host fills buffers while others are in use, these take turns, and meet the other buffers of a step in a few
/// combinations.
const WARM_UP_WITH_UPLOADS: usize = 8;

/// Runs `step` again and again. After the warm-up nothing may be made, and after the first step no plan and no pipeline.
fn makes_nothing(device: &Device, steps: usize, step: impl FnMut(usize) -> Result<()>) {
    makes_nothing_after(WARM_UP, device, steps, step);
}

fn makes_nothing_after(warm_up: usize, device: &Device, steps: usize, mut step: impl FnMut(usize) -> Result<()>) {
    let mut before = device.stats();
    for number in 0..steps {
        step(number).unwrap();
        let after = device.stats();
        assert!(after.launches > before.launches, "step {number} computes something");
        if number >= 1 {
            let found = (after.plans - before.plans, after.pipelines - before.pipelines);
            assert_eq!(found, (0, 0), "plans and pipelines made by step {number} on {device}");
        }
        if number >= warm_up {
            let found = (after.bind_groups - before.bind_groups, after.buffers - before.buffers);
            assert_eq!(found, (0, 0), "bind groups and buffers made by step {number} on {device}");
        }
        before = after;
    }
}

/// A network with dropout, and something to learn.
struct Setting {
    model: Sequential,
    x: Tensor,
    y: Tensor,
}

impl Setting {
    fn new(device: &Device) -> Setting {
        let init = Init::new(42, device);
        let model = Sequential::new()
            .then(Linear::new(12, 24, &init))
            .then(Relu)
            .then(Dropout::new(0.2, &init))
            .then(Linear::new(24, 16, &init))
            .then(Gelu)
            .then(Linear::new(16, 5, &init));
        let x = Tensor::randn([20, 12], Key::new(0), device);
        x.eval().unwrap();
        let y = Tensor::from_vec((0..20).map(|i| i % 5).collect::<Vec<i32>>(), [20], device);
        Setting { model, x, y }
    }

    fn loss(&self) -> Tensor {
        cross_entropy(&self.model.forward(&self.x), &self.y)
    }
}

#[test]
fn steps_after_the_first_make_nothing() {
    for device in own_devices(None) {
        let setting = Setting::new(&device);
        let mut optimiser = Adam::new(1e-3).decoupled_weight_decay(1e-2).of(&setting.model);
        makes_nothing(&device, 12, |_| optimiser.step(&setting.loss()));
    }
}

#[test]
fn reading_the_loss_now_and_then_makes_nothing() {
    for device in own_devices(None) {
        let setting = Setting::new(&device);
        let mut optimiser = Adam::new(1e-3).of(&setting.model);
        makes_nothing(&device, 42, |number| {
            let loss = setting.loss();
            optimiser.step(&loss)?;
            // The first read makes the buffer that results are read through.
            if number == 0 || number % 10 == 9 {
                assert!(loss.item::<f32>()?.is_finite());
            }
            Ok(())
        });
    }
}

#[test]
fn learning_rates_of_any_value_make_nothing() {
    for device in own_devices(None) {
        let setting = Setting::new(&device);
        let mut optimiser = Sgd::new(0.1).momentum(0.9).nesterov().weight_decay(1e-2).of(&setting.model);
        let rates = [0.5, 0.0, 1.0, -1.0, 2.0, 0.0, 1e-30, 1.0];
        makes_nothing(&device, rates.len(), |number| {
            optimiser.set_learning_rate(rates[number]);
            optimiser.step(&setting.loss())
        });
    }
}

#[test]
fn numbers_of_the_user_make_nothing() {
    for device in own_devices(None) {
        let x = Tensor::randn([20], Key::new(0), &device);
        x.eval().unwrap();
        let numbers = [0.5, 0.0, 1.0, -1.0, 2.0, f64::NAN, f64::INFINITY, 0.0];
        makes_nothing(&device, numbers.len(), |step| {
            let n = numbers[step];
            ((&x * n + n).maximum(n) / n).eval()
        });
    }
}

#[test]
fn going_back_and_forth_between_training_and_prediction_makes_nothing() {
    for device in own_devices(None) {
        let setting = Setting::new(&device);
        let mut optimiser = Adam::new(1e-3).of(&setting.model);
        makes_nothing(&device, 8, |_| {
            setting.model.train();
            for _ in 0..3 {
                optimiser.step(&setting.loss())?;
            }
            setting.model.eval();
            no_grad(|| setting.model.forward(&setting.x).argmax(1)).to_vec::<i32>().map(|_| ())
        });
    }
}

#[test]
fn fresh_batches_make_nothing() {
    for device in own_devices(None) {
        let setting = Setting::new(&device);
        let mut optimiser = Adam::new(1e-3).clip_norm(1.0).of(&setting.model);
        makes_nothing_after(WARM_UP_WITH_UPLOADS, &device, 20, |number| {
            let x = Tensor::from_vec((0..240).map(|i| (i + number) as f32).collect(), [20, 12], &device);
            let loss = cross_entropy(&setting.model.forward(&(x / 100.0)), &setting.y);
            optimiser.step(&loss)
        });
    }
}

#[test]
fn batches_of_any_size_share_their_pipelines() {
    for device in own_tunings() {
        let setting = Setting::new(&device);
        let mut optimiser = Adam::new(1e-3).of(&setting.model);
        let mut step = |size: isize| {
            let (x, y) = (setting.x.repeat(0, 4).slice(0, ..size), setting.y.repeat(0, 4).slice(0, ..size));
            eval([&x, &y])?;
            optimiser.step(&cross_entropy(&setting.model.forward(&x), &y))
        };
        // A GPU's kernels get the first two values of a size as constants; multiples of four have kernels of their own,
        // and so have products of up to 8, 16, 32 and more rows where a subgroup computes a tile.
        let sizes = [64, 1, 3, 5, 2, 6, 10, 4, 12, 20];
        for size in sizes {
            step(size).unwrap();
        }
        let before = device.stats();
        for size in 1..=64 {
            step(size).unwrap();
        }
        let made = device.stats().pipelines - before.pipelines;
        assert_eq!(made, 0, "pipelines for batches of 1 to 64 after those of {sizes:?} on {device}");
    }
}

/// Attention and a layer norm over a sequence.
fn attention(x: &Tensor) -> Tensor {
    let mixed = (x.matmul(&x.t()) * 0.25).softmax(-1).matmul(x) + x;
    (&mixed - mixed.mean_keepdim(-1)) / (mixed.var_keepdim(-1, 0) + 1e-5).sqrt()
}

#[test]
fn a_growing_sequence_shares_its_pipelines() {
    for device in own_tunings() {
        let whole = Tensor::randn([256, 8], Key::new(0), &device);
        whole.eval().unwrap();
        let pipelines = |lengths: &mut dyn Iterator<Item = isize>| {
            let before = device.stats();
            for length in lengths {
                let x = whole.slice(0, ..length) * 1.0;
                x.eval().unwrap();
                attention(&x).eval().unwrap();
            }
            device.stats().pipelines - before.pipelines
        };
        let few = pipelines(&mut [1, 2, 3, 64, 255, 256].into_iter());
        let more = pipelines(&mut (1..=256));
        assert!(more <= few, "{few} pipelines for a handful of lengths, {more} more for 256, on {device}");
    }
}

#[test]
fn a_total_of_losses_grows_neither_memory_nor_time() {
    for device in own_devices(None) {
        let setting = Setting::new(&device);
        let mut optimiser = Adam::new(1e-3).of(&setting.model);
        let mut total = Tensor::zeros([], &device);
        let mut run = |steps: usize| {
            let start = Instant::now();
            for _ in 0..steps {
                let loss = setting.loss();
                optimiser.step(&loss).unwrap();
                total = &total + loss.detach();
            }
            total.eval().unwrap();
            (device.stats(), device.memory(), start.elapsed())
        };
        let steps = if is_cpu(&device) { 2000 } else { 150 };
        run(steps / 10);
        let (before, memory, first) = run(steps);
        let (after, grown, last) = run(steps);
        let made = (after.plans - before.plans, after.pipelines - before.pipelines, after.buffers - before.buffers);
        assert_eq!(made, (0, 0, 0), "plans, pipelines and buffers on {device}");
        assert_eq!((memory.in_use, memory.peak), (grown.in_use, grown.peak), "on {device}");
        // Ten times would be quadratic; twice is a busy machine.
        assert!(last < first * 4 + Duration::from_millis(200), "{first:?}, then {last:?} on {device}");
        assert!(total.item::<f32>().unwrap() > 0.0);
    }
}

/// Keeps what is warned of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Visit for Warnings {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        self.0.lock().unwrap().push(format!("{value:?}"));
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_loop_that_plans_at_every_step_is_warned_of_once() {
    let device = Device::cpu_with(1, None).unwrap();
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        for length in 1..100 {
            (Tensor::arange(length, &device) + 1).eval().unwrap();
        }
        let x = Tensor::new([1.0, 2.0], &device);
        x.eval().unwrap();
        for number in 0..100 {
            (&x * number as f32).eval().unwrap();
        }
    });
    let warnings = warnings.0.lock().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let expected = ["each made a new plan", "iota i32[16], recorded at", "cache.rs", "had another shape"];
    assert!(expected.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
}
