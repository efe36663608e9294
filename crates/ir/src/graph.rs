//! Graphs of primitives: what an evaluation computes, in topological order.

use crate::op::{Op, Type};
use crate::{DType, Result, Shape};
use smallvec::SmallVec;

/// The position of a node in its graph.
pub type NodeId = usize;

/// One primitive, its operands and what it gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The primitive.
    pub op: Op,
    /// Earlier nodes that it reads.
    pub operands: SmallVec<[NodeId; 3]>,
    /// Shape and dtype of the result.
    pub ty: Type,
}

/// A graph. Equality and hash are those of its structure (ops, attributes, shapes, dtypes, outputs, donated inputs): the
/// key of the plan cache. Input buffers, user numbers and random keys are slots, filled at each run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Graph {
    nodes: Vec<Node>,
    /// The nodes whose values are asked for.
    pub outputs: Vec<NodeId>,
    /// For each input slot, whether a run may overwrite its buffer.
    pub donated: Vec<bool>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// The nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds a node after checking its operands; `wanted` is as in [`Op::infer`].
    pub fn add(&mut self, op: Op, operands: &[NodeId], wanted: Type) -> Result<NodeId> {
        let types: SmallVec<[&Type; 3]> = operands.iter().map(|&id| &self.nodes[id].ty).collect();
        let ty = op.infer(&types, &wanted)?;
        drop(types);
        Ok(self.push(op, operands.iter().copied().collect(), ty))
    }

    /// Adds a node that has been checked before.
    pub fn push(&mut self, op: Op, operands: SmallVec<[NodeId; 3]>, ty: Type) -> NodeId {
        self.nodes.push(Node { op, operands, ty });
        self.nodes.len() - 1
    }

    /// Adds an input in the next slot.
    pub fn input(&mut self, shape: impl Into<Shape>, dtype: DType, donated: bool) -> NodeId {
        self.donated.push(donated);
        let ty = Type { shape: shape.into(), dtype };
        self.push(Op::Input(self.donated.len() - 1), SmallVec::new(), ty)
    }

    /// The same graph with every float promoted to f64, for finite differences.
    pub fn promoted(&self) -> Graph {
        let mut graph = self.clone();
        for node in &mut graph.nodes {
            if node.ty.dtype.is_float() {
                node.ty.dtype = DType::F64;
            }
        }
        graph
    }
}
