//! What lasts: memory stays flat over many steps, a step that runs out of memory changes nothing, training goes on after a
//! device was lost, and a seed gives the same bits whatever the thread, process or opened device.
//!
//! GPUs take fewer steps than the CPU; with `GRADUS_ENDURANCE=full` they take as many.

#[path = "support/account.rs"]
mod account;
#[path = "support/demos.rs"]
#[allow(dead_code)]
mod demos;
#[path = "support/devices.rs"]
mod devices;
#[path = "support/snapshot.rs"]
mod snapshot;

use account::{alone, makes_and_keeps_nothing, stays_flat, times};
use demos::{Digits, digits};
use devices::{devices, grain, is_cpu, own_devices, own_gpu};
use gradus::prelude::*;
use gradus::{Cell, ErrorKind, Result};
use snapshot::Snapshot;
use std::process::Command;

/// A hundred thousand steps of Adam over shuffled batches, with dropout.
#[test]
fn a_perceptron_trains_in_the_memory_of_its_first_steps() {
    const STEPS: usize = 100_000;
    const BATCHES: usize = 4;
    let _alone = alone();
    for device in own_devices(None) {
        let init = Init::new(1, &device);
        let model = Sequential::new()
            .then(Linear::new(8, 16, &init))
            .then(Relu)
            .then(Dropout::new(0.1, &init))
            .then(Linear::new(16, 4, &init));
        let mut optimiser = Adam::new(1e-3).decoupled_weight_decay(1e-2).of(&model);
        let x = Tensor::randn([16 * BATCHES, 8], Key::new(2), &device);
        let y = x.slice(1, ..4).argmax(1);
        eval([&x, &y]).unwrap();
        let data = TensorDataset::new([x, y]).unwrap();
        let mut epoch = 0;
        makes_and_keeps_nothing(&device, times(STEPS, 400, &device) / BATCHES, || {
            for [x, y] in data.batches(16).shuffled(Key::new(epoch)) {
                optimiser.step(&cross_entropy(&model.forward(&x), &y)).unwrap();
            }
            epoch += 1;
        });
        let [x, y] = data.tensors();
        model.eval();
        let right = model.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..).item::<f32>().unwrap();
        assert!(right > if is_cpu(&device) { 0.9 } else { 0.3 }, "{right} on {device}");
    }
}

/// The digits demo's network under the trainer: ten epochs in the memory of one.
#[test]
fn ten_epochs_take_the_memory_of_one() {
    let _alone = alone();
    for device in own_devices(None) {
        let Digits { model, optimiser, .. } = Digits::new(42, &device).unwrap();
        let batches = TensorBatches::new(digits(&device, DType::F32).unwrap(), 64).shuffled(Key::new(7));
        let loss = |model: &Sequential, [x, y]: &[Tensor; 2]| cross_entropy(&model.forward(x), y);
        // `epochs` takes the trainer, and gives it back.
        let mut trainer = Some(Trainer::new(&model, optimiser, loss).quiet());
        let mut epoch = 0;
        stays_flat(&device, 10, || {
            epoch += 1;
            let mut more = trainer.take().unwrap().epochs(epoch);
            more.fit(&batches, None).unwrap();
            trainer = Some(more);
        });
    }
}

#[test]
fn a_convolutional_network_trains_in_the_memory_of_its_first_steps() {
    let _alone = alone();
    for device in own_devices(None) {
        let images = Tensor::randn([8, 1, 8, 8], Key::new(1), &device);
        let init = Init::new(1, &device);
        let model = Sequential::new()
            .then(Conv2d::new(1, 4, 3, &init).with(Conv::new().padding(1)))
            .then(Relu)
            .then(MaxPool(Pool::new(2)))
            .then(Conv2d::new(4, 8, 3, &init).with(Conv::new().padding(1).stride(2)))
            .then(Relu)
            .then(AvgPool(Pool::new(2)))
            .then(Flatten)
            .then(Linear::new(8, 8, &init));
        trains_flat(&device, &model, &images, times(2_000, 40, &device));
    }
}

#[test]
fn attention_trains_in_the_memory_of_its_first_steps() {
    let _alone = alone();
    for device in own_devices(None) {
        let words = Tensor::randn([8, 6, 8], Key::new(1), &device);
        let init = Init::new(1, &device);
        let model = Sequential::new()
            .then(LayerNorm::new(8, &init))
            .then(MultiHeadAttention::new(8, 2, &init).with(Attention::new().causal()))
            .then(Flatten)
            .then(Linear::new(6 * 8, 8, &init));
        trains_flat(&device, &model, &words, times(2_000, 40, &device));
    }
}

/// Trains a model to tell eight inputs from each other.
fn trains_flat(device: &Device, model: &impl Layer, x: &Tensor, steps: usize) {
    let labels = Tensor::arange(8, device);
    eval([x, &labels]).unwrap();
    let mut optimiser = Adam::new(1e-3).of(model);
    let loss = || cross_entropy(&model.forward(x), &labels);
    let first = loss().item::<f32>().unwrap();
    makes_and_keeps_nothing(device, steps, || optimiser.step(&loss()).unwrap());
    assert!(loss().item::<f32>().unwrap() < first, "it learns on {device}");
}

#[test]
fn unread_sums_stay_flat() {
    let _alone = alone();
    for device in own_devices(None) {
        let (x, mut total) = (Tensor::ones([10], &device), Tensor::zeros([10], &device));
        stays_flat(&device, times(100_000, 20_000, &device), || total = &total + &x);
        assert!(device.memory().peak < 1 << 20);
        assert_eq!(total.to_vec::<f32>().unwrap(), [times(100_000, 20_000, &device) as f32; 10]);
    }
}

#[test]
fn unread_sums_over_an_assigned_parameter_stay_flat() {
    let _alone = alone();
    for device in own_devices(None) {
        let w = Cell::parameter(Tensor::zeros([10], &device));
        let mut total = Tensor::zeros([10], &device);
        stays_flat(&device, times(100_000, 20_000, &device), || {
            total = &total + w.tensor() * 2.0;
            w.set(w.tensor() + 1.0).unwrap();
        });
        assert!(device.memory().peak < grain(&device) << 12, "{:?}", device.memory());
        let sum = (0..times(100_000, 20_000, &device)).fold(0.0, |t, i| t + 2.0 * i as f32);
        assert_eq!(total.to_vec::<f32>().unwrap()[0], sum);
    }
}

#[test]
fn unread_sums_stay_flat_though_old_parameters_are_held_or_evaluated_first() {
    let _alone = alone();
    for device in own_devices(None) {
        let w = Cell::parameter(Tensor::ones([10], &device));
        let mut total = Tensor::zeros([], &device);
        stays_flat(&device, times(30_000, 6_000, &device), || {
            let old = w.tensor();
            let loss = old.square().sum(..);
            let gradient = grad(&loss, [&old]).unwrap().remove(0);
            let new = &old - gradient * 1e-3;
            new.eval().unwrap();
            w.set(new).unwrap();
            total = &total + loss;
        });
        assert!(device.memory().peak < grain(&device) << 12, "{:?}", device.memory());
        assert!(total.item::<f32>().unwrap() > 0.0);
    }
}

#[test]
fn a_failing_tensor_that_is_held_does_not_keep_back_the_others() {
    let _alone = alone();
    for device in own_devices(None) {
        let failing = Tensor::ones([3], &device).gather(0, &Tensor::new([7], &device));
        let mut total = Tensor::zeros([10], &device);
        stays_flat(&device, times(100_000, 20_000, &device), || total = &total + 1.0);
        assert!(matches!(failing.eval().unwrap_err().kind(), ErrorKind::Index { index: 7, .. }));
        assert_eq!(total.to_vec::<f32>().unwrap(), [times(100_000, 20_000, &device) as f32; 10]);
    }
}

#[test]
fn tracked_leaves_are_freed() {
    let _alone = alone();
    for device in own_devices(None) {
        let x = Tensor::from_vec(vec![1f32; 1024], [1024], &device);
        let before = device.memory().in_use;
        stays_flat(&device, times(100_000, 20_000, &device), || drop((&x * 1.0).tracked().exp()));
        assert_eq!(device.memory().in_use, before);
        for _ in 0..10 {
            let leaf = (&x * 2.0).tracked();
            grad(&leaf.sum(..), [&leaf]).unwrap()[0].eval().unwrap();
            leaf.eval().unwrap();
            Cell::parameter(&x * 3.0).set(&x * 4.0).unwrap();
        }
        assert_eq!(device.memory().in_use, before);
    }
}

#[test]
fn predictions_without_training_stay_flat() {
    let _alone = alone();
    for device in own_devices(None) {
        let w = Cell::parameter(Tensor::ones([10], &device));
        stays_flat(&device, times(30_000, 6_000, &device), || (w.tensor() * 2.0).eval().unwrap());
        assert!(device.memory().in_use <= 40 * grain(&device));
    }
}

/// Tensors of so many bytes together, a multiple of a GPU's grain.
fn ballast(bytes: usize, device: &Device) -> Vec<Tensor> {
    const BLOCK: usize = 4096;
    let blocks = (0..bytes).step_by(BLOCK).map(|at| Tensor::ones([BLOCK.min(bytes - at) / 4], device));
    let blocks: Vec<Tensor> = blocks.collect();
    eval(&blocks).unwrap();
    blocks
}

/// A small network, its optimiser and three batches.
struct Small {
    model: Sequential,
    optimiser: Optimiser,
    batches: [Tensor; 3],
}

impl Small {
    fn new(batches: &[Tensor; 3], device: &Device) -> Small {
        let init = Init::new(5, device);
        let model = Sequential::new()
            .then(Linear::new(6, 24, &init))
            .then(Gelu)
            .then(Dropout::new(0.2, &init))
            .then(Linear::new(24, 3, &init));
        let optimiser = Adam::new(0.1).clip_norm(1.0).decoupled_weight_decay(0.1).of(&model);
        Small { model, optimiser, batches: batches.clone() }
    }

    fn loss(&self, step: usize) -> Tensor {
        self.model.forward(&self.batches[step]).square().mean(..)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.model, &self.optimiser).unwrap()
    }
}

/// The room that three steps find beside the ballast grows from nothing to enough: each allocation fails once.
#[test]
fn a_step_that_runs_out_of_memory_anywhere_changes_nothing() {
    const LIMIT: usize = 128 << 10;
    let _alone = alone();
    for device in own_devices(Some(LIMIT)) {
        let batches = [0, 1, 2].map(|key| Tensor::randn([12, 6], Key::new(key), &device));
        eval(&batches).unwrap();
        let expected: Vec<Snapshot> = {
            let mut small = Small::new(&batches, &device);
            let mut seen = vec![small.snapshot()];
            for step in 0..3 {
                small.optimiser.step(&small.loss(step)).unwrap();
                seen.push(small.snapshot());
            }
            seen
        };
        let by = grain(&device) * 4;
        let mut failed = [0; 3];
        for room in (0..).step_by(by) {
            let failed_before = failed;
            // Nothing is evaluated before the first step: it is the one that makes the weights.
            let mut small = Small::new(&batches, &device);
            for step in 0..3 {
                let loss = small.loss(step);
                let free = LIMIT - device.memory().in_use;
                let ballast = ballast(free.saturating_sub(room) / by * by, &device);
                let result = small.optimiser.step(&loss);
                drop(ballast);
                if let Err(error) = result {
                    assert!(matches!(error.kind(), ErrorKind::OutOfMemory { .. }), "{error}");
                    failed[step] += 1;
                    // Dropout has drawn for the step that is still to be taken.
                    let found = small.snapshot();
                    assert!(found.is_like(&expected[step]), "step {step}, {room} bytes free on {device}");
                    small.optimiser.step(&loss).unwrap();
                }
            }
            assert_eq!(small.snapshot(), expected[3], "{room} bytes free on {device}");
            if failed == failed_before {
                break;
            }
        }
        assert!(failed.iter().all(|&count| count > 10), "{failed:?} on {device}");
    }
}

/// Four epochs of six steps, and where they lead.
const EPOCHS: u64 = 4;

fn train(digits: &mut Digits, epochs: std::ops::Range<u64>) -> Result<Snapshot> {
    for epoch in epochs {
        digits.train(epoch, 6)?;
    }
    Snapshot::take(&digits.model, &digits.optimiser)
}

fn resumed(from: &Snapshot, epochs: std::ops::Range<u64>, device: &Device) -> Snapshot {
    // Another seed: all that matters is in the snapshot.
    let mut digits = Digits::new(1234, device).unwrap();
    from.restore(&digits.model, &mut digits.optimiser, device).unwrap();
    train(&mut digits, epochs).unwrap()
}

#[test]
fn training_resumed_from_host_copies_gives_the_same_bits() {
    let _alone = alone();
    for (device, another) in own_devices(None).into_iter().zip(own_devices(None)) {
        let mut digits = Digits::new(42, &device).unwrap();
        let half = train(&mut digits, 0..2).unwrap();
        let expected = train(&mut digits, 2..EPOCHS).unwrap();
        assert_eq!(resumed(&half, 2..EPOCHS, &another), expected, "on {device}");
    }
}

#[cfg(feature = "gpu")]
mod loss {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Fails if `work` does not end in time.
    fn in_time<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
        let (to, from) = channel();
        std::thread::spawn(move || to.send(work()));
        from.recv_timeout(Duration::from_secs(120)).expect("hangs on a lost device")
    }

    #[test]
    fn training_goes_on_after_a_device_was_lost() {
        let _alone = alone();
        let (Some(device), Some(another)) = (own_gpu(None), own_gpu(None)) else { return };
        let mut digits = Digits::new(42, &device).unwrap();
        let half = train(&mut digits, 0..2).unwrap();
        let expected = train(&mut digits, 2..EPOCHS).unwrap();
        // In the middle of whatever the loop does then.
        for milliseconds in [0, 3, 30] {
            let device = own_gpu(None).unwrap();
            let lost = device.clone();
            let error = in_time(move || {
                let mut digits = Digits::new(42, &lost).unwrap();
                train(&mut digits, 0..1).unwrap();
                let handle = lost.clone();
                let destroys = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(milliseconds));
                    handle.wgpu().unwrap().0.destroy();
                });
                let error = (1..).find_map(|epoch| train(&mut digits, epoch..epoch + 1).err()).unwrap();
                destroys.join().unwrap();
                // And so it stays, for all that is asked of it.
                for result in [digits.train(0, 1).map(drop), digits.accuracy().map(drop), lost.synchronise()] {
                    assert!(matches!(result.unwrap_err().kind(), ErrorKind::DeviceLost { .. }));
                }
                error
            });
            let ErrorKind::DeviceLost { reason, .. } = error.kind() else { panic!("{error}") };
            assert!(!reason.is_empty() && error.to_string().contains("open it again"), "{error}");
            assert!(device.lost().is_some());
        }
        assert_eq!(resumed(&half, 2..EPOCHS, &another), expected, "the same bits as without a loss");
    }

    /// A step that is not read reports the loss of its device at the next read at the latest.
    #[test]
    fn the_next_read_reports_a_lost_device() {
        let _alone = alone();
        let Some(device) = own_gpu(None) else { return };
        in_time(move || {
            let batches = [0, 1, 2].map(|key| Tensor::randn([12, 6], Key::new(key), &device));
            let mut small = Small::new(&batches, &device);
            small.optimiser.step(&small.loss(0)).unwrap();
            let loss = small.loss(1);
            device.wgpu().unwrap().0.destroy();
            let stepped = small.optimiser.step(&loss);
            let read = loss.item::<f32>().map(drop);
            let parameter = small.model.parameters()[0].1.tensor().to_vec::<f32>().map(drop);
            for result in [stepped, read, parameter] {
                assert!(matches!(result.unwrap_err().kind(), ErrorKind::DeviceLost { .. }));
            }
        });
    }
}

/// The bits of losses and weights of a training with dropout, on shuffled batches.
fn bits(seed: u64, device: &Device) -> Vec<u32> {
    let mut digits = Digits::new(seed, device).unwrap();
    let losses = digits.train(0, 20).unwrap();
    assert!(losses[19] < losses[0]);
    let trained = Snapshot::take(&digits.model, &digits.optimiser).unwrap();
    let weights = trained.parameters.iter().flat_map(|parameter| parameter.bits.iter().copied());
    losses.into_iter().map(f32::to_bits).chain(weights).collect()
}

#[test]
fn a_seed_gives_the_same_bits_in_every_run_and_with_any_number_of_threads() {
    let _alone = alone();
    let bits = |threads, seed| bits(seed, &Device::cpu_with(threads, None).unwrap());
    let first = bits(1, 7);
    assert!([1, 2, 3, 8].iter().all(|&threads| bits(threads, 7) == first));
    assert!(first != bits(1, 8));
}

#[test]
fn a_seed_gives_the_same_bits_on_a_gpu_that_was_opened_anew() {
    let _alone = alone();
    let (Some(gpu), Some(another)) = (own_gpu(None), own_gpu(None)) else { return };
    let first = bits(7, &gpu);
    assert!(first == bits(7, &gpu) && first == bits(7, &another));
    assert!(first != bits(8, &gpu));
}

/// A number that stands for all bits of a training on each device (FNV-1a).
fn fingerprints() -> Vec<String> {
    let fingerprint = |device: Device| {
        let hash = bits(7, &device)
            .into_iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x} on {device}")
    };
    devices().into_iter().map(fingerprint).collect()
}

/// Run by the test below, in processes of their own.
#[test]
#[ignore = "another test runs it, in a process of its own"]
fn fingerprints_are_printed() {
    println!("{}", fingerprints().join("\n"));
}

#[test]
fn a_seed_gives_the_same_bits_in_every_process() {
    let _alone = alone();
    let expected = fingerprints();
    for threads in ["1", "2", "8"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "fingerprints_are_printed", "--include-ignored", "--nocapture"]);
        child.env("GRADUS_THREADS", threads);
        // One process is enough to compare with on a GPU.
        let expected = if threads == "1" { &expected[..] } else { &expected[..1] };
        if expected.len() == 1 {
            child.env("GRADUS_TEST_DEVICE", "cpu");
        }
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(expected.iter().all(|line| text.contains(line)), "{expected:?} with {threads} threads: {text}");
    }
}
