//! The batching rule of each primitive: the same op on many examples at once, which lie along a new first axis.

use crate::vmap::for_each_example;
use gradus_ir::op::{Axes, Op, PadAxis, SliceAxis};
use gradus_tensor::graph::{NodeRef, Recipe};
use gradus_tensor::{GradientRule, Result, Tensor, stack};
use std::iter::once;
use std::sync::Arc;

/// What a tensor of one example became.
#[derive(Clone)]
pub(crate) enum Mapped {
    /// The same for all examples.
    Shared(NodeRef),
    /// One for each example, along a new first axis.
    Batched(NodeRef),
}

impl Mapped {
    pub(crate) fn node(&self) -> &NodeRef {
        match self {
            Mapped::Shared(node) | Mapped::Batched(node) => node,
        }
    }

    pub(crate) fn is_batched(&self) -> bool {
        matches!(self, Mapped::Batched(_))
    }

    /// One for each example, repeated if it was shared.
    pub(crate) fn batched(&self, examples: usize) -> Tensor {
        let tensor = self.node().tensor();
        match self {
            Mapped::Batched(_) => tensor,
            Mapped::Shared(_) => tensor.unsqueeze(0).broadcast_to(tensor.shape().with_inserted(0, examples)),
        }
    }
}

/// How many examples there are, and whose random numbers are their own.
#[derive(Clone, Copy)]
pub(crate) struct Examples {
    pub(crate) count: usize,
    /// Random numbers that were first drawn by this node or a later one differ between examples.
    pub(crate) own_draws_since: u64,
}

impl Examples {
    /// A node of one example as a node of all.
    pub(crate) fn batch(self, node: &NodeRef, operands: &[NodeRef], mapped: &[Mapped]) -> Result<Mapped> {
        let recipe = node.recipe();
        let is_own_draw = matches!(recipe.op, Op::Random(_)) && node.drawn() >= self.own_draws_since;
        // A barrier passes on its first operand, whatever it waits for.
        let shares_value = matches!(recipe.op, Op::Barrier) && recipe.rule.is_none() && !mapped[0].is_batched();
        if !is_own_draw && (shares_value || !mapped.iter().any(Mapped::is_batched)) {
            if operands.iter().zip(mapped).all(|(operand, mapped)| operand.id() == mapped.node().id()) {
                return Ok(Mapped::Shared(node.clone()));
            }
            return Ok(Mapped::Shared(NodeRef::new(&record(&recipe, mapped.iter().map(|m| m.node().tensor())))?));
        }
        let batched = recipe.in_place(|| self.record(recipe.clone(), mapped));
        Ok(Mapped::Batched(NodeRef::new(&batched)?))
    }

    /// Records a node for all examples: at least one operand is batched, or the node draws random numbers.
    fn record(self, mut recipe: Recipe, operands: &[Mapped]) -> Tensor {
        recipe.ty.shape = recipe.ty.shape.with_inserted(0, self.count);
        match &mut recipe.op {
            // The type says it all. (Sources are the same for all examples, but for random numbers.)
            Op::Input(_) | Op::Scalar(_) | Op::Const(_) | Op::Random(_) => {}
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Cast
            | Op::Reshape
            | Op::Expand
            | Op::Index { .. }
            | Op::Attention { .. } => {}
            // Every axis is one further back.
            Op::Iota(axis) | Op::Scatter(_, axis) => *axis += 1,
            Op::Scan(_, axis) | Op::Argsort { axis, .. } => *axis += 1,
            Op::Permute(axes) => *axes = once(0).chain(further_back(axes)).collect(),
            Op::Reduce(_, axes) => *axes = further_back(axes).collect(),
            Op::Slice(slices) => {
                let whole = SliceAxis { start: 0, step: 1, len: self.count };
                *slices = once(whole).chain(slices.iter().copied()).collect();
            }
            Op::Pad(pads) => *pads = once(PadAxis::default()).chain(pads.iter().copied()).collect(),
            Op::Window(windows) => windows.iter_mut().for_each(|window| window.axis += 1),
            Op::Contract { batch, contracted } => {
                let (batch, contracted) = (*batch, *contracted);
                return contract(recipe, batch, contracted, &operands[0], &operands[1]);
            }
            Op::Gather(axis) => {
                if !operands[0].is_batched() {
                    let axis = *axis;
                    return gather(recipe, axis, &operands[0].node().tensor(), &operands[1].node().tensor());
                }
                *axis += 1;
            }
            Op::Custom(op) => {
                if op.note_loop() {
                    tracing::warn!(
                        "vmap runs the custom op {} once for each example: what it does to many at once is not known",
                        op.name
                    );
                }
                return self.one_by_one(recipe, operands);
            }
            Op::Barrier => return self.barrier(recipe, operands),
        }
        record(&recipe, operands.iter().map(|operand| operand.batched(self.count)))
    }

    /// The op of each example by itself.
    fn one_by_one(self, recipe: Recipe, operands: &[Mapped]) -> Tensor {
        if self.count == 0 {
            let device = operands[0].node().tensor().device().clone();
            return Tensor::zeros(recipe.ty.shape, (&device, recipe.ty.dtype));
        }
        let result = |example: usize| {
            let of_example = |operand: &Mapped| match operand {
                Mapped::Batched(node) => node.tensor().select_index(0, example as isize),
                Mapped::Shared(node) => node.tensor(),
            };
            record(&recipe, operands.iter().map(of_example))
        };
        let results: Vec<Tensor> = (0..self.count).map(result).collect();
        stack(&results.iter().collect::<Vec<_>>(), 0)
    }

    /// The value is batched; what a barrier waits for, and what a rule is given, may be or not.
    fn barrier(self, mut recipe: Recipe, operands: &[Mapped]) -> Tensor {
        let (value, others) = (operands[0].batched(self.count), &operands[1..]);
        recipe.rule = recipe.rule.map(|rule| {
            let is_batched = others.iter().map(Mapped::is_batched).collect();
            Arc::new(BatchedRule { rule, is_batched, examples: self }) as Arc<dyn GradientRule>
        });
        record(&recipe, once(value).chain(others.iter().map(|other| other.node().tensor())))
    }
}

fn record(recipe: &Recipe, operands: impl Iterator<Item = Tensor>) -> Tensor {
    let operands: Vec<Tensor> = operands.collect();
    recipe.record(&operands.iter().collect::<Vec<_>>())
}

fn further_back(axes: &Axes) -> impl Iterator<Item = usize> {
    axes.iter().map(|axis| axis + 1)
}

/// A matrix product. If one side is shared, the examples are more rows of the other one: it is not repeated.
fn contract(mut recipe: Recipe, batch: usize, contracted: usize, a: &Mapped, b: &Mapped) -> Tensor {
    let (x, y) = (a.node().tensor(), b.node().tensor());
    if a.is_batched() && b.is_batched() {
        recipe.op = Op::Contract { batch: batch + 1, contracted };
        return recipe.record(&[&x, &y]);
    }
    // The rows of `a` come before those of `b`.
    let (x, y, place) = if a.is_batched() {
        (move_axis(&x, 0, batch), y, batch)
    } else {
        let place = x.rank() - contracted;
        (x, move_axis(&y, 0, batch), place)
    };
    move_axis(&recipe.record(&[&x, &y]), place, 0)
}

/// Each example's elements of what they share: the examples are more indices, and nothing is repeated.
fn gather(recipe: Recipe, axis: usize, x: &Tensor, index: &Tensor) -> Tensor {
    let index = move_axis(index, 0, axis);
    let (examples, each) = (index.shape()[axis], index.shape()[axis + 1]);
    let merged = index.reshape(index.shape().without(&[axis]).with(axis, examples * each));
    move_axis(&recipe.record(&[x, &merged]).reshape(index.shape()), axis, 0)
}

/// The tensor with an axis in another place; the others stay in order.
pub(crate) fn move_axis(x: &Tensor, from: usize, to: usize) -> Tensor {
    let mut axes: Vec<usize> = (0..x.rank()).collect();
    let axis = axes.remove(from);
    axes.insert(to, axis);
    x.permute_axes(&axes)
}

/// A custom gradient, for each example its own.
struct BatchedRule {
    rule: Arc<dyn GradientRule>,
    /// Which inputs are batched.
    is_batched: Vec<bool>,
    examples: Examples,
}

impl GradientRule for BatchedRule {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn backward(&self, inputs: &[Tensor], output: &Tensor, cotangent: &Tensor, wanted: &[bool]) -> Vec<Option<Tensor>> {
        let arguments: Vec<Tensor> = inputs.iter().chain([output, cotangent]).cloned().collect();
        let is_batched: Vec<bool> = self.is_batched.iter().copied().chain([true, true]).collect();
        let mut given = Vec::new();
        let rule = |x: &[Tensor]| {
            let (inputs, rest) = x.split_at(inputs.len());
            let gradients = self.rule.backward(inputs, &rest[0], &rest[1], wanted);
            let wanted = wanted.iter().copied().chain(std::iter::repeat(true));
            let gradients: Vec<_> = gradients.into_iter().zip(wanted).map(|(g, wanted)| g.filter(|_| wanted)).collect();
            given.extend(gradients.iter().map(Option::is_some));
            gradients.into_iter().flatten().collect::<Vec<_>>()
        };
        let gradients = match for_each_example(rule, &arguments, &is_batched, self.examples) {
            Ok(gradients) => gradients,
            Err(error) => return vec![Some(Tensor::build(cotangent.device(), || Err(error))); wanted.len()],
        };
        let mut gradients = gradients.into_iter();
        let is_batched = is_batched.into_iter().chain(std::iter::repeat(true));
        let gradient = |(given, is_batched): (bool, bool)| {
            let gradient = if given { gradients.next()? } else { return None };
            // What all examples share gets the sum of their gradients.
            Some(if is_batched { gradient } else { gradient.sum(0) })
        };
        given.into_iter().zip(is_batched).map(gradient).collect()
    }
}
