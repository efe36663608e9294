//! Logistic regression on real data: is a tumour benign?
//!
//! `cargo run --release --example logistic_regression`
//!
//! The Wisconsin breast-cancer data (569 tumours, 30 measurements), standardised, with an L2 penalty. Test rows are those
//! whose index leaves 4 when divided by 5.

use anyhow::Context;
use clap::Parser;
use gradus::prelude::*;
use gradus::train::metrics::{ConfusionMatrix, roc_auc};
use gradus::train::picture::{Chart, Panel};

#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// Steps of Adam over the whole training set.
    #[arg(long, default_value_t = 3000)]
    epochs: usize,
    /// The inverse strength of the penalty: the objective is Σ log loss + ‖w‖² / (2 C).
    #[arg(long, default_value_t = 1.0)]
    c: f64,
    /// The folder for pictures and coefficients.
    #[arg(long, default_value = "out/logistic_regression")]
    out: std::path::PathBuf,
}

/// Ten measurements of the cell nuclei, each as mean, standard error and worst.
const MEASUREMENTS: [&str; 10] = [
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
];

fn main() -> anyhow::Result<()> {
    let Arguments { device, epochs, c, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}", device.description());

    // The first line of the file counts rows and columns; it holds no names.
    let options = CsvOptions { has_header: false, skip_lines: 1, ..CsvOptions::default() };
    let table = Table::read(data("breast-cancer-wdbc.csv.gz"), &options)?;
    let names: Vec<String> = ["mean", "error of", "worst"]
        .iter()
        .flat_map(|statistic| MEASUREMENTS.map(|measurement| format!("{statistic} {measurement}")))
        .collect();
    let (test, train) = table.split_by(|row| row % 5 == 4);
    let ((train_x, train_y), (test_x, test_y)) = (train.split_column(30), test.split_column(30));
    let standardiser = Standardiser::fit(&train_x);
    let x = standardiser.transform(&train_x)?.to_tensor(&device);
    let y = Tensor::from_vec(train_y, [train_x.rows(), 1], (&device, DType::F32));

    // The problem is convex: any start leads to the same weights, so it starts at zero.
    let model = Linear::from_tensors(Tensor::zeros([1, 30], &device), Some(Tensor::zeros([1], &device)));
    let mut optimiser = Adam::new(0.05).of(&model);
    let rows = train_x.rows() as f64;
    let mut losses = Vec::with_capacity(epochs);
    let mut progress = Progress::new(epochs as u64, "training");
    for epoch in 0..epochs {
        // Adam's steps do not shrink by themselves; a falling rate lets them settle.
        optimiser.set_learning_rate(0.05 * (1.0 - epoch as f64 / epochs as f64));
        let log_loss = bce_with_logits(&model.forward(&x), &y);
        let penalty = l2_penalty([&model.weight]).context("a model has weights")? / (2.0 * c * rows);
        let loss = log_loss + penalty;
        optimiser.step(&loss)?;
        losses.push(loss.item::<f32>()? as f64);
        progress.step(1);
    }
    progress.finish_with(format!("loss {:.6}", losses.last().copied().unwrap_or(f64::NAN)));

    let test_x = standardiser.transform(&test_x)?.to_tensor(&device);
    let scores: Vec<f64> = model.forward(&test_x).to_vec::<f32>()?.into_iter().map(f64::from).collect();
    let labels: Vec<bool> = test_y.iter().map(|&label| label == 1.0).collect();
    let predicted: Vec<usize> = scores.iter().map(|&score| (score > 0.0) as usize).collect();
    let truth: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
    let confusion = ConfusionMatrix::from_predictions(&predicted, &truth, 2)?;
    println!("{confusion}");
    println!("test accuracy {:.1} %", 100.0 * confusion.accuracy()?);
    println!("test ROC-AUC {:.4}", roc_auc(&scores, &labels)?);

    let weights = model.weight.tensor().to_vec::<f32>()?;
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].abs().total_cmp(&weights[a].abs()));
    println!("largest weights (positive speaks for benign):");
    for &i in &order[..8] {
        println!("  {:>+8.4}  {}", weights[i], names[i]);
    }

    let bias = model.bias.as_ref().map(|b| b.tensor().item::<f32>()).transpose()?.unwrap_or(0.0);
    if c == 1.0 {
        let reference = Table::read(data("breast-cancer-coefficients.csv"), &CsvOptions::default())?;
        let ours = weights.iter().chain([&bias]);
        let distances = ours.zip(reference.column(1)).map(|(&ours, theirs)| (ours as f64 - theirs).abs());
        println!("largest distance from scikit-learn's coefficients {:.6}", distances.fold(0.0, f64::max));
    }

    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let coefficients = out.join("coefficients.csv");
    let lines: String = names.iter().zip(&weights).map(|(name, weight)| format!("{name},{weight}\n")).collect();
    std::fs::write(&coefficients, format!("{lines}intercept,{bias}\n"))?;
    let picture = out.join("loss.svg");
    let curve = losses.iter().enumerate().map(|(i, &loss)| (i as f64 + 1.0, loss));
    Chart::new("Logistic regression on breast-cancer data")
        .panel(Panel::new("Training").labels("step", "log loss + penalty").log_y().line("", curve))
        .save(&picture)?;
    println!("coefficients {}\npicture {}", coefficients.display(), picture.display());
    Ok(())
}

/// A file that comes with the examples.
fn data(file: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data").join(file)
}
