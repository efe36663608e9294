//! Multi-head attention.

use super::rotary::Rotary;
use crate::{Dropout, Init, Initializer, Layer, Linear, Module, Param, cast_input, watch};
use gradus_tensor::{Attention, Error, ErrorKind, Result, Tensor};

/// Attention of several heads (Vaswani et al., "Attention is all you need", 2017), each with its part of a projection of queries,
/// keys and values: `x [batch, length, width]` to the same shape. Parameters are those of PyTorch's layer of this name:
/// `in_proj_weight [3 · width, width]` (of queries, of keys, of values), `in_proj_bias [3 · width]`, `out_proj.weight`,
/// `out_proj.bias`; where keys and values have other widths, `q_proj_weight`, `k_proj_weight` and `v_proj_weight` in place of the first.
///
/// The projections start Xavier-uniform with bias 0, the last one uniform in ±1/√width with bias 0, as in PyTorch.
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
    /// `[3 · width, width]`: of queries, of keys, of values, if all are of one width.
    pub in_proj_weight: Option<Param>,
    /// `[width, width]`, if they are not.
    pub q_proj_weight: Option<Param>,
    /// `[width, width of keys]`.
    pub k_proj_weight: Option<Param>,
    /// `[width, width of values]`.
    pub v_proj_weight: Option<Param>,
    /// `[3 · width]`, if there is one.
    pub in_proj_bias: Option<Param>,
    /// From all heads to the result.
    pub out_proj: Linear,
    heads: usize,
    width: usize,
    #[module(skip)]
    attention: Attention,
    dropout: Option<Dropout>,
}

impl MultiHeadAttention {
    /// So many heads, which divide the width.
    #[track_caller]
    pub fn new(width: usize, heads: usize, init: &Init) -> MultiHeadAttention {
        let in_proj = init.tensor([3 * width, width], Initializer::XavierUniform { gain: 1.0 });
        let layer = MultiHeadAttention::unprojected(width, heads, init);
        MultiHeadAttention { in_proj_weight: Some(Param::new(in_proj)), ..layer }
    }

    /// A layer whose keys and values are made from something of other widths.
    #[track_caller]
    pub fn across(width: usize, heads: usize, [keys, values]: [usize; 2], init: &Init) -> MultiHeadAttention {
        let new = |inputs| Some(Param::new(init.tensor([width, inputs], Initializer::XavierUniform { gain: 1.0 })));
        let [q_proj_weight, k_proj_weight, v_proj_weight] = [width, keys, values].map(new);
        let layer = MultiHeadAttention::unprojected(width, heads, init);
        MultiHeadAttention { q_proj_weight, k_proj_weight, v_proj_weight, ..layer }
    }

    #[track_caller]
    fn unprojected(width: usize, heads: usize, init: &Init) -> MultiHeadAttention {
        let out_proj = Linear::without_bias(width, width, init);
        let zeros = |width: usize| Param::new(init.tensor([width], Initializer::Zeros));
        MultiHeadAttention {
            in_proj_weight: None,
            q_proj_weight: None,
            k_proj_weight: None,
            v_proj_weight: None,
            in_proj_bias: Some(zeros(3 * width)),
            out_proj: Linear { bias: Some(zeros(width)), ..out_proj },
            heads,
            width,
            attention: Attention::new(),
            dropout: None,
        }
    }

    /// The same layer with a mask, causal, or with another scale, where none of these are given with the queries.
    pub fn with(self, attention: Attention) -> MultiHeadAttention {
        MultiHeadAttention { attention, ..self }
    }

    /// The same layer without biases.
    pub fn without_bias(self) -> MultiHeadAttention {
        let out_proj = Linear { bias: None, ..self.out_proj };
        MultiHeadAttention { in_proj_bias: None, out_proj, ..self }
    }

    /// The same layer with [`Dropout`] of the weights of keys, with probability `p`. In training these weights are then stored, of
    /// every query and key.
    pub fn dropout(self, p: f64, init: &Init) -> MultiHeadAttention {
        let dropout = (p != 0.0).then(|| Dropout::new(p, init));
        MultiHeadAttention { dropout, ..self }
    }

    /// Queries `[batch, queries, width]` that look at `context [batch, keys, width]`: to the queries' shape.
    #[track_caller]
    pub fn attend(&self, queries: &Tensor, context: &Tensor) -> Tensor {
        self.attend_with(queries, context, context, &self.attention)
    }

    /// Queries `[batch, queries, width]` that look at `keys [batch, keys, …]` with `values [batch, keys, …]`, as `attention` says: to
    /// the queries' shape. A mask broadcasts to `[batch, heads, queries, keys]`; see [`padding_mask`].
    #[track_caller]
    pub fn attend_with(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, attention: &Attention) -> Tensor {
        let call = watch(self);
        call.output(Tensor::build(queries.device(), || {
            let [query, key, value] = self.projected(queries, keys, values)?;
            let heads = match &self.dropout {
                Some(dropout) if dropout.is_active() => {
                    dropout.forward(&query.attention_weights(&key, attention)).matmul(&value)
                }
                _ => query.attention(&key, &value, attention),
            };
            let [batch, length, _] = queries.dims()?;
            Ok(self.out_proj.forward(&heads.permute([0, 2, 1, 3]).reshape([batch, length, self.width])))
        }))
    }

    /// The weights that each head gives to keys, `[batch, heads, queries, keys]`: to look at them.
    #[track_caller]
    pub fn weights(&self, queries: &Tensor, keys: &Tensor, attention: &Attention) -> Tensor {
        Tensor::build(queries.device(), || {
            let query = self.part(queries, 0)?;
            Ok(query.attention_weights(&self.part(keys, 1)?, attention))
        })
    }

    /// Queries, keys and values, `[batch, heads, length, width of a head]` each.
    #[track_caller]
    fn projected(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<[Tensor; 3]> {
        if let (Some(weight), true) = (&self.in_proj_weight, same(queries, keys) && same(keys, values)) {
            let bias = self.in_proj_bias.as_ref().map(Param::tensor);
            let [batch, length, _] = queries.dims()?;
            let y = self.product(queries, &weight.tensor(), bias)?;
            let y = y.reshape([batch, length, 3, self.heads, self.width / self.heads]).permute([2, 0, 3, 1, 4]);
            return Ok([0, 1, 2].map(|part| y.select_index(0, part)));
        }
        Ok([self.part(queries, 0)?, self.part(keys, 1)?, self.part(values, 2)?])
    }

    /// Queries (0), keys (1) or values (2) made from `x`.
    #[track_caller]
    fn part(&self, x: &Tensor, part: usize) -> Result<Tensor> {
        let rows = (part * self.width) as isize..((part + 1) * self.width) as isize;
        let apart = [&self.q_proj_weight, &self.k_proj_weight, &self.v_proj_weight];
        let weight = match (&self.in_proj_weight, apart[part]) {
            (Some(weight), _) => weight.tensor().slice(0, rows.clone()),
            (None, Some(weight)) => weight.tensor(),
            (None, None) => {
                let (argument, expected) = ("the projection", "a weight of queries, keys and values");
                let kind = ErrorKind::Argument { argument, expected, found: "none".into() };
                return Err(Error::new("attention", kind));
            }
        };
        let bias = self.in_proj_bias.as_ref().map(|bias| bias.tensor().slice(0, rows));
        let [batch, length, _] = x.dims()?;
        let y = self.product(x, &weight, bias)?;
        Ok(y.reshape([batch, length, self.heads, self.width / self.heads]).permute([0, 2, 1, 3]))
    }

    #[track_caller]
    fn product(&self, x: &Tensor, weight: &Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        check_heads(self.width, self.heads)?;
        let y = cast_input(x).matmul(&weight.t());
        Ok(match bias {
            Some(bias) => y + bias,
            None => y,
        })
    }
}

/// Whether two handles are of one recorded node.
fn same(x: &Tensor, y: &Tensor) -> bool {
    use gradus_tensor::graph::NodeRef;
    match (NodeRef::new(x), NodeRef::new(y)) {
        (Ok(x), Ok(y)) => x.id() == y.id(),
        _ => false,
    }
}

#[track_caller]
fn check_heads(width: usize, heads: usize) -> Result<()> {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(());
    }
    let (expected, found) = ("a divisor of the width", format!("{heads} heads of width {width}"));
    Err(Error::new("attention", ErrorKind::Argument { argument: "heads", expected, found }))
}

impl Layer for MultiHeadAttention {
    /// Attention of a sequence to itself.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.attend(x, x)
    }
}

/// A mask for [`Attention::mask`] from `[batch, keys]`, true where a key is no padding.
///
/// ```
/// use gradus_nn::padding_mask;
/// use gradus_tensor::{Attention, Device, Tensor};
/// let tokens = Tensor::new([[5, 7, 0], [3, 0, 0]], &Device::cpu());
/// let mask = padding_mask(&tokens.ne(0));
/// assert_eq!(mask.shape()[..], [2, 1, 1, 3]);
/// let attention = Attention::new().mask(&mask);
/// # let _ = attention;
/// ```
#[track_caller]
pub fn padding_mask(is_token: &Tensor) -> Tensor {
    is_token.unsqueeze(1).unsqueeze(1)
}

/// Attention as in today's language models: several heads of queries share keys and values (Ainslie et al., "GQA", 2023), positions
/// are [rotations](Rotary), and each query looks at what came before it. `x [batch, length, width]` to the same shape; parameters
/// `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `o_proj.weight`, as in Llama, without biases.
///
/// All start uniform in ±1/√inputs, as linear layers do.
///
/// ```
/// use gradus_nn::{GroupedQueryAttention, Init, Layer, Rotary};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = GroupedQueryAttention::new(64, 8, 2, &Init::new(0, &device)).rotary(Rotary::new());
/// let y = layer.forward(&Tensor::ones([2, 10, 64], &device));
/// assert_eq!(y.shape()[..], [2, 10, 64]);
/// assert_eq!(layer.k_proj.weight.shape()[..], [16, 64]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct GroupedQueryAttention {
    /// `[width, width]`.
    pub q_proj: Linear,
    /// `[shared · width / heads, width]`.
    pub k_proj: Linear,
    /// `[shared · width / heads, width]`.
    pub v_proj: Linear,
    /// `[width, width]`.
    pub o_proj: Linear,
    heads: usize,
    shared: usize,
    #[module(skip)]
    rotary: Option<Rotary>,
    #[module(skip)]
    attention: Attention,
}

impl GroupedQueryAttention {
    /// So many heads of queries, which divide the width, on so many shared heads of keys and values, which divide them; causal.
    #[track_caller]
    pub fn new(width: usize, heads: usize, shared: usize, init: &Init) -> GroupedQueryAttention {
        let of_shared = shared * (width / heads.max(1));
        let new = |outputs| Linear::without_bias(width, outputs, init);
        GroupedQueryAttention {
            q_proj: new(width),
            k_proj: new(of_shared),
            v_proj: new(of_shared),
            o_proj: new(width),
            heads,
            shared,
            rotary: None,
            attention: Attention::new().causal(),
        }
    }

    /// The same layer with rotated queries and keys.
    pub fn rotary(self, rotary: Rotary) -> GroupedQueryAttention {
        GroupedQueryAttention { rotary: Some(rotary), ..self }
    }

    /// The same layer with a mask, not causal, or with another scale.
    pub fn with(self, attention: Attention) -> GroupedQueryAttention {
        GroupedQueryAttention { attention, ..self }
    }
}

impl Layer for GroupedQueryAttention {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        call.output(Tensor::build(x.device(), || {
            let [batch, length, width] = x.dims()?;
            check_heads(width, self.heads)?;
            let heads =
                |y: Tensor, count: usize| y.reshape([batch, length, count, width / self.heads]).permute([0, 2, 1, 3]);
            let mut query = heads(self.q_proj.forward(x), self.heads);
            let mut key = heads(self.k_proj.forward(x), self.shared);
            let value = heads(self.v_proj.forward(x), self.shared);
            if let Some(rotary) = &self.rotary {
                (query, key) = (rotary.rotate(&query, 0), rotary.rotate(&key, 0));
            }
            let y = query.attention(&key, &value, &self.attention);
            Ok(self.o_proj.forward(&y.permute([0, 2, 1, 3]).reshape(x.shape())))
        }))
    }
}
