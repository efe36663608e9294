//! Fully connected layers.

use crate::{Init, Initializer, Layer, Module, Param, cast_input, watch};
use gradus_tensor::{Error, ErrorKind, Tensor, einsum};

/// `y = x Wᵀ + b`: `x [..., in]`, `weight [out, in]`, `bias [out]`, `y [..., out]`.
///
/// Both start uniform in ±1/√in, as in PyTorch.
#[derive(Clone, Debug, Module)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param,
    /// `[out]`, if there is one.
    pub bias: Option<Param>,
}

impl Linear {
    /// A layer with bias.
    #[track_caller]
    pub fn new(inputs: usize, outputs: usize, init: &Init) -> Linear {
        let mut layer = Linear::without_bias(inputs, outputs, init);
        layer.bias = Some(Param::new(init.tensor([outputs], bound(inputs))));
        layer
    }

    /// A layer without bias.
    #[track_caller]
    pub fn without_bias(inputs: usize, outputs: usize, init: &Init) -> Linear {
        Linear { weight: Param::new(init.tensor([outputs, inputs], bound(inputs))), bias: None }
    }

    /// A layer from its parameters.
    #[track_caller]
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Linear {
        Linear { weight: Param::new(weight), bias: bias.map(Param::new) }
    }
}

fn bound(inputs: usize) -> Initializer {
    let bound = 1.0 / (inputs.max(1) as f64).sqrt();
    Initializer::Uniform { low: -bound, high: bound }
}

impl Layer for Linear {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let product = cast_input(x).matmul(&self.weight.tensor().t());
        call.output(match &self.bias {
            Some(bias) => product + bias.tensor(),
            None => product,
        })
    }
}

/// `y[o] = xᵀ W[o] z + b[o]`, of two inputs: `x [..., left]`, `z [..., right]`, `weight [out, left, right]`, `bias [out]`,
/// `y [..., out]`.
///
/// Both start uniform in ±1/√left, as in PyTorch.
///
/// ```
/// use gradus_nn::{Bilinear, Init};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = Bilinear::new(3, 4, 5, &Init::new(0, &device));
/// let y = layer.combine(&Tensor::ones([2, 7, 3], &device), &Tensor::ones([2, 7, 4], &device));
/// assert_eq!(y.shape()[..], [2, 7, 5]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct Bilinear {
    /// `[out, left, right]`.
    pub weight: Param,
    /// `[out]`, if there is one.
    pub bias: Option<Param>,
}

impl Bilinear {
    /// A layer with bias.
    #[track_caller]
    pub fn new(left: usize, right: usize, outputs: usize, init: &Init) -> Bilinear {
        Bilinear {
            weight: Param::new(init.tensor([outputs, left, right], bound(left))),
            bias: Some(Param::new(init.tensor([outputs], bound(left)))),
        }
    }

    /// The same layer without its bias.
    pub fn without_bias(self) -> Bilinear {
        Bilinear { bias: None, ..self }
    }

    /// The output for two inputs whose axes but the last are equal.
    #[track_caller]
    pub fn combine(&self, x: &Tensor, z: &Tensor) -> Tensor {
        let call = watch(self);
        for input in [x, z] {
            if input.error().is_some() {
                return input.clone();
            }
        }
        let rows = |input: &Tensor| input.shape().len().checked_sub(1).map(|last| input.shape().without(&[last]));
        let Some(leading) = rows(x).filter(|leading| rows(z).as_ref() == Some(leading)) else {
            let (left, right) = (x.shape().clone(), z.shape().clone());
            let reason = "all axes but the last must be equal".into();
            let error = Error::new("bilinear", ErrorKind::Contract { left, right, reason });
            return Tensor::build(x.device(), || Err(error));
        };
        let flat = |input: &Tensor| cast_input(input).reshape([leading.numel(), input.shape()[leading.len()]]);
        let weight = self.weight.tensor();
        let y = einsum("ni,oij,nj->no", &[&flat(x), &weight, &flat(z)]);
        let y = y.reshape(leading.with_inserted(leading.len(), weight.shape()[0]));
        call.output(match &self.bias {
            Some(bias) => y + bias.tensor(),
            None => y,
        })
    }
}
