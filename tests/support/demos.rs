//! The training of the demos, on any device and without their pictures.

use gradus::Result;
use gradus::prelude::*;
use gradus::train::Optimiser;

/// A file that comes with the examples.
fn table(file: &str, skip_lines: usize) -> Table {
    let path = format!("{}/../../examples/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let options = CsvOptions { has_header: false, skip_lines, ..CsvOptions::default() };
    Table::read(path, &options).expect("the data is in the repository")
}

/// The digits' pixels, from 0 to 1, and labels.
pub(crate) fn digits(device: &Device, dtype: DType) -> Result<TensorDataset<2>> {
    let (pixels, labels) = table("digits-8x8.csv.gz", 0).split_column(64);
    let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
    let labels = Tensor::from_vec(labels, [pixels.rows()], device);
    TensorDataset::new([pixels.to_tensor((device, dtype)) / 16.0, labels])
}

/// The first losses of a demo.
pub(crate) type Losses = fn(&Device, steps: usize) -> Result<Vec<f32>>;

/// A line through noisy points, by gradient descent.
pub(crate) fn linear_regression(device: &Device, steps: usize) -> Result<Vec<f32>> {
    let rng = Rng::new(42);
    let x = Tensor::randn([100, 1], rng.key(), device);
    let y = &x * 3.0 + Tensor::randn([100, 1], rng.key(), device) * 0.1;
    let model = Linear::new(1, 1, &Init::new(42, device));
    let mut optimiser = Sgd::new(0.01).of(&model);
    (0..steps).map(|_| step(&mut optimiser, mse_loss(&model.forward(&x), &y))).collect()
}

/// Tumours, benign or not, by Adam with a penalty.
pub(crate) fn logistic_regression(device: &Device, steps: usize) -> Result<Vec<f32>> {
    let (x, y) = table("breast-cancer-wdbc.csv.gz", 1).split_column(30);
    let rows = x.rows();
    let x = Standardiser::fit(&x).transform(&x).expect("the same columns").to_tensor(device);
    let y = Tensor::from_vec(y, [rows, 1], (device, DType::F32));
    let model = Linear::from_tensors(Tensor::zeros([1, 30], device), Some(Tensor::zeros([1], device)));
    let mut optimiser = Adam::new(0.05).of(&model);
    let loss = || {
        let penalty = l2_penalty([&model.weight]).expect("there is a weight");
        bce_with_logits(&model.forward(&x), &y) + penalty / (2.0 * rows as f64)
    };
    (0..steps).map(|_| step(&mut optimiser, loss())).collect()
}

/// Digits, by a network with dropout.
pub(crate) struct Digits {
    pub(crate) model: Sequential,
    data: TensorDataset<2>,
    pub(crate) optimiser: Optimiser,
}

impl Digits {
    pub(crate) fn new(seed: u64, device: &Device) -> Result<Digits> {
        let init = Init::new(seed, device);
        let model = Sequential::new()
            .then(Dropout::new(0.1, &init))
            .then(Linear::new(64, 256, &init))
            .then(Relu)
            .then(Dropout::new(0.4, &init))
            .then(Linear::new(256, 128, &init))
            .then(Relu)
            .then(Dropout::new(0.4, &init))
            .then(Linear::new(128, 10, &init));
        let optimiser = Adam::new(3e-3).decoupled_weight_decay(1e-2).of(&model);
        Ok(Digits { model, data: digits(device, DType::F32)?, optimiser })
    }

    /// Some steps over the shuffled digits, and their losses.
    pub(crate) fn train(&mut self, epoch: u64, steps: usize) -> Result<Vec<f32>> {
        let loss = CrossEntropy::new().label_smoothing(0.1);
        let batches = self.data.batches(64).shuffled(Key::new(7).fold_in(epoch)).take(steps);
        batches.map(|[x, y]| step(&mut self.optimiser, loss.loss(&self.model.forward(&x), &y))).collect()
    }

    /// The percentage of all digits that are told right.
    pub(crate) fn accuracy(&self) -> Result<f32> {
        self.model.eval();
        let [x, y] = self.data.tensors();
        let right = no_grad(|| self.model.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..)).item::<f32>();
        self.model.train();
        Ok(100.0 * right?)
    }
}

/// The first losses of [`Digits`].
pub(crate) fn digits_network(device: &Device, steps: usize) -> Result<Vec<f32>> {
    Digits::new(42, device)?.train(0, steps)
}

fn step(optimiser: &mut Optimiser, loss: Tensor) -> Result<f32> {
    optimiser.step(&loss)?;
    loss.item()
}
