//! Handwritten digits, or clothes, of 28×28 pixels: a small convolutional network (after LeNet-5).
//!
//! `cargo run --release --example mnist -- --data DIR`
//!
//! DIR holds the four IDX files of MNIST (LeCun, Cortes, Burges) or Fashion-MNIST (Zalando), gzip or not. Without `--data`,
//! Fashion-MNIST is taken from where Debian's package puts it (`apt-get install dataset-fashion-mnist`). Draws the curves of
//! the training, the confusion matrix, and images that it got wrong.

use anyhow::{Context, bail};
use clap::Parser;
use gradus::data::{Array, DataError, InOrder};
use gradus::prelude::*;
use gradus::train::Outcome;
use gradus::train::metrics::ConfusionMatrix;
use gradus::train::picture::{ConfusionHeatMap, ImageGrid};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Parser)]
struct Arguments {
    /// The folder of the IDX files.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same network.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passes over the training set.
    #[arg(long, default_value_t = 5)]
    epochs: u64,
    /// Images per step.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Only so many images to train on, and a sixth as many to test.
    #[arg(long)]
    images: Option<usize>,
    /// Computes in f16, on weights of f32.
    #[arg(long)]
    mixed: bool,
    /// Saves checkpoints in this folder, and goes on from the last one that is there.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
    /// The folder for the pictures.
    #[arg(long, default_value = "out/mnist")]
    out: PathBuf,
}

const DEBIAN: &str = "/usr/share/datasets/fashion-mnist";
const CLASSES: usize = 10;
const SIDE: usize = 28;

fn main() -> anyhow::Result<()> {
    let Arguments { data, device, seed, epochs, batch, images, mixed, checkpoints, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}, seed {seed}", device.description());
    let Some(folder) = data.or_else(|| Path::new(DEBIAN).is_dir().then(|| DEBIAN.into())) else {
        bail!(
            "there is no {DEBIAN}: `apt-get install dataset-fashion-mnist`, or give the folder of the files that \
             begin with train-images-idx3-ubyte as --data"
        );
    };
    let train = Arc::new(Images::read(&folder, "train", images)?);
    let test = Arc::new(Images::read(&folder, "t10k", images.map(|n| n.div_ceil(6)))?);
    println!("{} images to train, {} to test", train.len(), test.len());

    let init = Init::new(seed, &device);
    let model = Sequential::new()
        .then(Conv2d::new(1, 16, 5, &init).with(Conv::new().padding(2)))
        .then(Relu)
        .then(MaxPool(Pool::new(2)))
        .then(Conv2d::new(16, 32, 5, &init))
        .then(Relu)
        .then(MaxPool(Pool::new(2)))
        .then(Flatten)
        .then(Linear::new(32 * 5 * 5, 128, &init))
        .then(Relu)
        .then(Dropout::new(0.3, &init))
        .then(Linear::new(128, CLASSES, &init));
    println!("{} parameters", model.num_parameters());

    let steps = epochs * train.len().div_ceil(batch) as u64;
    let optimiser = Adam::new(2e-3).schedule(Schedule::cosine(steps, 0.0)).of(&model);
    // Images stay on the host, as bytes; a step uploads its own.
    let rows = |images: &Arc<Images>| {
        let (images, device) = (images.clone(), device.clone());
        move |rows: Vec<usize>| images.batch(rows, &device)
    };
    let order = Shuffled::new(train.len(), Key::new(seed).fold_in(1));
    let train_batches = Loader::with_collate(InMemory::new(0..train.len()), order, batch, rows(&train))?;
    let test_batches = Loader::with_collate(InMemory::new(0..test.len()), InOrder::new(test.len()), 500, rows(&test))?;
    let mut trainer = Trainer::new(&model, optimiser, |model: &Sequential, (x, y): &(Tensor, Tensor)| {
        cross_entropy(&model.forward(x), y)
    })
    .metric("accuracy", |model, (x, y)| model.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..))
    .epochs(epochs)
    .log_every(20)
    .stop_on_signals();
    if mixed {
        trainer = trainer.mixed_precision(LossScale::dynamic());
    }
    if let Some(folder) = checkpoints {
        trainer = trainer.checkpoints(Checkpoints::new(folder).every(Duration::from_secs(30)).resume(true));
    }
    if trainer.fit(&train_batches, Some(&test_batches))? == Outcome::Interrupted {
        return Ok(());
    }
    trainer.history().save_chart("Images of 28×28 pixels: learning curves", out.join("curves.svg"))?;
    model.eval();

    let (predicted, labels) = (predictions(&model, &test, &device)?, test.labels()?);
    let classes: Vec<usize> = predicted.iter().map(|&(class, _)| class).collect();
    let confusion = ConfusionMatrix::from_predictions(&classes, &labels, CLASSES)?;
    println!("test accuracy {:.2} %", 100.0 * confusion.accuracy()?);

    ConfusionHeatMap::new("Confusion matrix", &confusion).save(out.join("confusion.svg"))?;
    let mut wrong = ImageGrid::new("Images that the network got wrong (label → answer)", SIDE, SIDE).range(0.0, 1.0);
    for (row, &label) in labels.iter().enumerate().filter(|&(row, &label)| label != classes[row]).take(48) {
        let pixels = test.batch([row], &Device::cpu())?.0.to_vec::<f32>()?;
        wrong.add(&pixels, format!("{label} → {} ({:.0} %)", classes[row], 100.0 * predicted[row].1))?;
    }
    wrong.save(out.join("wrong.svg"))?;
    println!("pictures {}/{{curves,confusion,wrong}}.svg", out.display());
    Ok(())
}

/// Images and their labels, as bytes.
struct Images {
    pixels: Array,
    labels: Array,
}

impl Images {
    /// The first images of a part of the data set.
    fn read(folder: &Path, part: &str, most: Option<usize>) -> anyhow::Result<Images> {
        let read = |kind: &str| {
            let name = format!("{part}-{kind}-ubyte");
            let path = [folder.join(&name), folder.join(format!("{name}.gz"))].into_iter().find(|path| path.is_file());
            let path = path.with_context(|| format!("neither {name} nor {name}.gz is in {}", folder.display()))?;
            Ok::<_, anyhow::Error>(Array::read_idx(path)?)
        };
        let (pixels, labels) = (read("images-idx3")?, read("labels-idx1")?);
        let (&[count, SIDE, SIDE], &[of_labels]) = (pixels.shape(), labels.shape()) else {
            bail!("images {:?} and labels {:?}, expected [n, {SIDE}, {SIDE}] and [n]", pixels.shape(), labels.shape());
        };
        anyhow::ensure!(count == of_labels, "{count} images, but {of_labels} labels");
        let first = 0..most.unwrap_or(count).min(count);
        Ok(Images { pixels: pixels.select(first.clone())?, labels: labels.select(first)? })
    }

    fn len(&self) -> usize {
        self.labels.rows()
    }

    /// Images `[n, 1, 28, 28]` in 0 ..= 1, and their labels.
    fn batch(&self, rows: impl IntoIterator<Item = usize>, device: &Device) -> Result<(Tensor, Tensor), DataError> {
        let rows: Vec<usize> = rows.into_iter().collect();
        let pixels = self.pixels.select(rows.iter().copied())?.to_tensor(device).unsqueeze(1) / 255.0;
        Ok((pixels, self.labels.select(rows)?.to_tensor((device, DType::I32))))
    }

    fn labels(&self) -> gradus::Result<Vec<usize>> {
        let labels = self.labels.to_tensor((&Device::cpu(), DType::I32)).to_vec::<i32>()?;
        Ok(labels.into_iter().map(|label| label as usize).collect())
    }
}

/// For each image the most likely class, and how sure the network is of it.
fn predictions(model: &impl Layer, images: &Images, device: &Device) -> anyhow::Result<Vec<(usize, f32)>> {
    const AT_ONCE: usize = 500;
    let mut all = Vec::with_capacity(images.len());
    for first in (0..images.len()).step_by(AT_ONCE) {
        let (x, _) = images.batch(first..images.len().min(first + AT_ONCE), device)?;
        let likely = no_grad(|| model.forward(&x).softmax(1));
        let (sure, class) = (likely.max(1), likely.argmax(1));
        gradus::eval([&sure, &class])?;
        let classes = class.to_vec::<i32>()?.into_iter().map(|class| class as usize);
        all.extend(classes.zip(sure.to_vec::<f32>()?));
    }
    Ok(all)
}
