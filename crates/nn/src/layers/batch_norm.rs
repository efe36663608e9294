//! Normalisations that look at channels: over a batch, over groups of channels, over each channel.

use super::norm::widened_with;
use crate::{Buffer, Init, Initializer, Layer, Mode, Module, Param, watch};
use gradus_tensor::{Axes, DType, Error, ErrorKind, Operand, Placement, Result, Tensor};

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
        let on = || Placement { device: init.device().clone(), dtype: Some(wide(init.float_dtype())) };
        BatchNorm {
            weight: Some(weight),
            bias: Some(bias),
            running_mean: Some(Buffer::new(Tensor::zeros([channels], on()))),
            running_var: Some(Buffer::new(Tensor::ones([channels], on()))),
            num_batches_tracked: Some(Buffer::new(Tensor::zeros([0usize; 0], (init.device(), DType::I32)))),
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

    /// Brings the running statistics nearer to a batch's mean and (biased) variance, of `count` elements a channel.
    #[track_caller]
    fn track(&self, mean: &Tensor, variance: &Tensor, count: usize) -> Result<()> {
        let (Some(running_mean), Some(running_var)) = (&self.running_mean, &self.running_var) else {
            return Ok(());
        };
        let number = self.num_batches_tracked.as_ref().map(|batches| batches.tensor() + 1);
        let share = match (self.momentum, &number) {
            (Some(momentum), _) => Operand::from(momentum),
            (None, Some(number)) => number.to_dtype(running_mean.tensor().dtype()).recip().into(),
            (None, None) => Operand::from(1.0),
        };
        let unbiased = variance.detach() * (count as f64 / (count as f64 - 1.0));
        for (running, batch, seen) in [(running_mean, &mean.detach(), mean), (running_var, &unbiased, variance)] {
            let old = running.tensor();
            let batch = batch.reshape(old.shape());
            let new = &old + (&batch - &old) * share.clone();
            // One overflow must not stay in them for good.
            running.update(&batch.is_finite().where_(new, &old), seen)?;
        }
        match self.num_batches_tracked.as_ref().zip(number) {
            Some((batches, number)) => batches.update(&number, mean),
            None => Ok(()),
        }
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
        let along = |vector: &Tensor| (2..x.rank()).fold(vector.clone(), |vector, _| vector.unsqueeze(-1));
        let input = x.widened();
        let running = self.running_mean.as_ref().zip(self.running_var.as_ref());
        let normal = match running.filter(|_| !self.mode.is_training()) {
            Some((mean, variance)) => {
                let [mean, variance] = [mean, variance].map(|buffer| along(&buffer.tensor()));
                (input - mean) * (variance + self.epsilon).rsqrt()
            }
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
                if self.mode.is_training()
                    && let Err(error) = self.track(&mean, &variance, count)
                {
                    return Tensor::build(x.device(), || Err(error));
                }
                centred * (variance + self.epsilon).rsqrt()
            }
        };
        call.output(affine(op, normal, x, [&self.weight, &self.bias]))
    }
}

/// Group normalisation (Wu, He 2018) of `[batch, channels, …]`: channels in groups, and each example's groups normalised by their own
/// mean and variance, with a weight and a bias for each channel, which start as 1 and 0.
///
/// ```
/// use gradus_nn::{GroupNorm, Init, Layer};
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let layer = GroupNorm::new(2, 6, &Init::new(0, &device));
/// let y = layer.forward(&(Tensor::randn([4, 6, 5, 5], Key::new(1), &device) + 3.0));
/// assert!(y.slice(0, ..1).slice(1, ..3).mean(..).item::<f32>()?.abs() < 1e-5);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct GroupNorm {
    /// `[channels]`, if there is one.
    pub weight: Option<Param>,
    /// `[channels]`, if there is one.
    pub bias: Option<Param>,
    groups: usize,
    channels: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// A layer with weight and bias, for so many channels in so many groups; ε = 10⁻⁵.
    #[track_caller]
    pub fn new(groups: usize, channels: usize, init: &Init) -> GroupNorm {
        let (weight, bias) = scale_and_shift(channels, init);
        GroupNorm { weight: Some(weight), bias: Some(bias), groups, channels, epsilon: 1e-5 }
    }

    /// The same layer without weight and bias.
    pub fn without_affine(self) -> GroupNorm {
        GroupNorm { weight: None, bias: None, ..self }
    }

    /// The same layer with another ε.
    pub fn epsilon(self, epsilon: f64) -> GroupNorm {
        GroupNorm { epsilon, ..self }
    }
}

impl Layer for GroupNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let normal = in_groups("group_norm", x, self.channels, self.groups, self.epsilon);
        call.output(affine("group_norm", normal, x, [&self.weight, &self.bias]))
    }
}

/// Instance normalisation (Ulyanov et al. 2016) of `[batch, channels, spatial…]`: each channel of each example by its own mean and
/// variance. Without weight and bias unless it is made [affine](InstanceNorm::affine), as in PyTorch.
///
/// ```
/// use gradus_nn::{InstanceNorm, Layer};
/// use gradus_tensor::{Device, Tensor};
/// let y = InstanceNorm::new(1).forward(&Tensor::new([[[1.0, 3.0]]], &Device::cpu()));
/// assert!((y.max(..).item::<f32>()? - 1.0).abs() < 1e-4);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct InstanceNorm {
    /// `[channels]`, if there is one.
    pub weight: Option<Param>,
    /// `[channels]`, if there is one.
    pub bias: Option<Param>,
    channels: usize,
    epsilon: f64,
}

impl InstanceNorm {
    /// A layer without parameters; ε = 10⁻⁵.
    pub fn new(channels: usize) -> InstanceNorm {
        InstanceNorm { weight: None, bias: None, channels, epsilon: 1e-5 }
    }

    /// A layer with a weight and a bias for each channel, which start as 1 and 0.
    #[track_caller]
    pub fn affine(channels: usize, init: &Init) -> InstanceNorm {
        let (weight, bias) = scale_and_shift(channels, init);
        InstanceNorm { weight: Some(weight), bias: Some(bias), ..InstanceNorm::new(channels) }
    }

    /// The same layer with another ε.
    pub fn epsilon(self, epsilon: f64) -> InstanceNorm {
        InstanceNorm { epsilon, ..self }
    }
}

impl Layer for InstanceNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let normal = in_groups("instance_norm", x, self.channels, self.channels, self.epsilon);
        call.output(affine("instance_norm", normal, x, [&self.weight, &self.bias]))
    }
}

fn scale_and_shift(channels: usize, init: &Init) -> (Param, Param) {
    let new = |initializer| Param::new(init.tensor([channels], initializer));
    (new(Initializer::Ones), new(Initializer::Zeros))
}

/// A tensor that carries an error, where x is.
#[track_caller]
fn failed(op: &'static str, x: &Tensor, kind: ErrorKind) -> Tensor {
    let error = Error::new(op, kind);
    Tensor::build(x.device(), || Err(error))
}

/// What sums of a dtype are kept in.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F16 { DType::F32 } else { dtype }
}

/// `[batch, channels, …]`, each example's groups of channels normalised; in f32 where it is f16.
#[track_caller]
fn in_groups(op: &'static str, x: &Tensor, channels: usize, groups: usize, epsilon: f64) -> Tensor {
    if x.error().is_some() {
        return x.clone();
    }
    let fits = x.rank() >= 2 && x.shape()[1] == channels && groups > 0 && channels.is_multiple_of(groups);
    if !fits {
        let expected = format!("[batch, channels, …] with {channels} channels in {groups} groups");
        return failed(op, x, ErrorKind::Rank { expected, shape: x.shape().clone() });
    }
    let size = x.shape()[1..].iter().product::<usize>() / groups;
    let rows = x.widened().reshape([x.shape()[0], groups, size]);
    let centred = &rows - rows.mean_keepdim(-1);
    let scale = (centred.square().mean_keepdim(-1) + epsilon).rsqrt();
    (centred * scale).reshape(x.shape())
}

/// Scaled and shifted by channel, and as x is.
#[track_caller]
fn affine(op: &'static str, normal: Tensor, x: &Tensor, [weight, bias]: [&Option<Param>; 2]) -> Tensor {
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
