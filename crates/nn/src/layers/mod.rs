//! Layers: modules that map a tensor to a tensor.

mod activation;
mod attention;
mod batch_norm;
mod convolution;
mod dropout;
mod embedding;
mod group_norm;
mod linear;
mod norm;
mod pooling;
mod recurrent;
mod rotary;
mod running;
mod sequential;
mod transformer;

pub use activation::*;
pub use attention::{GroupedQueryAttention, MultiHeadAttention, padding_mask};
pub use batch_norm::{BatchNorm, BatchNorm1d, BatchNorm2d};
pub use convolution::{
    Conv1d, Conv2d, Conv3d, ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Convolution,
};
pub use dropout::{AlphaDropout, DropPath, Dropout, Dropout2d};
pub use embedding::Embedding;
pub use group_norm::{GroupNorm, InstanceNorm};
pub use linear::{Bilinear, Linear};
pub use norm::{LayerNorm, RmsNorm};
pub use pooling::{AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool, Upsample};
pub use recurrent::{Gru, GruCell, Lstm, LstmCell, LstmState, Rnn, RnnCell};
pub use rotary::Rotary;
pub use sequential::{Residual, Sequential};
pub use transformer::{
    SwiGlu, Transformer, TransformerDecoder, TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer,
};

use crate::Module;
use gradus_tensor::Tensor;

/// A module that maps a tensor to a tensor.
pub trait Layer: Module {
    /// The output for `x`.
    fn forward(&self, x: &Tensor) -> Tensor;
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        (**self).forward(x)
    }
}

impl<L: Layer + ?Sized> Layer for std::sync::Arc<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        (**self).forward(x)
    }
}
