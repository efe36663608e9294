//! Pooling and resizing as layers.

use crate::{Layer, Module, watch};
use gradus_tensor::{Axes, Error, ErrorKind, Pool, Spatial, Tensor};

/// [`Tensor::max_pool`].
#[derive(Clone, Debug, Module)]
pub struct MaxPool(#[module(skip)] pub Pool);

impl Layer for MaxPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.max_pool(&self.0))
    }
}

/// [`Tensor::avg_pool`].
#[derive(Clone, Debug, Module)]
pub struct AvgPool(#[module(skip)] pub Pool);

impl Layer for AvgPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.avg_pool(&self.0))
    }
}

/// [`Tensor::adaptive_avg_pool`]: means over so many parts of each spatial axis, whatever its extent.
///
/// ```
/// use gradus_nn::{AdaptiveAvgPool, Layer};
/// use gradus_tensor::{Device, Tensor};
/// let y = AdaptiveAvgPool::new([2, 3]).forward(&Tensor::ones([1, 4, 5, 7], &Device::cpu()));
/// assert_eq!(y.shape()[..], [1, 4, 2, 3]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct AdaptiveAvgPool(#[module(skip)] Spatial);

impl AdaptiveAvgPool {
    /// So many parts.
    pub fn new(parts: impl Into<Spatial>) -> AdaptiveAvgPool {
        AdaptiveAvgPool(parts.into())
    }
}

impl Layer for AdaptiveAvgPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.adaptive_avg_pool(self.0.clone()))
    }
}

/// [`Tensor::adaptive_max_pool`].
#[derive(Clone, Debug, Module)]
pub struct AdaptiveMaxPool(#[module(skip)] Spatial);

impl AdaptiveMaxPool {
    /// So many parts.
    pub fn new(parts: impl Into<Spatial>) -> AdaptiveMaxPool {
        AdaptiveMaxPool(parts.into())
    }
}

impl Layer for AdaptiveMaxPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.adaptive_max_pool(self.0.clone()))
    }
}

/// The mean over all positions: `[batch, channels, spatial…]` to `[batch, channels]`. [`AdaptiveAvgPool`] with one part keeps the
/// axes.
///
/// ```
/// use gradus_nn::{GlobalAvgPool, Layer};
/// use gradus_tensor::{Device, Tensor};
/// let x = Tensor::new([[[[1.0, 3.0], [5.0, 7.0]]]], &Device::cpu());
/// assert_eq!(GlobalAvgPool.forward(&x).to_vec::<f32>()?, [4.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct GlobalAvgPool;

impl Layer for GlobalAvgPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(over_positions("global_avg_pool", x, |x, axes| x.widened().mean(axes).to_dtype(x.dtype())))
    }
}

/// The largest element of all positions: `[batch, channels, spatial…]` to `[batch, channels]`.
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct GlobalMaxPool;

impl Layer for GlobalMaxPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(over_positions("global_max_pool", x, |x, axes| x.max(axes)))
    }
}

#[track_caller]
fn over_positions(op: &'static str, x: &Tensor, reduce: fn(&Tensor, Axes) -> Tensor) -> Tensor {
    if x.error().is_some() {
        return x.clone();
    }
    if x.rank() < 3 {
        let kind = ErrorKind::Rank { expected: "[batch, channels, spatial…]".into(), shape: x.shape().clone() };
        let error = Error::new(op, kind);
        return Tensor::build(x.device(), || Err(error));
    }
    reduce(x, Axes::from((2..x.rank()).collect::<Vec<_>>()))
}

/// The spatial axes of `[batch, channels, spatial…]` at another size: [`Tensor::resize_nearest`] or [`Tensor::resize_linear`].
///
/// ```
/// use gradus_nn::{Layer, Upsample};
/// use gradus_tensor::{Device, Tensor};
/// let x = Tensor::new([[[1.0, 2.0]]], &Device::cpu());
/// assert_eq!(Upsample::nearest(2).forward(&x).to_vec::<f32>()?, [1.0, 1.0, 2.0, 2.0]);
/// assert_eq!(Upsample::linear(2).forward(&x).to_vec::<f32>()?, [1.0, 1.25, 1.75, 2.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Upsample {
    #[module(skip)]
    mode: Mode,
    #[module(skip)]
    target: Target,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Nearest,
    Linear { align_corners: bool },
}

#[derive(Clone, Debug)]
enum Target {
    Times(Spatial),
    Size(Spatial),
}

impl Upsample {
    /// So many times larger, each place with the element that lies nearest.
    pub fn nearest(times: impl Into<Spatial>) -> Upsample {
        Upsample { mode: Mode::Nearest, target: Target::Times(times.into()) }
    }

    /// So many times larger, each place a mean of its neighbours (bilinear, in images).
    pub fn linear(times: impl Into<Spatial>) -> Upsample {
        Upsample { mode: Mode::Linear { align_corners: false }, target: Target::Times(times.into()) }
    }

    /// The same to a size of its own, whatever the input's.
    pub fn to_size(self, size: impl Into<Spatial>) -> Upsample {
        Upsample { target: Target::Size(size.into()), ..self }
    }

    /// The outermost elements of input and output lie on each other, where places are means.
    pub fn align_corners(self) -> Upsample {
        let mode = match self.mode {
            Mode::Nearest => Mode::Nearest,
            Mode::Linear { .. } => Mode::Linear { align_corners: true },
        };
        Upsample { mode, ..self }
    }
}

impl Layer for Upsample {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let now = x.shape().get(2..).unwrap_or_default();
        let size = match &self.target {
            Target::Size(size) => size.clone(),
            Target::Times(Spatial::All(times)) => Spatial::Each(now.iter().map(|n| n.saturating_mul(*times)).collect()),
            Target::Times(Spatial::Each(times)) if times.len() == now.len() => {
                Spatial::Each(now.iter().zip(times).map(|(n, times)| n.saturating_mul(*times)).collect())
            }
            // As many as there are not axes: the op says so.
            Target::Times(each) => each.clone(),
        };
        call.output(match self.mode {
            Mode::Nearest => x.resize_nearest(size),
            Mode::Linear { align_corners } => x.resize_linear(size, align_corners),
        })
    }
}
