//! Convolutions as layers.

use crate::{Init, Initializer, Layer, Module, Param, cast_input, watch};
use gradus_tensor::{Conv, Spatial, Tensor};

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
/// A convolution over three spatial axes.
pub type Conv3d = Convolution<3>;

/// What both kinds are built with.
macro_rules! builders {
    ($name:ident) => {
        impl<const AXES: usize> $name<AXES> {
            /// A layer with bias and kernels of a size, at every position, without padding.
            #[track_caller]
            pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Spatial>, init: &Init) -> $name<AXES> {
                $name::grouped(inputs, outputs, kernel, 1, init)
            }

            /// The same layer, walking otherwise; groups are those of the weight, whatever `conv` says.
            pub fn with(self, conv: Conv) -> $name<AXES> {
                $name { conv: conv.groups(self.conv.group_count()), ..self }
            }

            /// The same layer without its bias: where a normalisation follows, it does nothing.
            pub fn without_bias(self) -> $name<AXES> {
                $name { bias: None, ..self }
            }
        }
    };
}
builders!(Convolution);
builders!(ConvTranspose);

/// A weight `[first, second, kernel…]` and a bias, uniform in ±1/√(second · kernel).
#[track_caller]
fn parameters<const AXES: usize>(
    [first, second]: [usize; 2],
    outputs: usize,
    kernel: impl Into<Spatial>,
    init: &Init,
) -> (Param, Param) {
    let kernel = match kernel.into() {
        Spatial::All(size) => vec![size; AXES],
        Spatial::Each(sizes) => sizes,
    };
    let bound = 1.0 / ((second * kernel.iter().product::<usize>()).max(1) as f64).sqrt();
    let new = |shape: Vec<usize>| Param::new(init.tensor(shape, Initializer::Uniform { low: -bound, high: bound }));
    let weight = new([first, second].into_iter().chain(kernel).collect());
    (weight, new(vec![outputs]))
}

impl<const AXES: usize> Convolution<AXES> {
    /// A layer with channels in groups, each with kernels of its own.
    #[track_caller]
    pub fn grouped(
        inputs: usize,
        outputs: usize,
        kernel: impl Into<Spatial>,
        groups: usize,
        init: &Init,
    ) -> Convolution<AXES> {
        let (weight, bias) = parameters::<AXES>([outputs, inputs / groups.max(1)], outputs, kernel, init);
        Convolution { weight, bias: Some(bias), conv: Conv::new().groups(groups) }
    }

    /// A layer from its parameters.
    #[track_caller]
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>, conv: Conv) -> Convolution<AXES> {
        Convolution { weight: Param::new(weight), bias: bias.map(Param::new), conv }
    }
}

impl<const AXES: usize> Layer for Convolution<AXES> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let (x, weight) = (cast_input(x), self.weight.tensor());
        let y = match AXES {
            1 => x.conv1d(&weight, &self.conv),
            2 => x.conv2d(&weight, &self.conv),
            _ => x.conv(&weight, &self.conv),
        };
        call.output(with_bias(y, self.bias.as_ref(), AXES))
    }
}

/// A bias per channel added.
#[track_caller]
fn with_bias(y: Tensor, bias: Option<&Param>, axes: usize) -> Tensor {
    match bias {
        Some(bias) => y + (0..axes).fold(bias.tensor(), |bias, _| bias.unsqueeze(-1)),
        None => y,
    }
}

/// A transposed convolution over `AXES` spatial axes, which makes images larger: `x [batch, in, spatial…]`,
/// `weight [in, out / groups, kernel…]`, `bias [out]`; see [`Tensor::conv_transpose`].
///
/// Both parameters start uniform in ±1/√(out / groups · kernel), as in PyTorch.
///
/// ```
/// use gradus_nn::{ConvTranspose2d, Init, Layer};
/// use gradus_tensor::{Conv, Device, Tensor};
/// let device = Device::cpu();
/// let layer = ConvTranspose2d::new(4, 2, 4, &Init::new(0, &device)).with(Conv::new().stride(2).padding(1));
/// assert_eq!(layer.forward(&Tensor::zeros([1, 4, 7, 7], &device)).shape()[..], [1, 2, 14, 14]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct ConvTranspose<const AXES: usize> {
    /// `[in, out / groups, kernel…]`.
    pub weight: Param,
    /// `[out]`, if there is one.
    pub bias: Option<Param>,
    #[module(skip)]
    conv: Conv,
    #[module(skip)]
    output_padding: Spatial,
}

/// A transposed convolution over one spatial axis.
pub type ConvTranspose1d = ConvTranspose<1>;
/// A transposed convolution over two spatial axes.
pub type ConvTranspose2d = ConvTranspose<2>;
/// A transposed convolution over three spatial axes.
pub type ConvTranspose3d = ConvTranspose<3>;

impl<const AXES: usize> ConvTranspose<AXES> {
    /// A layer with channels in groups, each with kernels of its own.
    #[track_caller]
    pub fn grouped(
        inputs: usize,
        outputs: usize,
        kernel: impl Into<Spatial>,
        groups: usize,
        init: &Init,
    ) -> ConvTranspose<AXES> {
        let (weight, bias) = parameters::<AXES>([inputs, outputs / groups.max(1)], outputs, kernel, init);
        ConvTranspose { weight, bias: Some(bias), conv: Conv::new().groups(groups), output_padding: Spatial::All(0) }
    }

    /// The same layer with so much more at the end of each spatial axis: of the sizes whose convolution gives the input, the
    /// one that is wanted.
    pub fn output_padding(self, output_padding: impl Into<Spatial>) -> ConvTranspose<AXES> {
        ConvTranspose { output_padding: output_padding.into(), ..self }
    }
}

impl<const AXES: usize> Layer for ConvTranspose<AXES> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let y = cast_input(x).conv_transpose(&self.weight.tensor(), &self.conv, self.output_padding.clone());
        call.output(with_bias(y, self.bias.as_ref(), AXES))
    }
}
