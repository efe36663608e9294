//! The recorded graph, for transformations: `grad` walks it.

use crate::error::{Error, Result};
use crate::extract;
use crate::node::{Cut, Node, Reach};
pub use crate::notes::Live;
pub use crate::routine::Routine;
pub use crate::scope::{Scope, is_profiled};
pub use crate::transform::{Recipe, next_id, placeholder, with_symbolic_draws};
use crate::{Device, GradientRule, Tensor};
use gradus_ir::op::attention::{AttentionPart, AttentionShape};
use gradus_ir::op::{Op, Type};
use gradus_ir::{Error as ErrorKind, Graph, Number};
use std::panic::Location;
use std::sync::Arc;

/// How many nodes of a device are alive; handles of the device count too. A loop that leaks nodes makes it grow.
pub fn live_nodes(device: &Device) -> usize {
    // Each node has a handle.
    device.owners()
}

/// A node of the recorded graph. It does not count as holding the tensor.
#[derive(Clone)]
pub struct NodeRef(Arc<Node>);

impl NodeRef {
    /// The node behind a tensor.
    ///
    /// # Errors
    /// The error that the tensor carries.
    pub fn new(tensor: &Tensor) -> Result<NodeRef> {
        Ok(NodeRef(tensor.node()?.clone()))
    }

    /// A number that grows along every edge and is unique to the node.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The primitive.
    pub fn op(&self) -> &Op {
        &self.0.op
    }

    /// Shape and dtype.
    pub fn ty(&self) -> &Type {
        &self.0.ty
    }

    /// The line that recorded the op.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }

    /// Whether it has no value: it is a placeholder of a transformation, or depends on one.
    pub fn is_symbolic(&self) -> bool {
        self.0.symbolic
    }

    /// The id of the node that first drew these random numbers: its own, unless it was recorded from a recipe.
    pub fn drawn(&self) -> u64 {
        self.0.drawn
    }

    /// How to record the op again.
    pub fn recipe(&self) -> Recipe {
        Recipe::of(&self.0)
    }

    /// Whether gradients stop here: detached, a leaf, or recorded under `no_grad`.
    pub fn stops_gradient(&self) -> bool {
        self.0.stops
    }

    /// The gradient that replaces the op's own.
    pub fn rule(&self) -> Option<&Arc<dyn GradientRule>> {
        self.0.rule.as_ref()
    }

    /// Whether the value is there although the graph behind it is too: it was read before its gradient was taken.
    pub fn was_evaluated(&self) -> bool {
        !self.0.is_pending() && !self.0.state().edges.is_empty()
    }

    /// The nodes that it reads; none for a leaf.
    ///
    /// # Errors
    /// If they are gone: evaluated untracked, or a parameter behind them has been updated.
    pub fn operands(&self) -> Result<Vec<NodeRef>> {
        let state = self.0.state();
        let kind = match &state.cut {
            Cut::No => return Ok(state.edges.iter().cloned().map(NodeRef).collect()),
            Cut::Evaluated => ErrorKind::GraphFreed,
            Cut::Updated(name) => ErrorKind::ParameterUpdated { name: name.clone() },
        };
        Err(Error::located("grad", kind, self.0.location))
    }

    /// Whether the graph that is gone from behind this node may have led to `target`: a gradient that reaches the target in
    /// other ways would then be only a part of it.
    pub fn may_have_led_to(&self, target: &NodeRef) -> bool {
        let (node, target) = (&self.0, &target.0);
        // What depends on a parameter keeps its graph until one is assigned, and what depends on a placeholder is not evaluated.
        let last = match node.reach() {
            _ if target.symbolic || target.recorded => return false,
            _ if !target.is_tracked() || target.is_stale_leaf() => node.id,
            Reach::Lost(id) => id,
            Reach::Nothing | Reach::Parameter => return false,
        };
        node.first <= target.id && target.id < last && node.cells & target.cells == target.cells
    }

    /// Whether the cell that this leaf stands for was assigned since the leaf was read.
    pub fn is_updated(&self) -> bool {
        self.0.cell.as_ref().is_some_and(|tag| tag.is_stale())
    }

    /// A number unique to the cell that this leaf stands for, whatever its version.
    pub fn cell_id(&self) -> Option<u64> {
        self.0.cell.as_ref().map(|tag| tag.cell_id())
    }

    /// The name of the cell that this leaf stands for.
    pub fn parameter(&self) -> Option<String> {
        self.0.cell.as_ref().map(|tag| tag.name())
    }

    /// Multiplications, each with an addition, of a matrix product or of attention; 0 for any other op, and where the operands
    /// are gone.
    pub fn multiply_adds(&self) -> usize {
        let state = self.0.state();
        let shape = |operand: usize| &state.edges[operand].ty.shape;
        match &self.0.op {
            Op::Contract { contracted, .. } if state.edges.len() == 2 => {
                let summed = shape(0).iter().rev().take(*contracted).product::<usize>();
                self.0.ty.shape.numel().saturating_mul(summed)
            }
            Op::Attention { part: AttentionPart::Output, .. } if state.edges.len() >= 3 => {
                let of = AttentionShape::of(shape(0), shape(1), shape(2));
                let logits = of.batch.numel().saturating_mul(of.group * of.queries).saturating_mul(of.keys);
                logits.saturating_mul(of.width + of.values)
            }
            _ => 0,
        }
    }

    /// A tensor handle to the node.
    pub fn tensor(&self) -> Tensor {
        Tensor::of(self.0.clone())
    }
}

/// A graph taken from tensors without running it.
pub struct Trace {
    /// The graph; its first input slots are the inputs given.
    pub graph: Graph,
    /// The tensors behind all input slots.
    pub inputs: Vec<Tensor>,
    /// The numbers of the scalar slots.
    pub scalars: Vec<Number>,
}

/// The graph that computes `outputs` from `inputs`.
///
/// # Errors
/// The first error that a tensor carries, or if an output has no value.
pub fn trace(outputs: &[Tensor], inputs: &[Tensor]) -> Result<Trace> {
    let nodes = |tensors: &[Tensor]| tensors.iter().map(|t| t.node().cloned()).collect::<Result<Vec<_>>>();
    let traced = extract::trace(&nodes(outputs)?, &nodes(inputs)?)?;
    let inputs = traced.leaves.into_iter().map(Tensor::of).collect();
    Ok(Trace { graph: traced.graph, inputs, scalars: traced.scalars })
}

/// `output` with `rule` as its gradient with respect to `inputs`, in place of that of the ops that computed it.
#[track_caller]
pub fn with_rule(output: &Tensor, inputs: &[Tensor], rule: Arc<dyn GradientRule>) -> Tensor {
    let operands: Vec<&Tensor> = std::iter::once(output).chain(inputs).collect();
    Tensor::record_with_rule(&operands, rule)
}

/// Records what `body` records as if it stood on another line: the gradient of an op on the op's.
pub fn recorded_at<R>(location: &'static Location<'static>, body: impl FnOnce() -> R) -> R {
    crate::tensor::recorded_at(location, body)
}

/// Runs `body` with gradients recorded, also inside of [`no_grad`](crate::no_grad).
pub fn with_grad<R>(body: impl FnOnce() -> R) -> R {
    crate::tensor::with_no_grad(false, body)
}

/// Whether this is inside of [`no_grad`](crate::no_grad).
pub fn is_no_grad() -> bool {
    crate::tensor::is_no_grad()
}

/// Records a primitive on operands of fitting shapes and dtypes. `Cast`, `Reshape` and `Expand` need a type of their own
/// and are recorded by the tensor's methods.
#[track_caller]
pub fn apply(op: Op, operands: &[&Tensor]) -> Tensor {
    let like = if let Op::Select = op { operands.get(1) } else { operands.first() };
    let wanted = like.map(|t| Type { shape: t.shape().clone(), dtype: t.dtype() });
    Tensor::record(op, operands, wanted)
}

/// The first output of a graph, recorded on tensors that stand for its input slots.
#[track_caller]
pub fn record_graph(graph: &Graph, inputs: &[Tensor]) -> Tensor {
    let mut recorded: Vec<Tensor> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let operands: Vec<&Tensor> = node.operands.iter().map(|&id| &recorded[id]).collect();
        let tensor = match (&node.op, &operands[..]) {
            (Op::Input(slot), _) => inputs[*slot].clone(),
            (source, []) => Tensor::draw(source.clone(), None, None, node.ty.clone(), inputs[0].device()),
            (op, operands) => Tensor::record(op.clone(), operands, Some(node.ty.clone())),
        };
        recorded.push(tensor);
    }
    recorded[graph.outputs[0]].clone()
}

/// A number of the library, in shape, dtype and device of a tensor.
#[track_caller]
pub fn constant_like(tensor: &Tensor, value: f64) -> Tensor {
    tensor.constant(value)
}
