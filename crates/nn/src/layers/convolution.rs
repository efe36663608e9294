//! Convolutions and poolings as layers.

use crate::{Init, Initializer, Layer, Module, Param};
use gradus_tensor::{Conv, Pool, Spatial, Tensor};

/// A convolution over `AXES` spatial axes: `x [batch, in, spatial…]`, `weight [out, in / groups, kernel…]`, `bias [out]`,
/// `y [batch, out, positions…]`; see [`Tensor::conv`].
///
/// Both parameters start uniform in ±1/√(in / groups · kernel), as in PyTorch.
///
/// ```
/// use gradus_nn::{Conv2d, Init, Layer};
/// use gradus_tensor::{Conv, Device, Tensor};
/// let device = Device::cpu();
/// let layer = Conv2d::new(3, 8, 3, &Init::new(0, &device)).with(Conv::new().padding(1));
/// let y = layer.forward(&Tensor::zeros([2, 3, 16, 16], &device));
/// assert_eq!(y.shape()[..], [2, 8, 16, 16]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct Convolution<const AXES: usize> {
    /// `[out, in / groups, kernel…]`.
    pub weight: Param,
    /// `[out]`, if there is one.
    pub bias: Option<Param>,
    #[module(skip)]
    conv: Conv,
}

/// A convolution over one spatial axis.
pub type Conv1d = Convolution<1>;
/// A convolution over two spatial axes.
pub type Conv2d = Convolution<2>;

impl<const AXES: usize> Convolution<AXES> {
    /// A layer with bias and kernels of a size, at every position, without padding.
    #[track_caller]
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Spatial>, init: &Init) -> Convolution<AXES> {
        Convolution::grouped(inputs, outputs, kernel, 1, init)
    }

    /// A layer with channels in groups, each with kernels of its own.
    #[track_caller]
    pub fn grouped(
        inputs: usize,
        outputs: usize,
        kernel: impl Into<Spatial>,
        groups: usize,
        init: &Init,
    ) -> Convolution<AXES> {
        let kernel = match kernel.into() {
            Spatial::All(size) => vec![size; AXES],
            Spatial::Each(sizes) => sizes,
        };
        let inputs = inputs / groups.max(1);
        let bound = 1.0 / ((inputs * kernel.iter().product::<usize>()).max(1) as f64).sqrt();
        let uniform = Initializer::Uniform { low: -bound, high: bound };
        let shape: Vec<usize> = [outputs, inputs].into_iter().chain(kernel).collect();
        Convolution {
            weight: Param::new(init.tensor(shape, uniform)),
            bias: Some(Param::new(init.tensor([outputs], uniform))),
            conv: Conv::new().groups(groups),
        }
    }

    /// A layer from its parameters.
    #[track_caller]
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>, conv: Conv) -> Convolution<AXES> {
        Convolution { weight: Param::new(weight), bias: bias.map(Param::new), conv }
    }

    /// The same layer, walking otherwise; groups are those of the weight, whatever `conv` says.
    pub fn with(self, conv: Conv) -> Convolution<AXES> {
        Convolution { conv: conv.groups(self.conv.group_count()), ..self }
    }

    /// The same layer without its bias: where a normalisation follows, it does nothing.
    pub fn without_bias(self) -> Convolution<AXES> {
        Convolution { bias: None, ..self }
    }
}

impl<const AXES: usize> Layer for Convolution<AXES> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let weight = self.weight.tensor();
        let y = match AXES {
            1 => x.conv1d(&weight, &self.conv),
            2 => x.conv2d(&weight, &self.conv),
            _ => x.conv(&weight, &self.conv),
        };
        match &self.bias {
            Some(bias) => y + (0..AXES).fold(bias.tensor(), |bias, _| bias.unsqueeze(-1)),
            None => y,
        }
    }
}

/// [`Tensor::max_pool`].
#[derive(Clone, Debug, Module)]
pub struct MaxPool(#[module(skip)] pub Pool);

impl Layer for MaxPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.max_pool(&self.0)
    }
}

/// [`Tensor::avg_pool`].
#[derive(Clone, Debug, Module)]
pub struct AvgPool(#[module(skip)] pub Pool);

impl Layer for AvgPool {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.avg_pool(&self.0)
    }
}
