//! The fully connected layer.

use crate::{Init, Initializer, Layer, Module, Param};
use gradus_tensor::Tensor;

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
        let product = x.matmul(&self.weight.tensor().t());
        match &self.bias {
            Some(bias) => product + bias.tensor(),
            None => product,
        }
    }
}
