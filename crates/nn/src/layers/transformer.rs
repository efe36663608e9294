//! Transformers: encoder and decoder layers, and stacks of them.

use super::activation::Activation;
use crate::{Dropout, Init, Layer, LayerNorm, Linear, Module, MultiHeadAttention, cast_input, watch};
use gradus_tensor::{Attention, Tensor};

/// A layer of a transformer's encoder (Vaswani et al., "Attention is all you need", 2017): attention of a sequence to itself and two
/// linear layers, each with a residual connection and layer normalisation: `x [batch, length, width]` to the same shape. Parameters
/// are those of PyTorch's layer of this name.
///
/// By default, as in PyTorch: normalisation after each part, ReLU, dropout of 0.1 (also of attention's weights), ε = 10⁻⁵.
///
/// ```
/// use gradus_nn::{Activation, Init, Layer, TransformerEncoderLayer};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let init = Init::new(0, &device);
/// let layer = TransformerEncoderLayer::new(32, 4, 64, &init).pre_norm().activation(Activation::Gelu).dropout(0.0, &init);
/// assert_eq!(layer.forward(&Tensor::zeros([2, 10, 32], &device)).shape()[..], [2, 10, 32]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerEncoderLayer {
    /// Attention of the sequence to itself.
    pub self_attn: MultiHeadAttention,
    /// From the width to that of the feed-forward part.
    pub linear1: Linear,
    dropout: Dropout,
    /// And back.
    pub linear2: Linear,
    /// Of the attention.
    pub norm1: LayerNorm,
    /// Of the feed-forward part.
    pub norm2: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    activation: Activation,
    norm_first: bool,
}

impl TransformerEncoderLayer {
    /// A layer of a width, with so many heads, and so wide a feed-forward part (4 times the width is usual).
    #[track_caller]
    pub fn new(width: usize, heads: usize, feed_forward: usize, init: &Init) -> TransformerEncoderLayer {
        let dropout = || Dropout::new(DROPOUT, init);
        TransformerEncoderLayer {
            self_attn: MultiHeadAttention::new(width, heads, init).dropout(DROPOUT, init),
            linear1: Linear::new(width, feed_forward, init),
            dropout: dropout(),
            linear2: Linear::new(feed_forward, width, init),
            norm1: LayerNorm::new(width, init),
            norm2: LayerNorm::new(width, init),
            dropout1: dropout(),
            dropout2: dropout(),
            activation: Activation::Relu,
            norm_first: false,
        }
    }

    /// The same layer with normalisation before each part instead of after it: it trains without warming up (Xiong et al. 2020).
    pub fn pre_norm(self) -> TransformerEncoderLayer {
        TransformerEncoderLayer { norm_first: true, ..self }
    }

    /// The same layer with another activation function.
    pub fn activation(self, activation: Activation) -> TransformerEncoderLayer {
        TransformerEncoderLayer { activation, ..self }
    }

    /// The same layer with another probability of all dropout.
    pub fn dropout(self, p: f64, init: &Init) -> TransformerEncoderLayer {
        TransformerEncoderLayer {
            self_attn: self.self_attn.dropout(p, init),
            dropout: self.dropout.probability(p),
            dropout1: self.dropout1.probability(p),
            dropout2: self.dropout2.probability(p),
            ..self
        }
    }

    /// The same layer with another ε of its normalisations.
    pub fn epsilon(self, epsilon: f64) -> TransformerEncoderLayer {
        let (norm1, norm2) = (self.norm1.epsilon(epsilon), self.norm2.epsilon(epsilon));
        TransformerEncoderLayer { norm1, norm2, ..self }
    }

    /// The output for `x` where positions look at what `attention` says.
    #[track_caller]
    pub fn encode(&self, x: &Tensor, attention: &Attention) -> Tensor {
        let call = watch(self);
        let attend = |x: &Tensor| self.dropout1.forward(&self.self_attn.attend_with(x, x, x, attention));
        let feed = |x: &Tensor| {
            let hidden = self.activation.forward(&self.linear1.forward(x));
            self.dropout2.forward(&self.linear2.forward(&self.dropout.forward(&hidden)))
        };
        let x = beside(x, &self.norm1, self.norm_first, attend);
        call.output(beside(&x, &self.norm2, self.norm_first, feed))
    }
}

const DROPOUT: f64 = 0.1;

/// A part with a residual connection, normalised before or after.
#[track_caller]
fn beside(x: &Tensor, norm: &LayerNorm, norm_first: bool, part: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
    let x = &cast_input(x);
    if norm_first { x + part(&norm.forward(x)) } else { norm.forward(&(x + part(x))) }
}

impl Layer for TransformerEncoderLayer {
    /// The output for `x` where all positions look at all.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.encode(x, &Attention::new())
    }
}

/// A layer of a transformer's decoder (Vaswani et al. 2017): attention of a sequence to itself, attention to what an encoder made,
/// and two linear layers, each with a residual connection and layer normalisation. Parameters are those of PyTorch's layer of this
/// name, and so are the defaults: see [`TransformerEncoderLayer`].
///
/// ```
/// use gradus_nn::{Init, TransformerDecoderLayer};
/// use gradus_tensor::{Attention, Device, Tensor};
/// let device = Device::cpu();
/// let layer = TransformerDecoderLayer::new(32, 4, 64, &Init::new(0, &device));
/// let (x, memory) = (Tensor::zeros([2, 5, 32], &device), Tensor::zeros([2, 9, 32], &device));
/// let y = layer.decode(&x, &memory, &Attention::new().causal(), &Attention::new());
/// assert_eq!(y.shape()[..], [2, 5, 32]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerDecoderLayer {
    /// Attention of the sequence to itself.
    pub self_attn: MultiHeadAttention,
    /// Attention to what the encoder made.
    pub multihead_attn: MultiHeadAttention,
    /// From the width to that of the feed-forward part.
    pub linear1: Linear,
    dropout: Dropout,
    /// And back.
    pub linear2: Linear,
    /// Of the attention to itself.
    pub norm1: LayerNorm,
    /// Of the attention to what the encoder made.
    pub norm2: LayerNorm,
    /// Of the feed-forward part.
    pub norm3: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    dropout3: Dropout,
    activation: Activation,
    norm_first: bool,
}

impl TransformerDecoderLayer {
    /// A layer of a width, with so many heads, and so wide a feed-forward part (4 times the width is usual).
    #[track_caller]
    pub fn new(width: usize, heads: usize, feed_forward: usize, init: &Init) -> TransformerDecoderLayer {
        let dropout = || Dropout::new(DROPOUT, init);
        let attention = || MultiHeadAttention::new(width, heads, init).dropout(DROPOUT, init);
        TransformerDecoderLayer {
            self_attn: attention(),
            multihead_attn: attention(),
            linear1: Linear::new(width, feed_forward, init),
            dropout: dropout(),
            linear2: Linear::new(feed_forward, width, init),
            norm1: LayerNorm::new(width, init),
            norm2: LayerNorm::new(width, init),
            norm3: LayerNorm::new(width, init),
            dropout1: dropout(),
            dropout2: dropout(),
            dropout3: dropout(),
            activation: Activation::Relu,
            norm_first: false,
        }
    }

    /// The same layer with normalisation before each part instead of after it.
    pub fn pre_norm(self) -> TransformerDecoderLayer {
        TransformerDecoderLayer { norm_first: true, ..self }
    }

    /// The same layer with another activation function.
    pub fn activation(self, activation: Activation) -> TransformerDecoderLayer {
        TransformerDecoderLayer { activation, ..self }
    }

    /// The same layer with another probability of all dropout.
    pub fn dropout(self, p: f64, init: &Init) -> TransformerDecoderLayer {
        TransformerDecoderLayer {
            self_attn: self.self_attn.dropout(p, init),
            multihead_attn: self.multihead_attn.dropout(p, init),
            dropout: self.dropout.probability(p),
            dropout1: self.dropout1.probability(p),
            dropout2: self.dropout2.probability(p),
            dropout3: self.dropout3.probability(p),
            ..self
        }
    }

    /// The output for `x [batch, length, width]`, which looks at itself as `own` says, and at `memory [batch, keys, width]` as
    /// `across` says.
    #[track_caller]
    pub fn decode(&self, x: &Tensor, memory: &Tensor, own: &Attention, across: &Attention) -> Tensor {
        let call = watch(self);
        let attend = |x: &Tensor| self.dropout1.forward(&self.self_attn.attend_with(x, x, x, own));
        let look = |x: &Tensor| self.dropout2.forward(&self.multihead_attn.attend_with(x, memory, memory, across));
        let feed = |x: &Tensor| {
            let hidden = self.activation.forward(&self.linear1.forward(x));
            self.dropout3.forward(&self.linear2.forward(&self.dropout.forward(&hidden)))
        };
        let x = beside(x, &self.norm1, self.norm_first, attend);
        let x = beside(&x, &self.norm2, self.norm_first, look);
        call.output(beside(&x, &self.norm3, self.norm_first, feed))
    }
}

/// Encoder layers one after the other, and a normalisation of what they give, if there is one.
///
/// ```
/// use gradus_nn::{Init, LayerNorm, Module, TransformerEncoder, TransformerEncoderLayer};
/// use gradus_tensor::Device;
/// let init = Init::new(0, &Device::cpu());
/// let layers = (0..2).map(|_| TransformerEncoderLayer::new(8, 2, 16, &init).pre_norm()).collect();
/// let encoder = TransformerEncoder { layers, norm: Some(LayerNorm::new(8, &init)) };
/// assert_eq!(encoder.parameters()[0].0, "layers.0.self_attn.in_proj_weight");
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerEncoder {
    /// The layers.
    pub layers: Vec<TransformerEncoderLayer>,
    /// The last normalisation: layers that normalise first need one.
    pub norm: Option<LayerNorm>,
}

impl TransformerEncoder {
    /// The output for `x` where positions look at what `attention` says.
    #[track_caller]
    pub fn encode(&self, x: &Tensor, attention: &Attention) -> Tensor {
        let call = watch(self);
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.encode(&x, attention);
        }
        call.output(normalised(x, &self.norm))
    }
}

impl Layer for TransformerEncoder {
    /// The output for `x` where all positions look at all.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.encode(x, &Attention::new())
    }
}

/// Decoder layers one after the other, and a normalisation of what they give, if there is one.
#[derive(Clone, Debug, Module)]
pub struct TransformerDecoder {
    /// The layers.
    pub layers: Vec<TransformerDecoderLayer>,
    /// The last normalisation: layers that normalise first need one.
    pub norm: Option<LayerNorm>,
}

impl TransformerDecoder {
    /// The output for `x`, which looks at itself as `own` says, and at `memory` as `across` says.
    #[track_caller]
    pub fn decode(&self, x: &Tensor, memory: &Tensor, own: &Attention, across: &Attention) -> Tensor {
        let call = watch(self);
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.decode(&x, memory, own, across);
        }
        call.output(normalised(x, &self.norm))
    }
}

#[track_caller]
fn normalised(x: Tensor, norm: &Option<LayerNorm>) -> Tensor {
    match norm {
        Some(norm) => norm.forward(&x),
        None => x,
    }
}

/// An encoder and a decoder that looks at what it makes. Parameters are those of PyTorch's `Transformer`.
///
/// ```
/// use gradus_nn::{Init, Transformer};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let model = Transformer::new(16, 2, [2, 1], 32, &Init::new(0, &device));
/// let y = model.transform(&Tensor::ones([3, 7, 16], &device), &Tensor::ones([3, 4, 16], &device));
/// assert_eq!(y.shape()[..], [3, 4, 16]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct Transformer {
    /// What reads the source.
    pub encoder: TransformerEncoder,
    /// What writes the target.
    pub decoder: TransformerDecoder,
}

impl Transformer {
    /// A model of a width, with so many heads, so many layers of encoder and decoder, and so wide a feed-forward part; both ends
    /// are normalised once more, as in PyTorch.
    #[track_caller]
    pub fn new(width: usize, heads: usize, layers: [usize; 2], feed_forward: usize, init: &Init) -> Transformer {
        let encoder = |_| TransformerEncoderLayer::new(width, heads, feed_forward, init);
        let decoder = |_| TransformerDecoderLayer::new(width, heads, feed_forward, init);
        let norm = || Some(LayerNorm::new(width, init));
        Transformer {
            encoder: TransformerEncoder { layers: (0..layers[0]).map(encoder).collect(), norm: norm() },
            decoder: TransformerDecoder { layers: (0..layers[1]).map(decoder).collect(), norm: norm() },
        }
    }

    /// The decoder's output for `target [batch, length, width]`, of which each position looks at those before it and at all of
    /// `source [batch, …, width]`, encoded.
    #[track_caller]
    pub fn transform(&self, source: &Tensor, target: &Tensor) -> Tensor {
        let memory = self.encoder.forward(source);
        self.decoder.decode(target, &memory, &Attention::new().causal(), &Attention::new())
    }
}

/// The feed-forward part with a gate (Shazeer, "GLU variants improve transformer", 2020): `down(silu(gate(x)) · up(x))`, from
/// `[..., width]` to the same shape. Parameters are named as in Llama: `gate_proj.weight`, `up_proj.weight`, `down_proj.weight`.
///
/// All start uniform in ±1/√inputs, as linear layers do.
///
/// ```
/// use gradus_nn::{Init, Layer, SwiGlu};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let y = SwiGlu::new(8, 24, &Init::new(0, &device)).forward(&Tensor::ones([2, 3, 8], &device));
/// assert_eq!(y.shape()[..], [2, 3, 8]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct SwiGlu {
    /// `[hidden, width]`.
    pub gate_proj: Linear,
    /// `[hidden, width]`.
    pub up_proj: Linear,
    /// `[width, hidden]`.
    pub down_proj: Linear,
}

impl SwiGlu {
    /// A layer without biases. A hidden width of 8/3 times the width has as many parameters as a usual feed-forward part.
    #[track_caller]
    pub fn new(width: usize, hidden: usize, init: &Init) -> SwiGlu {
        SwiGlu {
            gate_proj: Linear::without_bias(width, hidden, init),
            up_proj: Linear::without_bias(width, hidden, init),
            down_proj: Linear::without_bias(hidden, width, init),
        }
    }
}

impl Layer for SwiGlu {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let gate = self.gate_proj.forward(x).silu();
        call.output(self.down_proj.forward(&(gate * self.up_proj.forward(x))))
    }
}
