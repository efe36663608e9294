//! Over-fitting, and what helps: a network with far too few examples, without and with each of the classic remedies.
//!
//! `cargo run --release --example overfitting` trains on a hundred handwritten digits and draws the losses of training and
//! validation for each remedy side by side. The trainer says when over-fitting starts.

use anyhow::{Context, Result};
use clap::Parser;
use gradus::data::augment::{Augment, Compose, GaussianNoise, Mixup, RandomAffine};
use gradus::prelude::*;
use gradus::train::picture::{Chart, Panel};
use gradus::train::{BatchSource, EarlyStopping, StopEarly};
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same curves.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passes over the training digits.
    #[arg(long, default_value_t = 60)]
    epochs: u64,
    /// How many digits there are to train on.
    #[arg(long, default_value_t = 100)]
    examples: usize,
    /// The folder for the picture.
    #[arg(long, default_value = "out/overfitting")]
    out: PathBuf,
}

type Rows = [Tensor; 2];

/// One way to train.
struct Remedy {
    name: &'static str,
    examples: usize,
    hidden: usize,
    dropout: f64,
    weight_decay: f64,
    label_smoothing: f64,
    augment: Option<Compose>,
    mixup: bool,
    stops_early: bool,
}

impl Remedy {
    /// Nothing against over-fitting.
    fn none(examples: usize) -> Remedy {
        Remedy {
            name: "no remedy",
            examples,
            hidden: 256,
            dropout: 0.0,
            weight_decay: 0.0,
            label_smoothing: 0.0,
            augment: None,
            mixup: false,
            stops_early: false,
        }
    }
}

fn remedies(examples: usize) -> Vec<Remedy> {
    let none = || Remedy::none(examples);
    let moved = RandomAffine::new().degrees(10.0).translate(0.12, 0.12).scale(0.9, 1.1);
    vec![
        none(),
        Remedy { name: "ten times the data", examples: 10 * examples, ..none() },
        Remedy { name: "a simpler model", hidden: 32, ..none() },
        Remedy { name: "weight decay", weight_decay: 1.0, ..none() },
        Remedy { name: "dropout", dropout: 0.6, ..none() },
        Remedy { name: "label smoothing", label_smoothing: 0.1, ..none() },
        Remedy {
            name: "moved and noisy images",
            augment: Some(Compose::new().then(moved).then(GaussianNoise::new(0.1))),
            ..none()
        },
        Remedy { name: "mixup", mixup: true, ..none() },
        Remedy { name: "early stopping", stops_early: true, ..none() },
    ]
}

/// Trains with a remedy; gives the curves, the accuracy on test digits in percent, and their loss.
fn train(remedy: &Remedy, train: &Rows, test: &TensorBatches<2>, seed: u64, epochs: u64) -> Result<(Panel, f64, f64)> {
    let device = train[0].device().clone();
    let init = Init::new(seed, &device);
    let model = Sequential::new()
        .then(Flatten)
        .then(Linear::new(64, remedy.hidden, &init))
        .then(Relu)
        .then(Dropout::new(remedy.dropout, &init))
        .then(Linear::new(remedy.hidden, remedy.hidden, &init))
        .then(Relu)
        .then(Dropout::new(remedy.dropout, &init))
        .then(Linear::new(remedy.hidden, 10, &init));
    let first = |tensor: &Tensor| tensor.slice(0, ..(remedy.examples as isize).min(tensor.shape()[0] as isize));
    let data = TensorDataset::new([first(&train[0]), first(&train[1])])?;
    let key = Key::new(seed);
    let one_hot = |y: &Tensor| y.unsqueeze(1).eq(Tensor::arange(10, &device)).to_dtype(DType::F32);
    // Targets are shares of classes, so that mixed images have mixed ones.
    let batches = TensorBatches::new(data, 25).shuffled(key.fold_in(1)).map_batches(|epoch, batch, [x, y]: Rows| {
        let key = key.fold_in(2).fold_in(epoch).fold_in(batch as u64);
        let x = match &remedy.augment {
            Some(augment) => augment.apply(&x, key),
            None => x,
        };
        let targets = one_hot(&y);
        if !remedy.mixup {
            return Ok([x, targets]);
        }
        let mixed = Mixup::new(0.4).apply(&x, key);
        let targets = mixed.blend(&targets);
        Ok([mixed.inputs, targets])
    });
    let test = test.map_batches(|_, _, [x, y]: Rows| Ok([x, one_hot(&y)]));

    let smoothed = CrossEntropy::new().label_smoothing(remedy.label_smoothing);
    let plain = CrossEntropy::new();
    let optimiser = AdamW::new(1e-3).weight_decay(remedy.weight_decay).of(&model);
    let mut trainer = Trainer::new(&model, optimiser, |model: &Sequential, [x, targets]: &Rows| {
        // Losses of validation are to be compared with each other.
        let is_training = x.shape()[0] <= 25;
        (if is_training { &smoothed } else { &plain }).loss(&model.forward(x), targets)
    })
    .metric("accuracy", |model, [x, targets]| {
        model.forward(x).argmax(1).eq(targets.argmax(1)).to_dtype(DType::F32).mean(..)
    })
    .epochs(epochs);
    if remedy.stops_early {
        trainer = trainer.callback(StopEarly::new("validation_loss", EarlyStopping::falling(5)));
    }
    trainer.fit(&batches, Some(&test))?;
    let (loss, metrics) = trainer.evaluate(&test)?;
    let accuracy = 100.0 * metrics.first().context("no metric")?.1;
    let history = &trainer.history().epochs;
    let curve = |value: &dyn Fn(&gradus::train::EpochRecord) -> Option<f64>| -> Vec<(f64, f64)> {
        history.iter().filter_map(|epoch| Some((epoch.epoch as f64, value(epoch)?))).collect()
    };
    let panel = Panel::new(format!("{}: {accuracy:.1} % right", remedy.name))
        .labels("epoch", "cross-entropy")
        .log_y()
        .line("training", curve(&|epoch| Some(epoch.train_loss)))
        .line("validation", curve(&|epoch| epoch.validation_loss));
    Ok((panel, accuracy, loss))
}

fn main() -> Result<()> {
    let Arguments { device, seed, epochs, examples, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}, seed {seed}", device.description());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits-8x8.csv.gz");
    let table = Table::read(path, &CsvOptions { has_header: false, ..CsvOptions::default() })?;
    let (test, rest) = table.split_by(|row| row % 5 == 4);
    let rows = |table: &Table| -> Rows {
        let (pixels, labels) = table.split_column(64);
        let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
        let count = labels.len();
        [(pixels.to_tensor(&device) / 16.0).reshape([count, 1, 8, 8]), Tensor::from_vec(labels, [count], &device)]
    };
    let test = TensorBatches::new(TensorDataset::new(rows(&test))?, 1024);
    let rest = rows(&rest);
    let mut chart = Chart::new(format!("{examples} digits to train on")).columns(3);
    for remedy in remedies(examples) {
        println!("{}", remedy.name);
        let (panel, accuracy, loss) = train(&remedy, &rest, &test, seed, epochs)?;
        println!("  test accuracy {accuracy:.1} %, loss {loss:.3}");
        chart = chart.panel(panel);
    }
    chart.save(out.join("overfitting.svg"))?;
    println!("picture {}", out.join("overfitting.svg").display());
    Ok(())
}
