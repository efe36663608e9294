//! Scaled dot-product attention: what is computed of it, and the same as a graph of other primitives.
//!
//! With a query's logits `s_j = q · k_j` over the keys that it may look at, and weights `p_j = exp(s_j) / Σ exp(s_j)`, the
//! output is `Σ p_j v_j` (Vaswani et al., "Attention is all you need", 2017; queries are scaled by whoever gives them). Its
//! gradient needs no more than `log Σ exp(s_j)` and the scalar product of the output and its cotangent, one number for each query
//! (Dao et al., "FlashAttention", 2022): so nothing of the size of the logits is ever stored.

use super::infer::{accepts_dtype, equal_shapes};
use super::row::Accepts;
use super::{Axes, BinaryOp, CompareOp, Op, ReduceOp, Type, UnaryOp};
use crate::graph::{Graph, NodeId};
use crate::{DType, Error, Number, Result, Shape};

/// What is computed of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionPart {
    /// The weighted sums of values, `[batch…, group, queries, values]`; zeros for a query that may look at nothing.
    Output,
    /// The logarithms of the sums of exponentials, `[batch…, group, queries]`.
    LogSumExp,
    /// The cotangent of the queries.
    GradQuery,
    /// The cotangent of the keys.
    GradKey,
    /// The cotangent of the values.
    GradValue,
}

impl AttentionPart {
    /// Every part.
    pub const ALL: [AttentionPart; 5] = [
        AttentionPart::Output,
        AttentionPart::LogSumExp,
        AttentionPart::GradQuery,
        AttentionPart::GradKey,
        AttentionPart::GradValue,
    ];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            AttentionPart::Output => "attention",
            AttentionPart::LogSumExp => "attention_log_sum_exp",
            AttentionPart::GradQuery => "attention_grad_query",
            AttentionPart::GradKey => "attention_grad_key",
            AttentionPart::GradValue => "attention_grad_value",
        }
    }

    /// Whether it is a cotangent.
    pub fn is_gradient(self) -> bool {
        matches!(self, AttentionPart::GradQuery | AttentionPart::GradKey | AttentionPart::GradValue)
    }

    /// How many operands it has, apart from the mask.
    pub fn operands(self) -> usize {
        if self.is_gradient() { 6 } else { 3 }
    }
}

/// The extents of an attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// The batch axes, of which each has keys and values of its own.
    pub batch: Shape,
    /// How many heads of queries share these.
    pub group: usize,
    /// Queries of a head.
    pub queries: usize,
    /// Keys, and values.
    pub keys: usize,
    /// Numbers of a query and of a key.
    pub width: usize,
    /// Numbers of a value.
    pub values: usize,
}

impl AttentionShape {
    /// The extents of queries, keys and values of these shapes, which fit.
    pub fn of(query: &Shape, key: &Shape, value: &Shape) -> AttentionShape {
        let rank = key.len();
        AttentionShape {
            batch: Shape::new(&key[..rank - 2]),
            group: query[rank - 2],
            queries: query[rank - 1],
            keys: key[rank - 2],
            width: key[rank - 1],
            values: value[rank - 1],
        }
    }

    fn with(&self, inner: &[usize]) -> Shape {
        self.batch.iter().chain(inner).copied().collect()
    }

    /// The shape of the logits.
    pub fn logits(&self) -> Shape {
        self.with(&[self.group, self.queries, self.keys])
    }

    /// The shape of one number for each query.
    pub fn per_query(&self) -> Shape {
        self.with(&[self.group, self.queries])
    }

    /// The shape of a part.
    pub fn of_part(&self, part: AttentionPart) -> Shape {
        match part {
            AttentionPart::Output => self.with(&[self.group, self.queries, self.values]),
            AttentionPart::LogSumExp => self.per_query(),
            AttentionPart::GradQuery => self.with(&[self.group, self.queries, self.width]),
            AttentionPart::GradKey => self.with(&[self.keys, self.width]),
            AttentionPart::GradValue => self.with(&[self.keys, self.values]),
        }
    }

    /// The indices over which a part is computed, one for each row of the result.
    pub fn space(&self, part: AttentionPart) -> Shape {
        match part {
            AttentionPart::GradKey | AttentionPart::GradValue => self.with(&[self.keys]),
            _ => self.per_query(),
        }
    }
}

/// Checks operands and gives the type of a part.
pub(super) fn infer(part: AttentionPart, operands: &[&Type]) -> Result<Type> {
    let dtype = operands[0].dtype;
    accepts_dtype(Accepts::Floats, dtype)?;
    let numbers = part.operands();
    if let Some(other) = operands[..numbers].iter().find(|t| t.dtype != dtype) {
        return Err(Error::DTypes { left: dtype, right: other.dtype });
    }
    let [query, key, value] = [0, 1, 2].map(|i| &operands[i].shape);
    if query.len() < 3 {
        return Err(Error::Rank { expected: "[batch…, group, queries, width]".into(), shape: query.clone() });
    }
    let rank = query.len() - 1;
    let Some(&[.., keys, width]) = key.get(..rank).filter(|_| key.len() == rank) else {
        return Err(Error::Rank { expected: format!("keys of rank {rank}"), shape: key.clone() });
    };
    let batch = &query[..rank - 2];
    let expected = |inner: [usize; 2]| -> Shape { batch.iter().copied().chain(inner).collect() };
    equal_shapes("the keys", &expected([keys, query[rank]]), key)?;
    let values = value.last().copied().unwrap_or(0);
    equal_shapes("the values", &expected([keys, values]), value)?;
    if keys == 0 || width == 0 || values == 0 {
        let (argument, expected) = ("keys", "at least one key, of at least one number, and values");
        return Err(Error::Argument { argument, expected, found: format!("keys {key} and values {value}") });
    }
    let shape = AttentionShape::of(query, key, value);
    if part.is_gradient() {
        equal_shapes("the cotangent", &shape.of_part(AttentionPart::Output), &operands[3].shape)?;
        equal_shapes("the logarithms of sums", &shape.per_query(), &operands[4].shape)?;
        equal_shapes("the scalar products", &shape.per_query(), &operands[5].shape)?;
    }
    if let Some(mask) = operands.get(numbers) {
        accepts_dtype(Accepts::Bools, mask.dtype)?;
        equal_shapes("the mask", &shape.logits(), &mask.shape)?;
    }
    let shape = shape.of_part(part);
    if shape.checked_numel().is_some() { Ok(Type { shape, dtype }) } else { Err(Error::TooLarge { shape }) }
}

/// The graph that computes a part from operands of these types, its inputs, with other primitives: all logits at once. It is what
/// tests hold kernels to, and what second derivatives go through.
pub fn composed(part: AttentionPart, causal: bool, operands: &[&Type]) -> Result<Graph> {
    let shape = AttentionShape::of(&operands[0].shape, &operands[1].shape, &operands[2].shape);
    let mut graph = Graph::new();
    let inputs: Vec<NodeId> = operands.iter().map(|ty| graph.input(ty.shape.clone(), ty.dtype, false)).collect();
    let mut composer = Composer { graph, batch: shape.batch.len(), shape };
    let mask = inputs.get(part.operands()).copied();
    let output = composer.part(part, causal, &inputs, mask)?;
    composer.graph.outputs.push(output);
    Ok(composer.graph)
}

struct Composer {
    graph: Graph,
    batch: usize,
    shape: AttentionShape,
}

impl Composer {
    fn part(&mut self, part: AttentionPart, causal: bool, inputs: &[NodeId], mask: Option<NodeId>) -> Result<NodeId> {
        let (query, key, value) = (inputs[0], inputs[1], inputs[2]);
        let visible = self.visible(causal, mask)?;
        let logits = self.contract(query, key, 1)?;
        match part {
            AttentionPart::Output | AttentionPart::LogSumExp => {
                let logits = self.hidden(visible, logits)?;
                let last = Axes::from_slice(&[self.batch + 2]);
                let largest = self.unary(Op::Reduce(ReduceOp::Max, last.clone()), logits)?;
                // Of nothing at all.
                let lowest = self.constant(largest, f64::NEG_INFINITY)?;
                let (zero, one) = (self.constant(largest, 0.0)?, self.constant(largest, 1.0)?);
                let nothing = self.apply(Op::Compare(CompareOp::Eq), &[largest, lowest])?;
                let largest = self.apply(Op::Select, &[nothing, zero, largest])?;
                let exponentials = self.less(logits, largest)?;
                let total = self.unary(Op::Reduce(ReduceOp::Sum, last), exponentials)?;
                if part == AttentionPart::LogSumExp {
                    let logarithm = self.unary(Op::Unary(UnaryOp::Log), total)?;
                    let sum = self.apply(Op::Binary(BinaryOp::Add), &[largest, logarithm])?;
                    return self.shaped(Op::Reshape, sum, self.shape.per_query());
                }
                let output = self.weighted(exponentials, value)?;
                let total = self.apply(Op::Select, &[nothing, one, total])?;
                let total = self.shaped(Op::Expand, total, self.shape.of_part(AttentionPart::Output))?;
                self.apply(Op::Binary(BinaryOp::Div), &[output, total])
            }
            AttentionPart::GradQuery | AttentionPart::GradKey | AttentionPart::GradValue => {
                let (cotangent, sums, products) = (inputs[3], inputs[4], inputs[5]);
                let sums = self.per_logit(sums)?;
                let exponents = self.apply(Op::Binary(BinaryOp::Sub), &[logits, sums])?;
                let exponents = self.hidden(visible, exponents)?;
                let weights = self.unary(Op::Unary(UnaryOp::Exp), exponents)?;
                if part == AttentionPart::GradValue {
                    return self.summed_over_queries(weights, cotangent);
                }
                let slopes = self.contract(cotangent, value, 1)?;
                let products = self.per_logit(products)?;
                let slopes = self.apply(Op::Binary(BinaryOp::Sub), &[slopes, products])?;
                let slopes = self.apply(Op::Binary(BinaryOp::Mul), &[weights, slopes])?;
                if part == AttentionPart::GradQuery {
                    self.weighted(slopes, key)
                } else {
                    self.summed_over_queries(slopes, query)
                }
            }
        }
    }

    fn apply(&mut self, op: Op, operands: &[NodeId]) -> Result<NodeId> {
        let wanted = self.graph.nodes()[operands[0]].ty.clone();
        self.graph.add(op, operands, wanted)
    }

    fn unary(&mut self, op: Op, operand: NodeId) -> Result<NodeId> {
        self.apply(op, &[operand])
    }

    fn shaped(&mut self, op: Op, operand: NodeId, shape: Shape) -> Result<NodeId> {
        let dtype = self.graph.nodes()[operand].ty.dtype;
        self.graph.add(op, &[operand], Type { shape, dtype })
    }

    fn constant(&mut self, like: NodeId, value: f64) -> Result<NodeId> {
        let ty = self.graph.nodes()[like].ty.clone();
        self.graph.add(Op::Const(Number::Float(value)), &[], ty)
    }

    fn contract(&mut self, a: NodeId, b: NodeId, contracted: usize) -> Result<NodeId> {
        let batch = self.batch;
        self.apply(Op::Contract { batch, contracted }, &[a, b])
    }

    /// `[batch…, group, queries, keys] · [batch…, keys, n]`.
    fn weighted(&mut self, weights: NodeId, rows: NodeId) -> Result<NodeId> {
        let columns = self.turned(rows, &[1, 0])?;
        self.contract(weights, columns, 1)
    }

    /// `[batch…, group, queries, keys]` and `[batch…, group, queries, n]` to `[batch…, keys, n]`.
    fn summed_over_queries(&mut self, weights: NodeId, rows: NodeId) -> Result<NodeId> {
        let (weights, rows) = (self.turned(weights, &[2, 0, 1])?, self.turned(rows, &[2, 0, 1])?);
        self.contract(weights, rows, 2)
    }

    /// Axes after those of the batch in another order.
    fn turned(&mut self, x: NodeId, order: &[usize]) -> Result<NodeId> {
        let axes = (0..self.batch).chain(order.iter().map(|axis| self.batch + axis)).collect();
        self.unary(Op::Permute(axes), x)
    }

    /// One number for each query, repeated for each key.
    fn per_logit(&mut self, x: NodeId) -> Result<NodeId> {
        let column = self.shape.with(&[self.shape.group, self.shape.queries, 1]);
        let x = self.shaped(Op::Reshape, x, column)?;
        self.shaped(Op::Expand, x, self.shape.logits())
    }

    /// exp(logits − largest).
    fn less(&mut self, logits: NodeId, largest: NodeId) -> Result<NodeId> {
        let largest = self.shaped(Op::Expand, largest, self.shape.logits())?;
        let difference = self.apply(Op::Binary(BinaryOp::Sub), &[logits, largest])?;
        self.unary(Op::Unary(UnaryOp::Exp), difference)
    }

    /// Exponents, −∞ where a query may not look.
    fn hidden(&mut self, visible: Option<NodeId>, exponents: NodeId) -> Result<NodeId> {
        let Some(visible) = visible else { return Ok(exponents) };
        let lowest = self.constant(exponents, f64::NEG_INFINITY)?;
        self.apply(Op::Select, &[visible, exponents, lowest])
    }

    /// Which keys each query may look at: the last query at all, if it is causal, each one before at one fewer.
    fn visible(&mut self, causal: bool, mask: Option<NodeId>) -> Result<Option<NodeId>> {
        if !causal {
            return Ok(mask);
        }
        let ty = Type { shape: self.shape.logits(), dtype: DType::I32 };
        let query = self.graph.add(Op::Iota(self.batch + 1), &[], ty.clone())?;
        let key = self.graph.add(Op::Iota(self.batch + 2), &[], ty.clone())?;
        let ahead = Number::Int(self.shape.keys as i64 - self.shape.queries as i64);
        let ahead = self.graph.add(Op::Const(ahead), &[], ty)?;
        let last = self.apply(Op::Binary(BinaryOp::Add), &[query, ahead])?;
        let visible = self.apply(Op::Compare(CompareOp::Le), &[key, last])?;
        match mask {
            None => Ok(Some(visible)),
            Some(mask) => Ok(Some(self.apply(Op::Binary(BinaryOp::And), &[visible, mask])?)),
        }
    }
}
