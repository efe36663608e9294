//! Which hyperparameters? Random search gives every trial the same number of epochs; successive halving gives all of them a
//! few, and more to those that did well. Both spend as much on a network for handwritten digits; results are kept in files,
//! so that a search that was stopped goes on.
//!
//! `cargo run --release --example study` draws the trials of both, and tests the best.

use anyhow::{Context, Result};
use clap::Parser;
use gradus::data::split_random;
use gradus::prelude::*;
use gradus::train::picture::{Chart, Panel};
use gradus::train::{Better, SearchSpace, Study, Trial, TrialError};
use std::path::PathBuf;

/// Searches for hyperparameters at random and by successive halving, at the same cost.
#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same trials.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// The folder for the picture and the results; where it holds some, the search goes on.
    #[arg(long, default_value = "out/study")]
    out: PathBuf,
}

/// Halving: 27 trials of one epoch, 9 of 3, 3 of 9 and one of 27. Random search: 12 trials of 9 epochs.
const TRIALS: u64 = 27;
const EPOCHS: u64 = 27;
const SHARE: u64 = 3;
const EACH: u64 = 9;

/// Rows to train on, to choose by, and to test.
struct Digits {
    train: TensorDataset<2>,
    validation: TensorDataset<2>,
    test: TensorDataset<2>,
}

impl Digits {
    fn read(device: &Device, seed: u64) -> Result<Digits> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits-8x8.csv.gz");
        let table = Table::read(path, &CsvOptions { has_header: false, ..CsvOptions::default() })?;
        let rows = |rows: &[usize]| {
            let (pixels, labels) = table.select_rows(rows).split_column(64);
            let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
            TensorDataset::new([pixels.to_tensor(device) / 16.0, Tensor::from_vec(labels, [rows.len()], device)])
        };
        let parts = split_random(table.rows(), &[0.6, 0.2, 0.2], Key::new(seed))?;
        Ok(Digits { train: rows(&parts[0])?, validation: rows(&parts[1])?, test: rows(&parts[2])? })
    }

    /// The network of a trial, after so many epochs.
    fn train(&self, trial: &Trial, epochs: u64, device: &Device) -> Result<Sequential, TrialError> {
        let init = Init::new(trial.number(), device);
        let hidden = trial.integer("hidden")? as usize;
        let model = Sequential::new()
            .then(Linear::new(64, hidden, &init))
            .then(Relu)
            .then(Dropout::new(trial.value("dropout")?, &init))
            .then(Linear::new(hidden, 10, &init));
        let rate = trial.value("rate")?;
        let optimiser = match trial.choice("optimiser")? {
            "adam" => Adam::new(rate).of(&model),
            _ => Sgd::new(rate).momentum(0.9).of(&model),
        };
        let batches = TensorBatches::new(self.train.clone(), 32).shuffled(Key::new(trial.number()));
        let loss = |model: &Sequential, [x, y]: &[Tensor; 2]| cross_entropy(&model.forward(x), y);
        Trainer::new(&model, optimiser, loss).epochs(epochs).quiet().skip_non_finite().fit(&batches, None)?;
        Ok(model)
    }

    /// Its accuracy on the digits to choose by.
    fn result(&self, trial: &Trial, epochs: u64, device: &Device) -> Result<f64, TrialError> {
        let accuracy = accuracy(&self.train(trial, epochs, device)?, &self.validation)?;
        println!("  trained, epochs {epochs:2}: {:5.1} %  {trial}", 100.0 * accuracy);
        Ok(accuracy)
    }
}

/// The share of digits that are told right.
fn accuracy(model: &Sequential, digits: &TensorDataset<2>) -> gradus::Result<f64> {
    let [x, y] = digits.tensors();
    model.eval();
    let right = no_grad(|| model.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..));
    Ok(f64::from(right.item::<f32>()?))
}

fn main() -> Result<()> {
    let Arguments { device, seed, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}, seed {seed}", device.description());
    std::fs::create_dir_all(&out)?;
    let digits = Digits::read(&device, seed)?;
    let space = SearchSpace::new()
        .log_uniform("rate", 1e-4, 1.0)
        .integer("hidden", 8, 128)
        .uniform("dropout", 0.0, 0.5)
        .choice("optimiser", ["adam", "sgd"]);

    // Both draw the same trials: what differs is who gets how many epochs.
    let open = |file: &str| Study::open(out.join(file), space.clone(), seed, Better::Higher);
    let (mut random, mut halving) = (open("random.json")?, open("halving.json")?);
    let rounds = TRIALS.ilog(SHARE) as u64 + 1;
    println!("random search");
    let (best, found) = random.random(rounds * TRIALS / EACH, |trial| digits.result(trial, EACH, &device))?;
    println!("best of random search: {:.1} %  {best}", 100.0 * found);
    println!("successive halving");
    let (best, found) =
        halving.halving(TRIALS, 1, EPOCHS, SHARE, |trial, epochs| digits.result(trial, epochs, &device))?;
    println!("best of halving: {:.1} %  {best}", 100.0 * found);

    let mut chart = Chart::new("Trials: accuracy on the digits to choose by");
    let panel = |title: &str| Panel::new(title).labels("learning rate, as a power of ten", "accuracy (%)");
    let point = |trial: &Trial, accuracy: f64| Some((trial.value("rate").ok()?.log10(), 100.0 * accuracy));
    let of_random = random.results().filter_map(|(trial, _, accuracy)| point(&trial, accuracy));
    chart = chart.panel(panel("Random search").points(format!("after {EACH} epochs"), of_random));
    let of_halving = (0..rounds as u32).map(|round| SHARE.pow(round)).fold(
        panel("Successive halving, by epochs"),
        |panel, epochs| {
            let round = halving.results().filter(|&(_, budget, _)| budget == epochs);
            panel.points(format!("after {epochs}"), round.filter_map(|(trial, _, accuracy)| point(&trial, accuracy)))
        },
    );
    chart.panel(of_halving).save(out.join("trials.svg"))?;

    let model = digits.train(&best, EPOCHS, &device).map_err(anyhow::Error::from_boxed).context("the best trial")?;
    println!("test accuracy {:.1} %", 100.0 * accuracy(&model, &digits.test)?);
    println!("picture {}/trials.svg", out.display());
    Ok(())
}
