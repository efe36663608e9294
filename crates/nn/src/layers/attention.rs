//! Multi-head attention.

use crate::{Init, Initializer, Layer, Linear, Module, Param};
use gradus_tensor::{Attention, Error, ErrorKind, Result, Tensor};

/// Attention of several heads (Vaswani et al., "Attention is all you need", 2017), each with its part of a projection of queries,
/// keys and values: `x [batch, length, width]` to the same shape. Parameters are those of PyTorch's layer of this name.
///
/// The projection starts Xavier-uniform with bias 0, the last one uniform in ±1/√width with bias 0, as in PyTorch.
///
/// ```
/// use gradus_nn::{Init, Layer, MultiHeadAttention};
/// use gradus_tensor::{Attention, Device, Tensor};
/// let device = Device::cpu();
/// let layer = MultiHeadAttention::new(32, 4, &Init::new(0, &device)).with(Attention::new().causal());
/// let y = layer.forward(&Tensor::zeros([2, 10, 32], &device));
/// assert_eq!(y.shape()[..], [2, 10, 32]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct MultiHeadAttention {
    /// `[3 · width, width]`: of queries, of keys, of values.
    pub in_proj_weight: Param,
    /// `[3 · width]`.
    pub in_proj_bias: Param,
    /// From all heads to the result.
    pub out_proj: Linear,
    heads: usize,
    #[module(skip)]
    attention: Attention,
}

impl MultiHeadAttention {
    /// So many heads, which divide the width.
    #[track_caller]
    pub fn new(width: usize, heads: usize, init: &Init) -> MultiHeadAttention {
        let in_proj = init.tensor([3 * width, width], Initializer::XavierUniform { gain: 1.0 });
        let out_proj = Linear::without_bias(width, width, init);
        let zeros = |width: usize| Param::new(init.tensor([width], Initializer::Zeros));
        MultiHeadAttention {
            in_proj_weight: Param::new(in_proj),
            in_proj_bias: zeros(3 * width),
            out_proj: Linear { bias: Some(zeros(width)), ..out_proj },
            heads,
            attention: Attention::new(),
        }
    }

    /// The same layer with a mask, causal, or with another scale.
    pub fn with(self, attention: Attention) -> MultiHeadAttention {
        MultiHeadAttention { attention, ..self }
    }

    /// Queries `[batch, queries, width]` that look at `context [batch, keys, width]`: to the queries' shape.
    #[track_caller]
    pub fn attend(&self, queries: &Tensor, context: &Tensor) -> Tensor {
        Tensor::build(queries.device(), || {
            let query = self.projected::<1>(queries, 0)?;
            let [key, value] = self.projected(context, 1)?;
            Ok(self.combined(&query[0].attention(&key, &value, &self.attention), queries))
        })
    }

    /// Some of queries, keys and values, from the `first` on: `[batch, heads, length, width of a head]` each.
    #[track_caller]
    fn projected<const N: usize>(&self, x: &Tensor, first: usize) -> Result<[Tensor; N]> {
        let [batch, length, width] = x.dims()?;
        if self.heads == 0 || !width.is_multiple_of(self.heads) {
            let (expected, found) = ("a divisor of the width", format!("{} heads of width {width}", self.heads));
            return Err(Error::new("attention", ErrorKind::Argument { argument: "heads", expected, found }));
        }
        let rows = (first * width) as isize..((first + N) * width) as isize;
        let (weight, bias) = (self.in_proj_weight.tensor(), self.in_proj_bias.tensor());
        let y = x.matmul(&weight.slice(0, rows.clone()).t()) + bias.slice(0, rows);
        let y = y.reshape([batch, length, N, self.heads, width / self.heads]).permute([2, 0, 3, 1, 4]);
        Ok(std::array::from_fn(|part| y.select_index(0, part as isize)))
    }

    /// What all heads give, projected to the shape of `x`.
    #[track_caller]
    fn combined(&self, heads: &Tensor, x: &Tensor) -> Tensor {
        self.out_proj.forward(&heads.permute([0, 2, 1, 3]).reshape(x.shape()))
    }
}

impl Layer for MultiHeadAttention {
    /// Attention of a sequence to itself.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        Tensor::build(x.device(), || {
            let [query, key, value] = self.projected(x, 0)?;
            Ok(self.combined(&query.attention(&key, &value, &self.attention), x))
        })
    }
}
