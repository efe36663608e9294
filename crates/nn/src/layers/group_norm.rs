//! Normalisations of each example's channels: in groups, or each by itself.

use super::batch_norm::{affine, failed, scale_and_shift};
use super::running::Running;
use crate::{Buffer, Init, Layer, Mode, Module, Param, watch};
use gradus_tensor::{ErrorKind, Tensor};

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
        let op = "group_norm";
        if let Some(failed) = unfit(op, x, self.channels, self.groups) {
            return failed;
        }
        let InGroups { normal, .. } = InGroups::of(x, self.groups, self.epsilon);
        call.output(affine(op, normal, x, [&self.weight, &self.bias]))
    }
}

/// Instance normalisation (Ulyanov et al. 2016) of `[batch, channels, spatial…]`: each channel of each example by its own mean and
/// variance. Without weight and bias unless it is made [affine](InstanceNorm::affine), as in PyTorch.
///
/// With [running statistics](InstanceNorm::with_running_statistics) it has those in use: running ← (1 − momentum) · running +
/// momentum · batch, where a batch's mean and variance are the means of its examples' means and unbiased variances. They are
/// kept as those of a [`BatchNorm`](crate::BatchNorm).
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
    /// `[channels]`; without it, each example's own statistics serve in use too.
    pub running_mean: Option<Buffer>,
    /// `[channels]`.
    pub running_var: Option<Buffer>,
    /// How many batches the running statistics have seen, `[]`.
    pub num_batches_tracked: Option<Buffer>,
    channels: usize,
    epsilon: f64,
    momentum: f64,
    mode: Mode,
}

impl InstanceNorm {
    /// A layer without parameters; ε = 10⁻⁵.
    pub fn new(channels: usize) -> InstanceNorm {
        InstanceNorm {
            weight: None,
            bias: None,
            running_mean: None,
            running_var: None,
            num_batches_tracked: None,
            channels,
            epsilon: 1e-5,
            momentum: 0.1,
            mode: Mode::training(),
        }
    }

    /// A layer with a weight and a bias for each channel, which start as 1 and 0.
    #[track_caller]
    pub fn affine(channels: usize, init: &Init) -> InstanceNorm {
        let (weight, bias) = scale_and_shift(channels, init);
        InstanceNorm { weight: Some(weight), bias: Some(bias), ..InstanceNorm::new(channels) }
    }

    /// The same layer with running statistics, which start as 0 and 1: PyTorch's `track_running_stats`. Momentum is 0.1.
    ///
    /// ```
    /// use gradus_nn::{Init, InstanceNorm, Layer, Module};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = InstanceNorm::new(1).with_running_statistics(&Init::new(0, &device));
    /// let x = Tensor::new([[[1.0, 3.0]], [[5.0, 7.0]]], &device);
    /// assert!((layer.forward(&x).max(..).item::<f32>()? - 1.0).abs() < 1e-4);
    /// layer.eval();
    /// // A tenth of the way from 0 to 4, and from 1 to 2.
    /// let expected = (1.0 - 0.4) / 1.1f32.sqrt();
    /// assert!((layer.forward(&x).min(..).item::<f32>()? - expected).abs() < 1e-4);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn with_running_statistics(self, init: &Init) -> InstanceNorm {
        let [running_mean, running_var, num_batches_tracked] = Running::start(self.channels, init);
        InstanceNorm { running_mean, running_var, num_batches_tracked, ..self }
    }

    /// The same layer with another momentum: how much of a batch's statistics the running ones take over.
    pub fn momentum(self, momentum: f64) -> InstanceNorm {
        InstanceNorm { momentum, ..self }
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
        let op = "instance_norm";
        if let Some(failed) = unfit(op, x, self.channels, self.channels) {
            return failed;
        }
        let running = Running::of([&self.running_mean, &self.running_var, &self.num_batches_tracked]);
        let normal = match running {
            Some(running) if !self.mode.is_training() => running.normalise(&x.widened(), self.epsilon),
            None => InGroups::of(x, self.channels, self.epsilon).normal,
            Some(running) => {
                let InGroups { normal, mean, variance, size } = InGroups::of(x, self.channels, self.epsilon);
                if size < 2 || x.shape()[0] == 0 {
                    let (expected, found) = ("at least 2 elements a channel in training", format!("{}", x.shape()));
                    return failed(op, x, ErrorKind::Argument { argument: "the batch", expected, found });
                }
                let unbiased = (&variance * (size as f64 / (size as f64 - 1.0))).mean(0);
                let followed = running.follow(Some(self.momentum), [(mean.mean(0), &mean), (unbiased, &variance)]);
                if let Err(error) = followed {
                    return Tensor::build(x.device(), || Err(error));
                }
                normal
            }
        };
        call.output(affine(op, normal, x, [&self.weight, &self.bias]))
    }
}

/// An error if `x` is none of so many channels, in so many groups, or carries one.
#[track_caller]
fn unfit(op: &'static str, x: &Tensor, channels: usize, groups: usize) -> Option<Tensor> {
    if x.error().is_some() {
        return Some(x.clone());
    }
    let fits = x.rank() >= 2 && x.shape()[1] == channels && groups > 0 && channels.is_multiple_of(groups);
    let expected = || format!("[batch, channels, …] with {channels} channels in {groups} groups");
    (!fits).then(|| failed(op, x, ErrorKind::Rank { expected: expected(), shape: x.shape().clone() }))
}

/// Each example's groups of channels, normalised; in f32 where they are f16.
struct InGroups {
    /// Of the shape of what was normalised.
    normal: Tensor,
    /// `[batch, groups, 1]`.
    mean: Tensor,
    /// Biased, `[batch, groups, 1]`.
    variance: Tensor,
    /// How many elements a group has.
    size: usize,
}

impl InGroups {
    #[track_caller]
    fn of(x: &Tensor, groups: usize, epsilon: f64) -> InGroups {
        let size = x.shape()[1..].iter().product::<usize>() / groups;
        let rows = x.widened().reshape([x.shape()[0], groups, size]);
        let mean = rows.mean_keepdim(-1);
        let centred = &rows - &mean;
        let variance = centred.square().mean_keepdim(-1);
        let normal = (centred * (&variance + epsilon).rsqrt()).reshape(x.shape());
        InGroups { normal, mean, variance, size }
    }
}
