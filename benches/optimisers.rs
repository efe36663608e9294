//! What a step of each optimiser costs on the network of the digits demo, and what the trainer adds to a bare loop.
//!
//! `cargo bench --bench optimisers -- [device …]` (`cpu`, unless others are named) prints a table of steps per second: the
//! best of several passes over the digits, in batches of 64.

#[path = "../tests/support/demos.rs"]
#[allow(dead_code)]
mod demos;

use gradus::Result;
use gradus::nn::Param;
use gradus::prelude::*;
use gradus::train::{
    AdaBelief, Adadelta, Adafactor, Adagrad, Adamax, BatchSource, Lamb, Lars, Lion, NAdam, RAdam, RmsProp, Rprop,
    ScheduleFreeAdamW, Yogi,
};
use std::time::Instant;

/// Passes, of which the fastest counts: other programs only ever add.
const PASSES: u64 = 30;
const BATCH: usize = 64;

type Of = fn(Vec<(String, Param)>) -> Optimiser;

const ALL: &[(&str, Of)] = &[
    ("SGD", |p| Sgd::new(0.1).of_parameters(p)),
    ("SGD, Nesterov momentum", |p| Sgd::new(0.1).momentum(0.9).nesterov().of_parameters(p)),
    ("Adam", |p| Adam::new(1e-3).of_parameters(p)),
    ("Adam, clipped by norm", |p| Adam::new(1e-3).clip_norm(1.0).of_parameters(p)),
    ("AMSGrad", |p| Adam::new(1e-3).amsgrad().of_parameters(p)),
    ("AdamW", |p| AdamW::new(1e-3).of_parameters(p)),
    ("NAdam", |p| NAdam::new(1e-3).of_parameters(p)),
    ("RAdam", |p| RAdam::new(1e-3).of_parameters(p)),
    ("Adamax", |p| Adamax::new(1e-3).of_parameters(p)),
    ("AdaBelief", |p| AdaBelief::new(1e-3).of_parameters(p)),
    ("Yogi", |p| Yogi::new(1e-3).of_parameters(p)),
    ("RMSProp", |p| RmsProp::new(1e-3).of_parameters(p)),
    ("Adagrad", |p| Adagrad::new(1e-2).of_parameters(p)),
    ("Adadelta", |p| Adadelta::new(1.0).of_parameters(p)),
    ("Adafactor", |p| Adafactor::new(1e-2).of_parameters(p)),
    ("Rprop", |p| Rprop::new(1e-3).of_parameters(p)),
    ("Lion", |p| Lion::new(1e-4).of_parameters(p)),
    ("LAMB", |p| Lamb::new(1e-2).of_parameters(p)),
    ("LARS", |p| Lars::new(1.0).of_parameters(p)),
    ("Muon", |p| Muon::new(2e-2).adam(AdamW::new(1e-3)).of_parameters(p)),
    ("schedule-free AdamW", |p| ScheduleFreeAdamW::new(1e-2).of_parameters(p)),
    ("Adam, look-ahead", |p| Adam::new(1e-3).lookahead(5, 0.5).of_parameters(p)),
];

fn network(device: &Device) -> Sequential {
    let init = Init::new(42, device);
    Sequential::new()
        .then(Dropout::new(0.1, &init))
        .then(Linear::new(64, 256, &init))
        .then(Relu)
        .then(Dropout::new(0.4, &init))
        .then(Linear::new(256, 128, &init))
        .then(Relu)
        .then(Dropout::new(0.4, &init))
        .then(Linear::new(128, 10, &init))
}

fn loss(model: &Sequential, [x, y]: &[Tensor; 2]) -> Tensor {
    cross_entropy(&model.forward(x), y)
}

/// How long it takes until the device is done too.
fn seconds<E: From<gradus::Error>>(
    device: &Device,
    work: impl FnOnce() -> std::result::Result<(), E>,
) -> std::result::Result<f64, E> {
    let start = Instant::now();
    work()?;
    device.synchronise()?;
    Ok(start.elapsed().as_secs_f64())
}

/// A loop as short as can be, that reads a loss as often as the trainer does.
fn bare(model: &Sequential, optimiser: &mut Optimiser, batches: &TensorBatches<2>, epoch: u64) -> Result<()> {
    model.train();
    for (step, batch) in batches.epoch(epoch, 0).enumerate() {
        let loss = loss(model, &batch.expect("rows of tensors"));
        optimiser.step(&loss)?;
        if step % 10 == 9 {
            loss.item::<f32>()?;
        }
    }
    Ok(())
}

fn table(device: &Device) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let data = demos::digits(device, DType::F32)?;
    let batches = TensorBatches::new(data, BATCH).shuffled(Key::new(7));
    println!("{device}: {}", device.description());

    let setting = |&(name, of): &(&'static str, Of)| {
        let model = network(device);
        (name, of(model.parameters()), model, f64::INFINITY)
    };
    let mut settings: Vec<_> = ALL.iter().map(setting).collect();
    let (bare_model, model) = (network(device), network(device));
    let mut optimiser = Adam::new(1e-3).of(&bare_model);
    let mut trainer = Trainer::new(&model, Adam::new(1e-3).of(&model), loss).quiet();
    let (mut of_loop, mut of_trainer) = (f64::INFINITY, f64::INFINITY);
    // In turns, so that other programs slow down all. The first passes plan, and are never the fastest.
    for epoch in 0..PASSES {
        for (_, optimiser, model, fastest) in &mut settings {
            *fastest = fastest.min(seconds(device, || bare(model, optimiser, &batches, epoch))?);
        }
        of_loop = of_loop.min(seconds(device, || bare(&bare_model, &mut optimiser, &batches, epoch))?);
        // Every pass of the trainer is a call of `fit`, for one epoch more.
        trainer = trainer.epochs(epoch + 1);
        of_trainer = of_trainer.min(seconds(device, || trainer.fit(&batches, None).map(drop))?);
    }

    let steps = batches.batches() as f64;
    println!("{:<28} {:>10} {:>10}", "optimiser", "steps/s", "of SGD's");
    let first = settings[0].3;
    for (name, _, _, fastest) in &settings {
        println!("{name:<28} {:>10.0} {:>8.0} %", steps / fastest, 100.0 * first / fastest);
    }
    println!(
        "a step with Adam: {:.1} µs in a bare loop, {:.1} µs in the trainer, {:+.1} %\n",
        1e6 * of_loop / steps,
        1e6 * of_trainer / steps,
        100.0 * (of_trainer / of_loop - 1.0)
    );
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let names = if named.is_empty() { vec!["cpu".to_string()] } else { named };
    for name in names {
        table(&Device::named(&name)?)?;
    }
    Ok(())
}
