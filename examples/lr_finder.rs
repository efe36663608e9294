//! Which learning rate? A few steps with rates that grow exponentially show where the loss falls fastest and where it breaks
//! down (Smith 2017). The suggestion is then compared with rates around it.
//!
//! `cargo run --release --example lr_finder` does this for a network on handwritten digits, and draws both.

use anyhow::{Context, Result};
use clap::Parser;
use gradus::prelude::*;
use gradus::train::RangeTest;
use gradus::train::picture::{Chart, Panel};
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same curves.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passes over the training digits for each rate that is tried.
    #[arg(long, default_value_t = 5)]
    epochs: u64,
    /// The folder for pictures.
    #[arg(long, default_value = "out/lr_finder")]
    out: PathBuf,
}

type Rows = [Tensor; 2];

fn network(seed: u64, device: &Device) -> Sequential {
    let init = Init::new(seed, device);
    Sequential::new().then(Linear::new(64, 64, &init)).then(Relu).then(Linear::new(64, 10, &init))
}

fn loss(model: &Sequential, [x, y]: &Rows) -> Tensor {
    cross_entropy(&model.forward(x), y)
}

fn main() -> Result<()> {
    let Arguments { device, seed, epochs, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}, seed {seed}", device.description());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits-8x8.csv.gz");
    let table = Table::read(path, &CsvOptions { has_header: false, ..CsvOptions::default() })?;
    let (test, train) = table.split_by(|row| row % 5 == 4);
    let rows = |table: &Table| {
        let (pixels, labels) = table.split_column(64);
        let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
        let count = labels.len();
        TensorDataset::new([pixels.to_tensor(&device) / 16.0, Tensor::from_vec(labels, [count], &device)])
    };
    let batches = TensorBatches::new(rows(&train)?, 32).shuffled(Key::new(seed));
    let test = TensorBatches::new(rows(&test)?, 1024);

    let model = network(seed, &device);
    let mut optimiser = Sgd::new(0.1).momentum(0.9).of(&model);
    // Batch after batch, epoch after epoch.
    let mut stream = (0u64..).flat_map(|epoch| gradus::train::BatchSource::epoch(&batches, epoch, 0));
    let curve = RangeTest::new(1e-4, 10.0, 120).run(&model, &mut optimiser, || match stream.next() {
        Some(Ok(batch)) => loss(&model, &batch),
        _ => Tensor::new(f32::NAN, &device),
    })?;
    curve.chart().save(out.join("range.svg"))?;
    let suggestion = curve.suggestion().context("the loss did not fall at any rate")?;
    println!("suggested rate {suggestion:.3}");

    let mut panel =
        Panel::new(format!("After {epochs} epochs")).labels("learning rate, as a power of ten", "loss on test digits");
    let mut points = Vec::new();
    for factor in [0.01, 0.1, 0.3, 1.0, 3.0, 10.0] {
        let rate = suggestion * factor;
        let model = network(seed, &device);
        let mut trainer = Trainer::new(&model, Sgd::new(rate).momentum(0.9).of(&model), loss).epochs(epochs).quiet();
        // A rate that is far too high ends with a loss that is no number.
        match trainer.fit(&batches, Some(&test)) {
            Ok(_) => {
                let loss =
                    trainer.history().epochs.last().and_then(|epoch| epoch.validation_loss).context("no epoch")?;
                println!("rate {rate:<8.4} loss {loss:.4}");
                points.push((rate.log10(), loss));
            }
            Err(error) => println!("rate {rate:<8.4} {error}"),
        }
    }
    panel = panel.line("digits", points);
    Chart::new("Learning rates").panel(panel).save(out.join("rates.svg"))?;
    println!("pictures {}/{{range,rates}}.svg", out.display());
    Ok(())
}
