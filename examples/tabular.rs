//! A table with numbers, categories and missing values: from a CSV file to a network and its metrics.
//!
//! `cargo run --release --example tabular` tells the species of penguins from what was measured on them;
//! `-- --data FILE --target COLUMN` takes another table: a target of numbers is a regression, any other a classification.
//! `--no-header` and `--delimiter` say how it is laid out: `--data adult.csv.gz --no-header --target column_14`.
//! What is needed to use the network later (how columns become features, and the weights) is saved beside the pictures.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use gradus::data::{Categories, Cells, ColumnPlan, Frame, FrameOptions, Preprocessor, split_random, split_stratified};
use gradus::prelude::*;
use gradus::train::metrics::ConfusionMatrix;
use gradus::train::picture::ConfusionHeatMap;
use gradus::train::{load_weights, save_weights};
use std::path::{Path, PathBuf};

/// From a CSV file with numbers, categories and missing values to a network and its metrics: a target of numbers is a
/// regression, any other a classification.
#[derive(Parser)]
struct Arguments {
    /// A CSV file, gzip or not.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/penguins.csv.gz"))]
    data: PathBuf,
    /// The column to predict.
    #[arg(long, default_value = "species")]
    target: String,
    /// The file has no line of names: its columns are called column_0, column_1, …
    #[arg(long)]
    no_header: bool,
    /// What stands between two cells.
    #[arg(long, default_value = ",")]
    delimiter: char,
    /// Columns to leave out: names of rows, or what is known only with the target.
    #[arg(long)]
    without: Vec<String>,
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same network.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passes over the training rows.
    #[arg(long, default_value_t = 40)]
    epochs: u64,
    /// Rows per step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// The folder for pictures, weights and features.
    #[arg(long, default_value = "out/tabular")]
    out: PathBuf,
}

/// Parts of the rows: to train on, to watch the training, and to test.
const PARTS: [f64; 3] = [0.7, 0.15, 0.15];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = Device::named(&arguments.device)?;
    println!("device {}, seed {}", device.description(), arguments.seed);
    let delimiter = u8::try_from(arguments.delimiter).context("a delimiter is a single byte")?;
    let csv = CsvOptions { has_header: !arguments.no_header, delimiter, ..CsvOptions::default() };
    let frame = Frame::read(&arguments.data, &FrameOptions { csv, ..FrameOptions::default() })?;
    let left_out: Vec<&str> = arguments.without.iter().map(String::as_str).collect();
    let frame = known(&frame.without(&left_out)?, &arguments.target)?;
    for column in frame.columns() {
        let kind = match &column.cells {
            Cells::Numbers(_) => "numbers".into(),
            Cells::Categories(categories) => format!("{} categories", categories.vocabulary().len()),
            Cells::Texts(_) => "texts, left out".into(),
        };
        println!("  {:<24} {kind}, {} missing", column.name, column.cells.missing());
    }
    match frame.column(&arguments.target)? {
        Cells::Numbers(numbers) => regression(&arguments, &frame, numbers, &device),
        Cells::Categories(categories) => classification(&arguments, &frame, categories, &device),
        Cells::Texts(_) => bail!("the column {} holds texts: which numbers or classes are they?", arguments.target),
    }
}

/// The rows whose target is known.
fn known(frame: &Frame, target: &str) -> Result<Frame> {
    let is_known = |row: usize| match frame.column(target) {
        Ok(Cells::Numbers(numbers)) => !numbers[row].is_nan(),
        Ok(Cells::Categories(categories)) => categories.codes()[row].is_some(),
        _ => true,
    };
    let rows: Vec<usize> = (0..frame.rows()).filter(|&row| is_known(row)).collect();
    ensure!(rows.len() >= 20, "{} rows with a target: too few to learn from", rows.len());
    Ok(frame.select_rows(&rows)?)
}

/// Features of the parts of a table, by what was measured on the first.
fn features(frame: &Frame, target: &str, parts: &[Vec<usize>], device: &Device) -> Result<(Preprocessor, Vec<Tensor>)> {
    let frame = frame.without(&[target])?;
    let train = frame.select_rows(&parts[0])?;
    let preprocessor = ColumnPlan::of(&frame).fit(&train)?;
    println!("{} features, {:?} rows", preprocessor.names().len(), parts.iter().map(Vec::len).collect::<Vec<_>>());
    let tensor = |part: &Vec<usize>| Ok(preprocessor.transform(&frame.select_rows(part)?)?.to_tensor(device));
    let tensors = parts.iter().map(tensor).collect::<Result<Vec<_>>>()?;
    Ok((preprocessor, tensors))
}

fn network(inputs: usize, outputs: usize, init: &Init) -> Sequential {
    Sequential::new()
        .then(Linear::new(inputs, 64, init))
        .then(Relu)
        .then(Dropout::new(0.2, init))
        .then(Linear::new(64, 64, init))
        .then(Relu)
        .then(Linear::new(64, outputs, init))
}

/// Trains, and saves what is needed to use the network.
fn train(
    arguments: &Arguments,
    model: &Sequential,
    parts: [TensorDataset<2>; 2],
    loss: fn(&Tensor, &Tensor) -> Tensor,
    metric: (&str, fn(&Tensor, &Tensor) -> Tensor),
) -> Result<()> {
    let [rows, watched] = parts;
    let steps = arguments.epochs * rows.len().div_ceil(arguments.batch) as u64;
    let mut optimiser = AdamW::new(3e-3).of(model);
    optimiser.set_schedule(Schedule::cosine(steps, 0.0));
    let order = Key::new(arguments.seed).fold_in(1);
    let rows = TensorBatches::new(rows, arguments.batch).shuffled(order);
    let watched = TensorBatches::new(watched, 1024);
    let mut trainer =
        Trainer::new(model, optimiser, |model: &Sequential, [x, y]: &[Tensor; 2]| loss(&model.forward(x), y))
            .metric(metric.0, |model, [x, y]| metric.1(&model.forward(x), y))
            .epochs(arguments.epochs);
    trainer.fit(&rows, Some(&watched))?;
    trainer.history().save_chart("Learning curves", arguments.out.join("curves.svg"))?;
    model.eval();
    Ok(())
}

/// Saves how columns become features and the weights; and checks that a network that loads them is the same.
fn save(out: &Path, preprocessor: &Preprocessor, model: &Sequential, other: &Sequential, x: &Tensor) -> Result<()> {
    let (features, weights) = (out.join("features.json"), out.join("model.safetensors"));
    std::fs::write(&features, preprocessor.to_json())?;
    save_weights(model, &weights)?;
    load_weights(other, &weights)?;
    other.eval();
    let outputs = |model: &Sequential| no_grad(|| model.forward(x)).to_vec::<f32>();
    ensure!(outputs(model)? == outputs(other)?, "the saved network differs");
    println!("saved {} and {}", features.display(), weights.display());
    Ok(())
}

fn classification(arguments: &Arguments, frame: &Frame, target: &Categories, device: &Device) -> Result<()> {
    let labels = target.labels(&arguments.target)?;
    let parts = split_stratified(&labels, &PARTS, Key::new(arguments.seed))?;
    let (preprocessor, x) = features(frame, &arguments.target, &parts, device)?;
    let y = |part: usize| {
        let labels: Vec<i32> = parts[part].iter().map(|&row| labels[row] as i32).collect();
        Tensor::from_vec(labels, [parts[part].len()], device)
    };
    let init = Init::new(arguments.seed, device);
    let classes = target.vocabulary().len();
    let model = network(preprocessor.names().len(), classes, &init);
    let rows = |part: usize| TensorDataset::new([x[part].clone(), y(part)]);
    let right = |logits: &Tensor, y: &Tensor| logits.argmax(1).eq(y).to_dtype(DType::F32).mean(..);
    train(arguments, &model, [rows(0)?, rows(1)?], cross_entropy, ("accuracy", right))?;

    let predicted = no_grad(|| model.forward(&x[2]).argmax(1)).to_vec::<i32>()?;
    let predicted: Vec<usize> = predicted.into_iter().map(|class| class as usize).collect();
    let known: Vec<usize> = parts[2].iter().map(|&row| labels[row] as usize).collect();
    let confusion = ConfusionMatrix::from_predictions(&predicted, &known, classes)?;
    println!("test accuracy {:.2} %", 100.0 * confusion.accuracy()?);
    for (class, name) in target.vocabulary().iter().enumerate() {
        let count =
            |pairs: &dyn Fn(usize, usize) -> bool| predicted.iter().zip(&known).filter(|&(&p, &k)| pairs(p, k)).count();
        let hits = count(&|p, k| p == class && k == class);
        println!(
            "  {name:<16} {hits} of {} found, {} taken for it",
            count(&|_, k| k == class),
            count(&|p, k| p == class && k != class)
        );
    }
    ConfusionHeatMap::new("Confusion matrix", &confusion).save(arguments.out.join("confusion.svg"))?;
    save(&arguments.out, &preprocessor, &model, &network(preprocessor.names().len(), classes, &init), &x[2])
}

fn regression(arguments: &Arguments, frame: &Frame, target: &[f64], device: &Device) -> Result<()> {
    let parts = split_random(frame.rows(), &PARTS, Key::new(arguments.seed))?;
    let (preprocessor, x) = features(frame, &arguments.target, &parts, device)?;
    // Networks learn numbers near 1: the target is shifted and scaled, and predictions back again.
    let count = parts[0].len() as f64;
    let mean = parts[0].iter().map(|&row| target[row]).sum::<f64>() / count;
    let variance = parts[0].iter().map(|&row| (target[row] - mean).powi(2)).sum::<f64>() / count;
    ensure!(variance > 0.0, "the column {} is the same in all rows", arguments.target);
    let deviation = variance.sqrt();
    let y = |part: usize| {
        let values: Vec<f32> = parts[part].iter().map(|&row| ((target[row] - mean) / deviation) as f32).collect();
        Tensor::from_vec(values, [parts[part].len(), 1], device)
    };
    let init = Init::new(arguments.seed, device);
    let model = network(preprocessor.names().len(), 1, &init);
    let rows = |part: usize| TensorDataset::new([x[part].clone(), y(part)]);
    let absolute = |predicted: &Tensor, y: &Tensor| (predicted - y).abs().mean(..);
    train(arguments, &model, [rows(0)?, rows(1)?], mse_loss, ("absolute error, in deviations", absolute))?;

    let predicted = no_grad(|| model.forward(&x[2])).to_vec::<f32>()?;
    let predicted: Vec<f64> = predicted.into_iter().map(|value| f64::from(value) * deviation + mean).collect();
    let known: Vec<f64> = parts[2].iter().map(|&row| target[row]).collect();
    let errors: Vec<f64> = predicted.iter().zip(&known).map(|(p, k)| p - k).collect();
    let of_mean = known.iter().sum::<f64>() / known.len() as f64;
    let total: f64 = known.iter().map(|k| (k - of_mean).powi(2)).sum();
    let squares: f64 = errors.iter().map(|e| e * e).sum();
    println!("test R² {:.4}", 1.0 - squares / total);
    println!("mean absolute error {:.4}", errors.iter().map(|e| e.abs()).sum::<f64>() / errors.len() as f64);
    save(&arguments.out, &preprocessor, &model, &network(preprocessor.names().len(), 1, &init), &x[2])
}
