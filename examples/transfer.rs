//! Transfer: a network that has learned the digits 0 to 4 is given a new head for 5 to 9, of which there are few examples.
//!
//! `cargo run --release --example transfer` trains on plenty of one half, saves the weights, loads the body into a new
//! network, and fine-tunes it on a few digits of the other half: with the body frozen, with all of it, and, to compare, from
//! the start. Draws the learning curves.

use anyhow::{Context, Result};
use clap::Parser;
use gradus::data::Safetensors;
use gradus::prelude::*;
use gradus::train::picture::{Chart, Panel};
use gradus::train::save_weights;
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same networks.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passes over the few digits.
    #[arg(long, default_value_t = 60)]
    epochs: u64,
    /// How many examples of each new digit there are.
    #[arg(long, default_value_t = 10)]
    examples: usize,
    /// The folder for the picture and the weights.
    #[arg(long, default_value = "out/transfer")]
    out: PathBuf,
}

/// The layers that are carried over, and the last one, which is not.
#[derive(Module)]
struct Net {
    body: Sequential,
    head: Linear,
}

impl Net {
    fn new(init: &Init) -> Net {
        let body = Sequential::new()
            .then(Linear::new(64, 128, init))
            .then(Relu)
            .then(Dropout::new(0.2, init))
            .then(Linear::new(128, 64, init))
            .then(Relu);
        Net { body, head: Linear::new(64, 5, init) }
    }
}

impl Layer for Net {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.head.forward(&self.body.forward(x))
    }
}

type Rows = [Tensor; 2];

/// Trains; gives the accuracy on `test` after each epoch, in percent.
fn train(net: &Net, rate: f64, epochs: u64, rows: Rows, test: &Rows, seed: u64) -> Result<Vec<f64>> {
    let data = TensorBatches::new(TensorDataset::new(rows)?, 16).shuffled(Key::new(seed));
    let test = TensorBatches::new(TensorDataset::new(test.clone())?, 1024);
    let mut trainer = Trainer::new(net, AdamW::new(rate).of(net), |net: &Net, [x, y]: &Rows| {
        cross_entropy(&net.forward(x), y)
    })
    .metric("accuracy", |net, [x, y]| net.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..))
    .epochs(epochs)
    .quiet();
    trainer.fit(&data, Some(&test))?;
    Ok(trainer.history().epochs.iter().filter_map(|epoch| Some(100.0 * epoch.value("accuracy")?)).collect())
}

fn main() -> Result<()> {
    let Arguments { device, seed, epochs, examples, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}, seed {seed}", device.description());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits-8x8.csv.gz");
    let table = Table::read(path, &CsvOptions { has_header: false, ..CsvOptions::default() })?;
    let (pixels, labels) = table.split_column(64);
    let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
    let rows = |chosen: &[usize], first: i32| -> Result<Rows> {
        let index = Tensor::from_vec(chosen.iter().map(|&row| row as u32).collect(), [chosen.len()], &device);
        let x = pixels.to_tensor(&device).index_select(0, &index) / 16.0;
        let y = chosen.iter().map(|&row| labels[row] - first).collect();
        Ok([x, Tensor::from_vec(y, [chosen.len()], &device)])
    };
    let of = |digits: std::ops::Range<i32>, test: bool| -> Vec<usize> {
        (0..labels.len()).filter(|&row| digits.contains(&labels[row]) && (row % 5 == 4) == test).collect()
    };

    let old = Net::new(&Init::new(seed, &device));
    let curve = train(&old, 3e-3, 30, rows(&of(0..5, false), 0)?, &rows(&of(0..5, true), 0)?, seed)?;
    println!("0 to 4, all examples: accuracy {:.1} %", curve.last().context("no epoch")?);
    let weights = out.join("old.safetensors");
    std::fs::create_dir_all(&out)?;
    save_weights(&old, &weights)?;

    // The first few of each new digit.
    let mut few = Vec::new();
    for digit in 5..10 {
        few.extend(of(digit..digit + 1, false).into_iter().take(examples));
    }
    let test = rows(&of(5..10, true), 5)?;
    println!("5 to 9, {} examples, tested on {}:", few.len(), test[1].numel());
    let mut panel = Panel::new(format!("Digits 5 to 9 from {examples} examples each")).labels("epoch", "accuracy, %");
    for (name, loads, freezes) in
        [("from the start", false, false), ("body loaded", true, false), ("body loaded and frozen", true, true)]
    {
        let net = Net::new(&Init::new(seed + 1, &device));
        if loads {
            let saved = Safetensors::read(&weights, &device)?.tensors;
            StateLoader::new().prefix("body.").into(&net.body, &saved)?;
        }
        if freezes {
            net.body.freeze();
        }
        let trained: usize = net.trainable_parameters().iter().map(|(_, p)| p.shape().numel()).sum();
        let curve = train(&net, 3e-3, epochs, rows(&few, 5)?, &test, seed)?;
        println!("  {name:<24} {trained:>6} numbers trained, accuracy {:.1} %", curve.last().context("no epoch")?);
        panel = panel.line(name, curve.into_iter().enumerate().map(|(i, accuracy)| (i as f64 + 1.0, accuracy)));
    }
    Chart::new("Transfer").panel(panel).save(out.join("transfer.svg"))?;
    println!("picture {}", out.join("transfer.svg").display());
    Ok(())
}
