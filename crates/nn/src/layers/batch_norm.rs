//! Normalisation over a batch, and what it shares with others that look at channels.

use super::norm::widened_with;
use super::running::Running;
use crate::{Buffer, Init, Initializer, Layer, Mode, Module, Param, watch};
use gradus_tensor::{Axes, DType, Error, ErrorKind, Tensor};

/// Batch normalisation (Ioffe, Szegedy 2015) of `[batch, channels]` or `[batch, channels, spatial…]`: y = (x − mean) / √(variance + ε)
/// · weight + bias for each channel.
///
/// In training, mean and variance are those of the batch, over all axes but the channels', and the running ones come nearer to
/// them: running ← (1 − momentum) · running + momentum · batch, with the variance's unbiased estimate; what is not finite is left
/// out. In use, they are the running ones. Weight, bias, mean and variance start as 1, 0, 0 and 1.
///
/// The running statistics are [buffers](Buffer): forward takes `&self`, and their new values are computed with the optimiser's next
/// step, in the same run. A compiled function, or `vmap`, has them in use only: training there is an error.
///
/// ```
/// use gradus_nn::{BatchNorm, Init, Layer, Module};
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let layer = BatchNorm::new(3, &Init::new(0, &device));
/// let x = Tensor::randn([64, 3, 5, 5], Key::new(1), &device) * 2.0 + 7.0;
/// let y = layer.forward(&x);
/// assert!(y.mean(..).item::<f32>()?.abs() < 1e-5 && (y.std(.., 0).item::<f32>()? - 1.0).abs() < 1e-4);
/// layer.eval();
/// // A tenth of the way from 0 to 7.
/// let mean = layer.running_mean.as_ref().unwrap().tensor().to_vec::<f32>()?;
/// assert!(mean.iter().all(|mean| (mean - 0.7).abs() < 0.02), "{mean:?}");
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct BatchNorm {
    /// `[channels]`, if there is one.
    pub weight: Option<Param>,
    /// `[channels]`, if there is one.
    pub bias: Option<Param>,
    /// `[channels]`; without it, the batch's statistics serve in use too.
    pub running_mean: Option<Buffer>,
    /// `[channels]`.
    pub running_var: Option<Buffer>,
    /// How many batches the running statistics have seen, `[]`.
    pub num_batches_tracked: Option<Buffer>,
    epsilon: f64,
    #[module(skip)]
    momentum: Option<f64>,
    mode: Mode,
}

/// [`BatchNorm`], under PyTorch's name for `[batch, channels]` and `[batch, channels, length]`.
pub type BatchNorm1d = BatchNorm;
/// [`BatchNorm`], under PyTorch's name for images.
pub type BatchNorm2d = BatchNorm;

impl BatchNorm {
    /// A layer with weight, bias and running statistics; ε = 10⁻⁵, momentum 0.1.
    #[track_caller]
    pub fn new(channels: usize, init: &Init) -> BatchNorm {
        let (weight, bias) = scale_and_shift(channels, init);
        let [running_mean, running_var, num_batches_tracked] = Running::start(channels, init);
        BatchNorm {
            weight: Some(weight),
            bias: Some(bias),
            running_mean,
            running_var,
            num_batches_tracked,
            epsilon: 1e-5,
            momentum: Some(0.1),
            mode: Mode::training(),
        }
    }

    /// The same layer without weight and bias.
    pub fn without_affine(self) -> BatchNorm {
        BatchNorm { weight: None, bias: None, ..self }
    }

    /// The same layer without running statistics: each batch is normalised by its own, in use too.
    pub fn without_running_statistics(self) -> BatchNorm {
        BatchNorm { running_mean: None, running_var: None, num_batches_tracked: None, ..self }
    }

    /// The same layer with another ε.
    pub fn epsilon(self, epsilon: f64) -> BatchNorm {
        BatchNorm { epsilon, ..self }
    }

    /// The same layer with another momentum, how much of the batch's statistics is taken over. `None` makes the running ones
    /// means of those of all batches so far.
    pub fn momentum(self, momentum: impl Into<Option<f64>>) -> BatchNorm {
        BatchNorm { momentum: momentum.into(), ..self }
    }
}

impl Layer for BatchNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let op = "batch_norm";
        let call = watch(self);
        if x.error().is_some() {
            return x.clone();
        }
        let channels = self.weight.as_ref().map(Param::shape).or(self.running_mean.as_ref().map(Buffer::shape));
        if x.rank() < 2 || channels.is_some_and(|channels| channels[..] != x.shape()[1..2]) {
            let channels = self.weight.as_ref().map_or(String::new(), |weight| format!(" of {}", weight.shape()));
            let expected = format!("[batch, channels, …] with channels{channels}");
            return failed(op, x, ErrorKind::Rank { expected, shape: x.shape().clone() });
        }
        let input = x.widened();
        let running = Running::of([&self.running_mean, &self.running_var, &self.num_batches_tracked]);
        let in_use = running.as_ref().filter(|_| !self.mode.is_training());
        let normal = match in_use {
            Some(running) => running.normalise(&input, self.epsilon),
            None => {
                let count = x.numel() / x.shape()[1].max(1);
                if self.mode.is_training() && count < 2 {
                    let (expected, found) = ("at least 2 elements a channel in training", format!("{}", x.shape()));
                    return failed(op, x, ErrorKind::Argument { argument: "the batch", expected, found });
                }
                let axes = Axes::from((0..x.rank()).filter(|&axis| axis != 1).collect::<Vec<_>>());
                let mean = input.mean_keepdim(axes.clone());
                let centred = input - &mean;
                let variance = centred.square().mean_keepdim(axes);
                if let Some(running) = running {
                    let unbiased = &variance * (count as f64 / (count as f64 - 1.0));
                    let followed = running.follow(self.momentum, [(mean.clone(), &mean), (unbiased, &variance)]);
                    if let Err(error) = followed {
                        return Tensor::build(x.device(), || Err(error));
                    }
                }
                centred * (variance + self.epsilon).rsqrt()
            }
        };
        call.output(affine(op, normal, x, [&self.weight, &self.bias]))
    }
}

/// Weight and bias of so many channels: ones and zeros.
#[track_caller]
pub(super) fn scale_and_shift(channels: usize, init: &Init) -> (Param, Param) {
    let new = |initializer| Param::new(init.tensor([channels], initializer));
    (new(Initializer::Ones), new(Initializer::Zeros))
}

/// A tensor that carries an error, where x is.
#[track_caller]
pub(super) fn failed(op: &'static str, x: &Tensor, kind: ErrorKind) -> Tensor {
    let error = Error::new(op, kind);
    Tensor::build(x.device(), || Err(error))
}

/// What sums of a dtype are kept in.
pub(super) fn wide(dtype: DType) -> DType {
    if dtype == DType::F16 { DType::F32 } else { dtype }
}

/// Scaled and shifted by channel, and as x is.
#[track_caller]
pub(super) fn affine(op: &'static str, normal: Tensor, x: &Tensor, [weight, bias]: [&Option<Param>; 2]) -> Tensor {
    let along = |parameter: &Param| {
        let parameter = widened_with(op, x, parameter);
        (2..x.rank()).fold(parameter, |parameter, _| parameter.unsqueeze(-1))
    };
    let scaled = match weight {
        Some(weight) => normal * along(weight),
        None => normal,
    };
    let shifted = match bias {
        Some(bias) => scaled + along(bias),
        None => scaled,
    };
    if shifted.error().is_some() { shifted } else { shifted.to_dtype(x.dtype()) }
}
