//! Layers: modules that map a tensor to a tensor.

mod activation;
mod attention;
mod convolution;
mod dropout;
mod embedding;
mod linear;
mod norm;
mod sequential;

pub use activation::*;
pub use attention::MultiHeadAttention;
pub use convolution::{AvgPool, Conv1d, Conv2d, Convolution, MaxPool};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use sequential::Sequential;

use crate::Module;
use gradus_tensor::Tensor;

/// A module that maps a tensor to a tensor.
pub trait Layer: Module {
    /// The output for `x`.
    fn forward(&self, x: &Tensor) -> Tensor;
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    fn forward(&self, x: &Tensor) -> Tensor {
        (**self).forward(x)
    }
}
