//! The training loop: what it computes, what it saves, and that a run that was killed ends as one that was not.

use anyhow::{Context, Result, ensure};
use gradus::nn::Buffer;
use gradus::prelude::*;
use gradus::train::{
    Batch, Better, Callback, CallbackError, EarlyStopping, EpochRecord, Flow, History, Logged, Moment, Outcome,
    RecordDynamics, StopEarly, TrainError, batches_from, load_weights, save_weights,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

type Rows = [Tensor; 2];

/// A perceptron with dropout, and a running mean of its inputs.
#[derive(Module)]
struct Net {
    mean: Buffer,
    layers: Sequential,
}

impl Net {
    fn new(device: &Device) -> Net {
        let init = Init::new(3, device);
        let layers = Sequential::new()
            .then(Linear::new(4, 16, &init))
            .then(Relu)
            .then(Dropout::new(0.2, &init))
            .then(Linear::new(16, 3, &init));
        Net { mean: Buffer::new(Tensor::zeros([4], device)), layers }
    }

    fn loss(&self, [x, y]: &Rows) -> Tensor {
        cross_entropy(&self.layers.forward(&(x - self.mean.tensor())), y)
    }
}

/// Points in three clusters.
fn points(rows: usize, device: &Device) -> Rows {
    let y = Tensor::arange(rows, device) % 3;
    let x = Tensor::randn([rows, 4], Key::new(5), device) + y.to_dtype(DType::F32).unsqueeze(1) * 2.0;
    [x, y]
}

fn batches(rows: usize, size: usize, device: &Device) -> TensorBatches<2> {
    TensorBatches::new(TensorDataset::new(points(rows, device)).unwrap(), size).shuffled(Key::new(9))
}

fn values(model: &impl Module) -> Vec<Vec<f32>> {
    model.parameters().iter().map(|(_, p)| p.tensor().to_vec().unwrap()).collect()
}

/// Follows the inputs' mean, and counts.
struct FollowMean {
    told: u64,
}

impl Callback for FollowMean {
    fn name(&self) -> &str {
        "follow_mean"
    }

    fn on_losses(&mut self, moment: &mut Moment<'_>, _loss: f64) -> Result<Flow, CallbackError> {
        self.told += 1;
        for (_, buffer) in moment.model.buffers() {
            buffer.cell().set(buffer.tensor() * 0.9 + 0.01 * self.told as f64)?;
        }
        moment.optimiser.set_learning_rate(1e-2 / (1.0 + self.told as f64 / 10.0));
        Ok(Flow::Continue)
    }

    fn state(&self) -> serde_json::Value {
        self.told.into()
    }

    fn load_state(
        &mut self,
        state: &serde_json::Value,
        _: &BTreeMap<String, Tensor>,
        _: &dyn Module,
    ) -> Result<(), CallbackError> {
        self.told = state.as_u64().ok_or("not a number of times")?;
        Ok(())
    }
}

/// Trains in a folder until it is done; the weights and the history are then in files there.
fn train_in(folder: &Path) -> Result<()> {
    let device = Device::cpu();
    let model = Net::new(&device);
    let (train, test) = (batches(200, 16, &device), batches(50, 50, &device));
    let checkpoints = Checkpoints::new(folder.join("checkpoints"))
        .every_steps(3)
        .every(Duration::from_millis(7))
        .best_by("accuracy", Better::Higher)
        .resume(true);
    let mut trainer = Trainer::new(&model, Adam::new(1e-2).of(&model), Net::loss)
        .metric("accuracy", |model, [x, y]| model.layers.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..))
        .epochs(20)
        .log_every(4)
        .callback(FollowMean { told: 0 })
        .callback(StopEarly::new("accuracy", EarlyStopping::rising(30)))
        .checkpoints(checkpoints)
        .quiet();
    ensure!(trainer.fit(&train, Some(&test))? == Outcome::Finished);
    save_weights(&model, folder.join("final.safetensors"))?;
    std::fs::write(folder.join("history.json"), serde_json::to_string(trainer.history())?)?;
    Ok(())
}

const CHILD: &str = "GRADUS_TRAINS_IN";

/// What the test below kills: nothing, unless it is told a folder.
#[test]
fn child() {
    if let Some(folder) = std::env::var_os(CHILD) {
        train_in(Path::new(&folder)).unwrap();
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_with_the_same_bits() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Trains in a process of its own, which is killed when its time is over; false where it was.
    let ends_within = |folder: &Path, time: Duration| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child"]).env(CHILD, folder).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + time;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                return true;
            }
            if Instant::now() >= until {
                child.kill().unwrap();
                child.wait().unwrap();
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let long = Duration::from_secs(300);
    let started = Instant::now();
    assert!(ends_within(whole.path(), long), "a run that nobody disturbs did not end");
    let mut limit = started.elapsed().mul_f64(0.25);
    let (mut kills, mut attempt) = (0, 0u32);
    while kills < 20 {
        let share = f64::from(attempt.wrapping_mul(2_654_435_769) >> 8) / f64::from(1 << 24);
        attempt += 1;
        if ends_within(killed.path(), limit.mul_f64(share)) {
            // It was done before it was killed often enough: the rest of the kills meet a run from the start, and sooner,
            // so that they do meet it whatever else this machine does.
            std::fs::remove_dir_all(killed.path().join("checkpoints")).unwrap();
            std::fs::remove_file(killed.path().join("final.safetensors")).unwrap();
            limit = limit.mul_f64(0.8);
        } else {
            kills += 1;
        }
    }
    assert!(ends_within(killed.path(), long), "a run that goes on after {kills} kills did not end");
    for file in ["final.safetensors", "history.json", "checkpoints/best.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(whole.path()) == read(killed.path()), "{file} differs after {kills} kills");
    }
}

#[test]
fn dynamics_are_recorded_without_dropout_and_go_on_from_checkpoints() {
    let device = Device::cpu();
    let (train, in_order) =
        (batches(60, 16, &device), TensorBatches::new(TensorDataset::new(points(60, &device)).unwrap(), 25));
    let fit = |folder: &Path, epochs: u64| {
        let model = Net::new(&device);
        let predict = |[x, y]: &Rows| (model.layers.forward(x), y.clone());
        let mut recorder = RecordDynamics::new(60, &in_order, predict);
        let trainer = Trainer::new(&model, Adam::new(1e-2).of(&model), Net::loss).epochs(epochs).quiet();
        trainer.callback(&mut recorder).checkpoints(Checkpoints::new(folder).resume(true)).fit(&train, None).unwrap();
        let dynamics = recorder.dynamics().samples();
        drop(recorder);
        (model, dynamics)
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (model, expected) = fit(whole.path(), 5);
    fit(parts.path(), 2);
    assert_eq!(fit(parts.path(), 5).1, expected);

    model.eval();
    let [x, y] = points(60, &device);
    let p = no_grad(|| model.layers.forward(&x).to_dtype(DType::F64).softmax(1)).to_vec::<f64>().unwrap();
    for (sample, label) in y.to_vec::<i32>().unwrap().into_iter().enumerate() {
        let error = |class: usize| p[3 * sample + class] - f64::from(u8::from(class == label as usize));
        let by_hand = (0..3).map(|class| error(class).powi(2)).sum::<f64>().sqrt();
        // Logits of batches of another size differ in their last bits.
        let found = expected[sample];
        assert!(found.epochs == 5 && (found.last_el2n - by_hand).abs() < 1e-5, "{sample}: {found:?}, {by_hand}");
    }
}

#[test]
fn gradients_of_several_batches_are_those_of_a_large_one() {
    let device = Device::cpu();
    let fit = |size: usize, accumulate: usize| {
        let model = Linear::new(4, 3, &Init::new(1, &device));
        let data = TensorBatches::new(TensorDataset::new(points(50, &device)).unwrap(), size);
        let mut trainer = Trainer::new(&model, Sgd::new(0.1).of(&model), |model: &Linear, [x, y]: &Rows| {
            cross_entropy(&model.forward(x), y)
        });
        trainer = trainer.accumulate(accumulate).epochs(3).log_every(1).quiet();
        trainer.fit(&data, None).unwrap();
        (values(&model), trainer.history().clone())
    };
    // 20 + 20 + 10 rows: weighted by rows, as in one batch of 50.
    let ((large, of_large), (small, of_small)) = (fit(50, 1), fit(20, 3));
    for (a, b) in large.concat().iter().zip(small.concat()) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    assert_eq!(of_large.epochs.len(), 3);
    for (a, b) in of_large.epochs.iter().zip(&of_small.epochs) {
        assert_eq!((a.step, a.epoch), (b.step, b.epoch));
        assert!((a.train_loss - b.train_loss).abs() < 1e-6, "{a} {b}");
    }
    let (uneven, _) = fit(20, 2);
    assert!(large.concat().iter().zip(uneven.concat()).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn the_means_of_an_evaluation_are_those_over_all_rows() {
    let device = Device::cpu();
    let model = Linear::new(4, 3, &Init::new(1, &device));
    let right = |model: &Linear, [x, y]: &Rows| model.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..);
    let loss = |model: &Linear, [x, y]: &Rows| cross_entropy(&model.forward(x), y);
    let trainer = Trainer::new(&model, Sgd::new(0.1).of(&model), loss).metric("accuracy", right);
    let all = points(50, &device);
    let (mean, metrics) = trainer.evaluate(&batches(50, 16, &device)).unwrap();
    assert!((mean - f64::from(loss(&model, &all).item::<f32>().unwrap())).abs() < 1e-6);
    let accuracy = f64::from(right(&model, &all).item::<f32>().unwrap());
    assert!(metrics.len() == 1 && metrics[0].0 == "accuracy" && (metrics[0].1 - accuracy).abs() < 1e-6);
    assert!(!trainer.optimiser().parameters().is_empty());
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_before_it_is_saved() {
    let device = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let model = Linear::new(4, 1, &Init::new(1, &device));
    let diverges = |model: &Linear, [x, _]: &Rows| model.forward(x).exp().exp().mean(..);
    let data = batches(64, 16, &device);
    let path = folder.path().join("run");
    let mut trainer = Trainer::new(&model, Sgd::new(1e3).of(&model), diverges)
        .epochs(50)
        .checkpoints(Checkpoints::new(&path).every_steps(1).keep(1000))
        .quiet();
    let error = trainer.fit(&data, None).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    for entry in std::fs::read_dir(&path).unwrap() {
        let model = Linear::new(4, 1, &Init::new(1, &device));
        load_weights(&model, entry.unwrap().path().join("model.safetensors")).unwrap();
        assert!(values(&model).concat().iter().all(|x| x.is_finite()));
    }

    let model = Linear::new(4, 1, &Init::new(1, &device));
    let line = line!() + 1;
    let takes_logarithm = |model: &Linear, [x, _]: &Rows| (model.forward(x) - 1e3).log().mean(..);
    let mut trainer = Trainer::new(&model, Sgd::new(0.1).of(&model), takes_logarithm).find_nan().quiet();
    let error = trainer.fit(&data, None).unwrap_err().to_string();
    assert!(error.starts_with("log") && error.contains(&format!("trainer.rs:{line}")), "{error}");
}

#[test]
fn losses_that_are_not_finite_are_skipped_where_that_is_asked_for() {
    let device = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let overflows = |epoch: u64, batch: usize| (epoch, batch) == (1, 2);
    let source = batches_from(5, |epoch, batch| {
        let [x, y] = points(8, &device);
        Ok([if overflows(epoch, batch) { x * f32::INFINITY } else { x }, y])
    });
    let model = Linear::new(4, 3, &Init::new(1, &device));
    let loss = |model: &Linear, [x, y]: &Rows| cross_entropy(&model.forward(x), y);
    let trainer = || {
        let checkpoints = Checkpoints::new(folder.path()).every_steps(1).resume(true);
        Trainer::new(&model, Adam::new(1e-2).of(&model), loss).log_every(1).checkpoints(checkpoints).quiet()
    };
    let mut first = trainer().skip_non_finite().epochs(2);
    first.fit(&source, None).unwrap();
    let skipped: Vec<u64> = first.history().epochs.iter().map(|epoch| epoch.skipped).collect();
    assert_eq!(skipped, [0, 1]);
    assert!(values(&model).concat().iter().all(|x| x.is_finite()));
    // The mean of no loss is NaN; it survives a checkpoint.
    assert!(first.history().losses.iter().filter(|(_, loss)| loss.is_nan()).count() == 1);
    let mut second = trainer().skip_non_finite().epochs(3);
    second.fit(&source, None).unwrap();
    assert_eq!(second.history().epochs[..2], first.history().epochs[..]);
    let nans = |history: &History| history.losses.iter().map(|(step, loss)| (*step, loss.is_nan())).collect::<Vec<_>>();
    assert_eq!(nans(second.history())[..10], nans(first.history())[..]);
}

struct StopAt(u64);

impl Callback for StopAt {
    fn name(&self) -> &str {
        "stop_at"
    }

    fn on_epoch(&mut self, moment: &mut Moment<'_>, epoch: &EpochRecord) -> Result<Flow, CallbackError> {
        moment.notes.push("a note".into());
        Ok(if epoch.epoch == self.0 { Flow::Stop("enough".into()) } else { Flow::Continue })
    }
}

#[test]
fn a_stopped_run_goes_on() {
    let device = Device::cpu();
    let train = batches(100, 16, &device);
    let fit = |stop: Option<u64>| -> (Vec<Vec<f32>>, History) {
        let model = Net::new(&device);
        let mut trainer = Trainer::new(&model, Adam::new(1e-2).of(&model), Net::loss).epochs(4).quiet();
        if let Some(epoch) = stop {
            trainer = trainer.callback(StopAt(epoch));
            assert_eq!(trainer.fit(&train, None).unwrap(), Outcome::Stopped("enough".into()));
            assert_eq!(trainer.history().epochs.len() as u64, epoch);
        }
        assert_eq!(trainer.fit(&train, None).unwrap(), Outcome::Finished);
        (values(&model), trainer.history().clone())
    };
    assert!(fit(None) == fit(Some(2)));
}

#[test]
fn early_stopping_leaves_the_best_weights_also_after_resuming() {
    let device = Device::cpu();
    let (folder, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = batches(100, 16, &device);
    let fit = |epochs: u64| {
        let model = Net::new(&device);
        let log = gradus::train::log::JsonLines::open(logs.path().join("log.jsonl")).unwrap();
        // It soon gets worse: the rate is far too high.
        let mut trainer = Trainer::new(&model, Sgd::new(3.0).of(&model), Net::loss)
            .epochs(epochs)
            .callback(StopEarly::new("validation_loss", EarlyStopping::falling(3)))
            .callback(Logged::new(log))
            .checkpoints(Checkpoints::new(folder.path()).resume(true))
            .quiet();
        let outcome = trainer.fit(&train, Some(&train)).unwrap();
        let best = trainer.history().epochs.iter().map(|e| e.validation_loss.unwrap()).fold(f64::MAX, f64::min);
        (outcome, best, trainer.evaluate(&train).unwrap().0, trainer.history().epochs.len())
    };
    let (outcome, ..) = fit(2);
    assert_eq!(outcome, Outcome::Finished);
    let (outcome, best, left, epochs) = fit(100);
    assert!(matches!(outcome, Outcome::Stopped(_)) && epochs < 100, "{outcome:?} {epochs}");
    assert_eq!(best, left);
    // It was over then.
    assert_eq!(fit(100), (outcome, best, left, epochs));
    let lines = gradus::train::log::read_json_lines(logs.path().join("log.jsonl")).unwrap();
    assert!(lines.len() > epochs);
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let device = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let train = batches(40, 16, &device);
    let fit = |inputs: usize, resume: bool| {
        let init = Init::new(1, &device);
        let model = Sequential::new().then(Linear::new(inputs, 3, &init));
        let checkpoints = Checkpoints::new(folder.path()).resume(resume);
        let loss = |model: &Sequential, [x, y]: &Rows| cross_entropy(&model.forward(x), y);
        let mut trainer = Trainer::new(&model, Adam::new(1e-2).of(&model), loss).checkpoints(checkpoints).quiet();
        trainer.fit(&train, None)
    };
    fit(4, false).unwrap();
    // Another run must not take it for its own.
    assert!(matches!(fit(4, false).unwrap_err(), TrainError::Checkpoint { .. }));
    // Already done: nothing is left to do.
    assert_eq!(fit(4, true).unwrap(), Outcome::Finished);
    assert!(fit(5, true).is_err());

    let checkpoint = |folder: &Path| -> Result<PathBuf> {
        let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        entries.into_iter().find(|path| path.is_dir()).context("no checkpoint")
    };
    let state = checkpoint(folder.path()).unwrap().join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    for broken in
        [&text[..text.len() / 2], "", "[]", "{\"format\": 7}", &text.replace("\"format\": 1", "\"format\": 2")]
    {
        std::fs::write(&state, broken).unwrap();
        let error = fit(4, true).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
    }
    std::fs::write(&state, &text).unwrap();
    for name in ["model.safetensors", "optimiser.safetensors"] {
        let file = checkpoint(folder.path()).unwrap().join(name);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(fit(4, true).unwrap_err(), TrainError::Data(_)));
        std::fs::write(&file, bytes).unwrap();
    }
    assert_eq!(fit(4, true).unwrap(), Outcome::Finished);
}

/// Every file of a checkpoint, changed at random: an error or a run, but no panic. `GRADUS_FUZZ=10000` reads more of them.
#[test]
fn damaged_checkpoints_are_errors() {
    let device = Device::cpu_with(1, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let train = batches(12, 4, &device);
    let fit = |folder: &Path, epochs: u64, resume: bool| {
        let model = Net::new(&device);
        let optimiser = Adam::new(0.01).of(&model);
        Trainer::new(&model, optimiser, Net::loss)
            .checkpoints(Checkpoints::new(folder).resume(resume).best_by("train_loss", Better::Lower))
            .callback(FollowMean { told: 0 })
            .epochs(epochs)
            .quiet()
            .fit(&train, None)
    };
    let whole = folder.path().join("whole");
    fit(&whole, 1, false).unwrap();
    let checkpoint = whole.join("epoch-000001-batch-000000");
    let names = ["state.json", "model.safetensors", "optimiser.safetensors", "callbacks.safetensors"];
    let files = names.map(|name| std::fs::read(checkpoint.join(name)).unwrap());
    let cases = std::env::var("GRADUS_FUZZ").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let mut refused = 0;
    for case in 0..cases {
        let random = |draw: u64, below: usize| (Key::new(case).fold_in(draw).value() % below.max(1) as u64) as usize;
        let changed = random(0, 2 * names.len()).saturating_sub(names.len() + 1).min(names.len() - 1);
        let mut bytes = files[changed].clone();
        let at = random(1, bytes.len());
        match random(2, 4) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random(3, 8),
            2 => bytes[at] = b"0919-eE\"{}[],:"[random(3, 14)],
            _ => drop(bytes.drain(at..(at + 1 + random(3, 16)).min(files[changed].len()))),
        }
        let it = folder.path().join("it");
        let inside = it.join("epoch-000001-batch-000000");
        std::fs::create_dir_all(&inside).unwrap();
        names.iter().zip(&files).for_each(|(name, file)| std::fs::write(inside.join(name), file).unwrap());
        std::fs::write(inside.join(names[changed]), &bytes).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fit(&it, 2, true)));
        let result = result.unwrap_or_else(|_| panic!("case {case}: a panic on {}", names[changed]));
        refused += u64::from(result.is_err());
        std::fs::remove_dir_all(&it).unwrap();
    }
    println!("{refused} of {cases} damaged checkpoints were refused");
    assert!(refused > cases / 4, "{refused} of {cases}");
}

#[test]
fn what_a_source_fails_with_says_where() {
    let device = Device::cpu();
    let model = Linear::new(4, 3, &Init::new(1, &device));
    let loss = |model: &Linear, [x, y]: &Rows| cross_entropy(&model.forward(x), y);
    let source = batches_from(5, |epoch, batch| match (epoch, batch) {
        (1, 2) => Err("the disk is gone".into()),
        _ => Ok(points(8, &device)),
    });
    let mut trainer = Trainer::new(&model, Sgd::new(0.1).of(&model), loss).epochs(3).quiet();
    let error = trainer.fit(&source, None).unwrap_err().to_string();
    assert_eq!(error, "batch 2 of epoch 1: the disk is gone");
    let nothing = batches_from(0, |_, _| Ok(points(8, &device)));
    assert!(matches!(trainer.fit(&nothing, None).unwrap_err(), TrainError::NoBatches));
    assert_eq!(points(8, &device).rows(), 8);
}

#[test]
fn from_the_third_step_on_nothing_is_made() {
    // Tests beside this one make plans, too.
    let device = Device::cpu_with(1, None).unwrap();
    let model = Net::new(&device);
    let train = batches(64, 16, &device);
    let mut trainer = Trainer::new(&model, Adam::new(1e-2).of(&model), Net::loss).log_every(2).quiet().epochs(2);
    trainer.fit(&train, Some(&train)).unwrap();
    let before = device.stats();
    trainer = trainer.epochs(10);
    trainer.fit(&train, Some(&train)).unwrap();
    assert_eq!(device.stats().plans, before.plans);
}
