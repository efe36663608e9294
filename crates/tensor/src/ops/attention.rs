//! Scaled dot-product attention.

use crate::Tensor;
use crate::tensor::first_failed;
use gradus_ir::op::Op;
use gradus_ir::op::attention::AttentionPart;
use gradus_ir::{DType, Error as ErrorKind, Shape};

/// What queries look at, and how queries are scaled. By default at all keys, by 1 / √width.
///
/// ```
/// # use gradus_tensor::{Attention, Device, Key, Tensor};
/// let device = Device::cpu();
/// // Eight heads of queries, of which two at a time share keys and values.
/// let query = Tensor::randn([2, 8, 10, 16], Key::new(0), &device);
/// let key = Tensor::randn([2, 4, 10, 16], Key::new(1), &device);
/// let value = Tensor::randn([2, 4, 10, 16], Key::new(2), &device);
/// let y = query.attention(&key, &value, &Attention::new().causal());
/// assert_eq!(y.shape()[..], [2, 8, 10, 16]);
/// // The first query looks at the first key alone.
/// let first = |x: &Tensor| x.slice(2, ..1).slice(1, ..1).to_vec::<f32>();
/// assert_eq!(first(&y)?, first(&value)?);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Attention {
    causal: bool,
    mask: Option<Tensor>,
    scale: Option<f64>,
}

impl Attention {
    /// All keys, and the default scale.
    pub fn new() -> Attention {
        Attention::default()
    }

    /// The last query looks at all keys, each one before at one key less: with as many keys as queries, at its own and those
    /// before it; with more keys (a cache), as if the queries were the last of as many.
    pub fn causal(self) -> Attention {
        Attention { causal: true, ..self }
    }

    /// A mask that broadcasts to the logits, `[batch…, heads, queries, keys]`: of booleans, true where a query may look at a
    /// key; of floats, added to the logits. The latter has a gradient, and needs the memory of the logits.
    pub fn mask(self, mask: &Tensor) -> Attention {
        Attention { mask: Some(mask.clone()), ..self }
    }

    /// What queries are multiplied by, instead of 1 / √width.
    pub fn scale(self, scale: f64) -> Attention {
        Attention { scale: Some(scale), ..self }
    }
}

/// Queries in groups that share keys, `[batch…, heads, group, queries, width]`, with keys and values.
struct Grouped {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    /// The shape of the output.
    shape: Shape,
    /// The shape of the logits of all heads, and of those in groups.
    logits: [Shape; 2],
}

impl Tensor {
    /// Scaled dot-product attention: for each query the mean of the values, weighted by the softmax of its scalar products with
    /// the keys times the scale (Vaswani et al., "Attention is all you need", 2017). A query that may look at nothing gives 0.
    ///
    /// `self` are queries `[batch…, heads, queries, width]`, or `[queries, width]`; keys `[batch…, shared, keys, width]` and
    /// values `[batch…, shared, keys, values]` are shared by so many neighbouring heads as there are more of queries (Ainslie et
    /// al., "GQA", 2023). Gives `[batch…, heads, queries, values]`.
    ///
    /// Neither the logits nor their gradients are stored, so memory grows with the number of queries and keys, not with their
    /// product; see [`Attention::mask`] for the exception, and second derivatives are another. What a query may not look at must
    /// be finite all the same.
    #[track_caller]
    pub fn attention(&self, key: &Tensor, value: &Tensor, options: &Attention) -> Tensor {
        if let Some(failed) = first_failed([self, key, value].into_iter().chain(&options.mask)) {
            return failed;
        }
        let Grouped { query, key, value, shape, logits } = match self.grouped(key, value) {
            Ok(grouped) => grouped,
            Err(kind) => return self.fail("attention", kind),
        };
        let width = self.shape()[self.rank() - 1];
        let query = match options.scale {
            Some(scale) => query * scale,
            None => &query * query.constant(1.0 / (width as f64).sqrt()),
        };
        let [all, grouped] = logits;
        let causal = options.causal;
        let output = match &options.mask {
            None => attend(&[&query, &key, &value], causal),
            Some(mask) => {
                if mask.shape().broadcast(&all) != Some(all.clone()) {
                    let (what, found) = ("the mask", mask.shape().clone());
                    return self.fail("attention", ErrorKind::Shape { what, expected: all, found });
                }
                let mask = mask.expand_to(&all).reshape(grouped);
                match mask.dtype() {
                    DType::Bool => attend(&[&query, &key, &value, &mask], causal),
                    _ => {
                        let operands = [&query, &key, &value, &mask];
                        let left = query.dtype();
                        // Widened, they would not show that they differ.
                        if let Some(right) = operands.map(|x| x.dtype()).into_iter().find(|&dtype| dtype != left) {
                            return self.fail("attention", ErrorKind::DTypes { left, right });
                        }
                        let [query, key, value, mask] = operands.map(Tensor::widened);
                        with_bias(&query, &key, &value, &mask, causal).to_dtype(left)
                    }
                }
            }
        };
        output.reshape(shape)
    }

    /// The weights that [`attention`](Tensor::attention) gives to the keys, `[batch…, heads, queries, keys]`: to look at them, or to
    /// change them before values are summed. They take the memory that attention itself does without.
    ///
    /// ```
    /// # use gradus_tensor::{Attention, Device, Tensor};
    /// let (query, key) = (Tensor::zeros([3, 8], &Device::cpu()), Tensor::ones([3, 8], &Device::cpu()));
    /// let weights = query.attention_weights(&key, &Attention::new().causal());
    /// assert_eq!(weights.slice(0, ..2).to_vec::<f32>()?, [1.0, 0.0, 0.0, 0.5, 0.5, 0.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn attention_weights(&self, key: &Tensor, options: &Attention) -> Tensor {
        let op = "attention_weights";
        if let Some(failed) = first_failed([self, key].into_iter().chain(&options.mask)) {
            return failed;
        }
        let Grouped { query, key, logits: [all, grouped], .. } = match self.grouped(key, key) {
            Ok(grouped) => grouped,
            Err(kind) => return self.fail(op, kind),
        };
        let (query, key) = (query.widened(), key.widened());
        let width = self.shape()[self.rank() - 1];
        let query = match options.scale {
            Some(scale) => query * scale,
            None => &query * query.constant(1.0 / (width as f64).sqrt()),
        };
        let mut bias = None;
        if let Some(mask) = &options.mask {
            if mask.shape().broadcast(&all) != Some(all.clone()) {
                let (what, found) = ("the mask", mask.shape().clone());
                return self.fail(op, ErrorKind::Shape { what, expected: all, found });
            }
            let mask = mask.expand_to(&all).reshape(grouped);
            bias = Some(match mask.dtype() {
                DType::Bool => {
                    let none = Tensor::zeros(mask.shape(), &query);
                    Tensor::select(&mask, &none, &none.constant(f64::NEG_INFINITY))
                }
                _ => mask.widened(),
            });
        }
        let weights = weights(&query, &key, bias.as_ref(), options.causal);
        weights.reshape(if self.rank() == 2 { all.without(&[0]) } else { all }).to_dtype(self.dtype())
    }

    fn grouped(&self, key: &Tensor, value: &Tensor) -> Result<Grouped, ErrorKind> {
        let rank = self.rank();
        if rank < 2 {
            let expected = "queries [batch…, heads, queries, width]".into();
            return Err(ErrorKind::Rank { expected, shape: self.shape().clone() });
        }
        for other in [key, value] {
            if other.rank() != rank {
                let expected = format!("keys and values of rank {rank}");
                return Err(ErrorKind::Rank { expected, shape: other.shape().clone() });
            }
        }
        let (query, key, value) = match rank {
            2 => (self.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)),
            _ => (self.clone(), key.clone(), value.clone()),
        };
        let [of_query, of_key] = [&query, &key].map(|x| x.shape());
        let (batch, inner) = of_query.split_at(of_query.len() - 3);
        let (heads, queries) = (inner[0], inner[1]);
        let shared = of_key[batch.len()];
        if shared == 0 || !heads.is_multiple_of(shared) {
            let reason = format!("{heads} heads of queries cannot share {shared} of keys evenly");
            return Err(ErrorKind::Contract { left: self.shape().clone(), right: of_key.clone(), reason });
        }
        let with = |inner: &[usize]| -> Shape { batch.iter().chain(inner).copied().collect() };
        let keys = of_key[batch.len() + 1];
        let logits = [with(&[heads, queries, keys]), with(&[shared, heads / shared, queries, keys])];
        let grouped = query.reshape(with(&[shared, heads / shared, queries, inner[2]]));
        let values = value.shape()[value.rank() - 1];
        let shape = self.shape().with(rank - 1, values);
        Ok(Grouped { query: grouped, key, value, shape, logits })
    }
}

#[track_caller]
fn attend(operands: &[&Tensor], causal: bool) -> Tensor {
    Tensor::record(Op::Attention { part: AttentionPart::Output, causal }, operands, None)
}

/// Attention with logits that something is added to.
#[track_caller]
fn with_bias(query: &Tensor, key: &Tensor, value: &Tensor, bias: &Tensor, causal: bool) -> Tensor {
    let weights = weights(query, key, Some(bias), causal);
    Tensor::record(Op::Contract { batch: key.rank() - 2, contracted: 1 }, &[&weights, &value.t()], None)
}

/// The weights of all keys for each query, with logits that something is added to.
#[track_caller]
fn weights(query: &Tensor, key: &Tensor, bias: Option<&Tensor>, causal: bool) -> Tensor {
    let batch = key.rank() - 2;
    let mut logits = Tensor::record(Op::Contract { batch, contracted: 1 }, &[query, key], None);
    if let Some(bias) = bias {
        logits = logits + bias;
    }
    if logits.error().is_some() {
        return logits;
    }
    if causal {
        let (queries, keys) = (logits.shape()[batch + 1], logits.shape()[batch + 2]);
        let last = Tensor::arange(queries, query.device()) + (keys as i64 - queries as i64);
        let visible = Tensor::arange(keys, query.device()).unsqueeze(0).le(last.unsqueeze(1));
        logits = visible.where_(&logits, logits.constant(f64::NEG_INFINITY));
    }
    // As it is, softmax has no answer where there is nothing to look at.
    let largest = logits.max_keepdim(-1).detach();
    let nothing = largest.eq(f64::NEG_INFINITY);
    let weights = (logits - nothing.where_(largest.zeros_like(), &largest)).exp();
    let total = weights.sum_keepdim(-1);
    weights / nothing.where_(total.ones_like(), &total)
}
