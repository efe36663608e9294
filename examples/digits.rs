//! Handwritten digits: a small network with dropout.
//!
//! `cargo run --release --example digits`
//!
//! 1797 real digits of 8×8 pixels (UCI Optical Recognition of Handwritten Digits). Test rows are those whose index leaves
//! 4 when divided by 5. Draws the curves of the training, the confusion matrix, and the digits that it got wrong.

use clap::Parser;
use gradus::prelude::*;
use gradus::train::metrics::ConfusionMatrix;
use gradus::train::picture::{Chart, ConfusionHeatMap, ImageGrid, Panel};

#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same network.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passes over the training set.
    #[arg(long, default_value_t = 60)]
    epochs: usize,
    /// Rows per step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// The folder for the pictures.
    #[arg(long, default_value = "out/digits")]
    out: std::path::PathBuf,
}

const CLASSES: usize = 10;

fn main() -> anyhow::Result<()> {
    let Arguments { device, seed, epochs, batch, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}, seed {seed}", device.description());

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits-8x8.csv.gz");
    let table = Table::read(path, &CsvOptions { has_header: false, ..CsvOptions::default() })?;
    let (test, train) = table.split_by(|row| row % 5 == 4);
    let (train_x, train_y) = tensors(&train, &device);
    let (test_x, test_y) = tensors(&test, &device);
    println!("{} digits to train, {} to test", train.rows(), test.rows());

    let init = Init::new(seed, &device);
    let model = Sequential::new()
        .then(Dropout::new(0.1, &init))
        .then(Linear::new(64, 256, &init))
        .then(Relu)
        .then(Dropout::new(0.4, &init))
        .then(Linear::new(256, 128, &init))
        .then(Relu)
        .then(Dropout::new(0.4, &init))
        .then(Linear::new(128, CLASSES, &init));
    println!("{} parameters", model.num_parameters());

    let data = TensorDataset::new([train_x.clone(), train_y.clone()])?;
    let rate = 3e-3;
    let mut optimiser = Adam::new(rate).decoupled_weight_decay(1e-2).of(&model);
    // Soft targets keep the network from being too sure of itself.
    let training_loss = CrossEntropy::new().label_smoothing(0.1);
    let order = Key::new(seed).fold_in(1);
    let mut progress = Progress::new(epochs as u64, "training");
    let mut history = Vec::with_capacity(epochs);
    for epoch in 0..epochs {
        model.train();
        // The rate falls to zero along half a cosine.
        let done = epoch as f64 / epochs as f64;
        optimiser.set_learning_rate(rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()));
        for [x, y] in data.batches(batch).shuffled(order.fold_in(epoch as u64)) {
            optimiser.step(&training_loss.loss(&model.forward(&x), &y))?;
        }
        model.eval();
        let (train_loss, train_accuracy) = evaluate(&model, &train_x, &train_y)?;
        let (test_loss, test_accuracy) = evaluate(&model, &test_x, &test_y)?;
        history.push([train_loss, test_loss, 100.0 * train_accuracy, 100.0 * test_accuracy]);
        progress.step(1);
        if (epoch + 1) % 10 == 0 {
            progress.note(format!(
                "epoch {:3}  loss {train_loss:.4}  test loss {test_loss:.4}  test accuracy {:.1} %",
                epoch + 1,
                100.0 * test_accuracy
            ));
        }
    }
    progress.finish_with("trained");

    let probabilities = no_grad(|| model.forward(&test_x).softmax(1)).to_vec::<f32>()?;
    let labels: Vec<usize> = test_y.to_vec::<i32>()?.into_iter().map(|label| label as usize).collect();
    let predicted: Vec<usize> = probabilities.chunks(CLASSES).map(most_likely).collect();
    let confusion = ConfusionMatrix::from_predictions(&predicted, &labels, CLASSES)?;
    println!("test accuracy {:.1} %", 100.0 * confusion.accuracy()?);

    let curve = |column: usize| {
        let points = history.iter().enumerate();
        points.map(move |(i, values)| (i as f64 + 1.0, values[column])).collect::<Vec<_>>()
    };
    Chart::new("Digits: learning curves")
        .panel(
            Panel::new("Loss").labels("epoch", "cross-entropy").log_y().line("train", curve(0)).line("test", curve(1)),
        )
        .panel(Panel::new("Accuracy").labels("epoch", "%").line("train", curve(2)).line("test", curve(3)))
        .save(out.join("curves.svg"))?;
    ConfusionHeatMap::new("Digits: confusion matrix", &confusion).save(out.join("confusion.svg"))?;
    let mut wrong = ImageGrid::new("Digits that the network got wrong (label → answer)", 8, 8).range(16.0, 0.0);
    for (row, (&label, &answer)) in labels.iter().zip(&predicted).enumerate().filter(|(_, (l, a))| l != a) {
        let pixels: Vec<f32> = test.row(row)[..64].iter().map(|&p| p as f32).collect();
        let sure = 100.0 * probabilities[row * CLASSES + answer];
        wrong.add(&pixels, format!("{label} → {answer} ({sure:.0} %)"))?;
    }
    wrong.save(out.join("wrong.svg"))?;
    println!("pictures {}/{{curves,confusion,wrong}}.svg", out.display());
    Ok(())
}

/// Pixels in 0 ..= 1 and labels.
fn tensors(table: &Table, device: &Device) -> (Tensor, Tensor) {
    let (pixels, labels) = table.split_column(64);
    let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
    let count = labels.len();
    (pixels.to_tensor(device) / 16.0, Tensor::from_vec(labels, [count], device))
}

/// Loss and accuracy of a model.
fn evaluate(model: &impl Layer, x: &Tensor, y: &Tensor) -> gradus::Result<(f64, f64)> {
    no_grad(|| {
        let logits = model.forward(x);
        let (loss, right) = (cross_entropy(&logits, y), logits.argmax(1).eq(y).to_dtype(DType::F32).mean(..));
        gradus::eval([&loss, &right])?;
        Ok((loss.item::<f32>()? as f64, right.item::<f32>()? as f64))
    })
}

fn most_likely(probabilities: &[f32]) -> usize {
    (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b])).unwrap_or(0)
}
