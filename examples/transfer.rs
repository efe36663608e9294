//! Transfer: a network that tells digits apart is given another question, to which there are few answers: has a digit a hole,
//! as 0, 6, 8 and 9 have?
//!
//! `cargo run --release --example transfer` trains on plenty of digits, saves the weights, loads the body into a new network
//! with another head, and fine-tunes it on a few answers: with the body frozen, with all of it, and, to compare, from the
//! start. Draws the learning curves.

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
    /// Passes over the few answers.
    #[arg(long, default_value_t = 60)]
    epochs: u64,
    /// How many digits there are with an answer.
    #[arg(long, default_value_t = 20)]
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
    fn new(classes: usize, init: &Init) -> Net {
        let body = Sequential::new()
            .then(Linear::new(64, 128, init))
            .then(Relu)
            .then(Dropout::new(0.2, init))
            .then(Linear::new(128, 64, init))
            .then(Relu);
        Net { body, head: Linear::new(64, classes, init) }
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
    let mut trainer =
        Trainer::new(net, AdamW::new(rate).of(net), |net: &Net, [x, y]: &Rows| cross_entropy(&net.forward(x), y))
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
    let rows = |chosen: &[usize], question: &dyn Fn(i32) -> i32| -> Result<Rows> {
        let index = Tensor::from_vec(chosen.iter().map(|&row| row as u32).collect(), [chosen.len()], &device);
        let x = pixels.to_tensor(&device).index_select(0, &index) / 16.0;
        let y = chosen.iter().map(|&row| question(labels[row])).collect();
        Ok([x, Tensor::from_vec(y, [chosen.len()], &device)])
    };
    let every_fifth = |from: std::ops::Range<usize>| -> Vec<usize> {
        (0..labels.len()).filter(|row| from.contains(&(row % 5))).collect()
    };
    let (which, has_hole) = (|digit: i32| digit, |digit: i32| i32::from([0, 6, 8, 9].contains(&digit)));

    let old = Net::new(10, &Init::new(seed, &device));
    let test = every_fifth(4..5);
    let curve = train(&old, 3e-3, 30, rows(&every_fifth(0..3), &which)?, &rows(&test, &which)?, seed)?;
    println!("which digit? accuracy {:.1} %", curve.last().context("no epoch")?);
    let weights = out.join("digits.safetensors");
    std::fs::create_dir_all(&out)?;
    save_weights(&old, &weights)?;

    // Digits that the body has not seen.
    let few: Vec<usize> = every_fifth(3..4).into_iter().take(examples).collect();
    let test = rows(&test, &has_hole)?;
    println!("a hole? {} answers, tested on {}:", few.len(), test[1].numel());
    let mut panel = Panel::new(format!("Has it a hole? From {} answers", few.len())).labels("epoch", "accuracy, %");
    for (name, loads, freezes) in
        [("from the start", false, false), ("body loaded", true, false), ("body loaded and frozen", true, true)]
    {
        let net = Net::new(2, &Init::new(seed + 1, &device));
        if loads {
            let saved = Safetensors::read(&weights, &device)?.tensors;
            StateLoader::new().prefix("body.").into(&net.body, &saved)?;
        }
        if freezes {
            net.body.freeze();
        }
        let trained: usize = net.trainable_parameters().iter().map(|(_, p)| p.shape().numel()).sum();
        let curve = train(&net, 3e-3, epochs, rows(&few, &has_hole)?, &test, seed)?;
        println!("  {name:<24} {trained:>6} numbers trained, accuracy {:.1} %", curve.last().context("no epoch")?);
        panel = panel.line(name, curve.into_iter().enumerate().map(|(i, accuracy)| (i as f64 + 1.0, accuracy)));
    }
    Chart::new("Transfer").panel(panel).save(out.join("transfer.svg"))?;
    println!("picture {}", out.join("transfer.svg").display());
    Ok(())
}
