//! Simplification: what computes nothing new is replaced by what is there already.
//!
//! A user's number is a slot and never looked at; two `Random`s are never one; nothing sees through a `Barrier`.

use crate::graph::{Graph, Node, NodeId};
use crate::op::{BinaryOp, CompareOp, Op, PadAxis, ReduceOp, ScatterMode, SliceAxis, Type, UnaryOp};
use crate::{DType, Element, Number, Shape, f16};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};

/// A graph with fewer nodes.
pub(super) struct Simplified {
    pub(super) graph: Graph,
    /// For each node, the node of the first graph that it was made for.
    pub(super) origins: Vec<NodeId>,
}

impl Simplified {
    /// A graph as it is.
    pub(super) fn unchanged(graph: &Graph) -> Simplified {
        without_the_dead(graph, &(0..graph.nodes().len()).collect::<Vec<_>>())
    }
}

/// Folds the library's constants, drops what changes nothing and what nobody needs, and computes equal things once.
pub(super) fn simplify(graph: &Graph) -> Simplified {
    let mut simplifier = Simplifier::new(graph);
    let needed = needed(graph);
    let mut place: Vec<NodeId> = vec![usize::MAX; graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate() {
        // Inputs stay, so that their slots do.
        if needed[id] || matches!(node.op, Op::Input(_)) {
            let operands = node.operands.iter().map(|&operand| place[operand]).collect();
            simplifier.origin = id;
            place[id] = simplifier.node(node.op.clone(), operands, node.ty.clone());
            if graph.outputs.contains(&id) {
                simplifier.asked.insert(place[id]);
            }
        }
    }
    let Simplifier { graph: mut simpler, origins, .. } = simplifier;
    simpler.outputs = graph.outputs.iter().map(|&id| place[id]).collect();
    // Simplification leaves nodes behind that nobody reads.
    without_the_dead(&simpler, &origins)
}

fn needed(graph: &Graph) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes().len()];
    graph.outputs.iter().for_each(|&id| needed[id] = true);
    for id in (0..needed.len()).rev() {
        if needed[id] {
            graph.nodes()[id].operands.iter().for_each(|&operand| needed[operand] = true);
        }
    }
    needed
}

/// How often each node is read, by nodes that are needed or as an output.
fn readers(graph: &Graph) -> Vec<usize> {
    let needed = needed(graph);
    let mut readers = vec![0; graph.nodes().len()];
    graph.outputs.iter().for_each(|&id| readers[id] += 1);
    for (node, _) in graph.nodes().iter().zip(needed).filter(|(_, needed)| *needed) {
        node.operands.iter().for_each(|&operand| readers[operand] += 1);
    }
    readers
}

fn without_the_dead(graph: &Graph, origins: &[NodeId]) -> Simplified {
    let needed = needed(graph);
    let mut alive = Graph::new();
    alive.donated = graph.donated.clone();
    let mut kept_origins = Vec::new();
    let mut place = vec![usize::MAX; graph.nodes().len()];
    for (id, Node { op, operands, ty }) in graph.nodes().iter().enumerate() {
        if needed[id] || matches!(op, Op::Input(_)) {
            let operands = operands.iter().map(|&operand| place[operand]).collect();
            place[id] = alive.push(op.clone(), operands, ty.clone());
            kept_origins.push(origins[id]);
        }
    }
    alive.outputs = graph.outputs.iter().map(|&id| place[id]).collect();
    Simplified { graph: alive, origins: kept_origins }
}

struct Simplifier {
    graph: Graph,
    origins: Vec<NodeId>,
    /// The outputs, as far as they are known.
    asked: HashSet<NodeId>,
    known: HashMap<Node, NodeId>,
    /// For each node the number that it repeats, if the library has put it in.
    constants: Vec<Option<Number>>,
    /// How often each node of the first graph is read.
    readers: Vec<usize>,
    /// The node of the first graph that is being looked at.
    origin: NodeId,
}

type Operands = SmallVec<[NodeId; 3]>;

impl Simplifier {
    fn new(graph: &Graph) -> Simplifier {
        let mut simpler = Graph::new();
        simpler.donated = graph.donated.clone();
        Simplifier {
            graph: simpler,
            origins: Vec::new(),
            asked: HashSet::new(),
            known: HashMap::new(),
            constants: Vec::new(),
            readers: readers(graph),
            origin: 0,
        }
    }

    /// The simplest node that gives this value: a new one, or one that is there.
    fn node(&mut self, op: Op, operands: Operands, ty: Type) -> NodeId {
        if let Some(same) = self.unchanged(&op, &operands, &ty) {
            return same;
        }
        if let Some(number) = self.folded(&op, &operands, &ty) {
            return self.push(Op::Const(number), Operands::new(), ty);
        }
        match (&op, &operands[..]) {
            (Op::Reduce(reduce, axes), &[x]) if !reduce.gives_index() => {
                // Along an axis of extent 1 there is nothing to combine.
                let shape = &self.ty(x).shape;
                let long: SmallVec<[usize; 4]> = axes.iter().copied().filter(|&axis| shape[axis] != 1).collect();
                if long.len() < axes.len() {
                    return self.node(Op::Reduce(*reduce, long), operands, ty);
                }
                if let Some(sum) = self.summed_product(x, *reduce, axes, &ty) {
                    return sum;
                }
            }
            (Op::Permute(axes), &[product]) => {
                if let Some(swapped) = self.swapped_product(product, axes) {
                    return self.node(self.graph.nodes()[product].op.clone(), swapped, ty);
                }
            }
            (Op::Slice(slices), &[product]) => {
                if let Some(smaller) = self.sliced_product(product, slices, &ty) {
                    return smaller;
                }
            }
            (Op::Scatter(mode, axis), &[base, index, updates]) if self.is_one_per_line(base, index, *axis) => {
                let replaces = match mode {
                    ScatterMode::Add => self.constant(base).is_some_and(|number| number.to_f64() == 0.0),
                    ScatterMode::Set => self.constant(base).is_some(),
                };
                if replaces {
                    let place = self.is_at(*axis, index, &ty);
                    let updates = self.node(Op::Expand, [updates].as_slice().into(), ty.clone());
                    return self.node(Op::Select, [place, updates, base].as_slice().into(), ty);
                }
            }
            (Op::Gather(axis), &[x, index]) if self.is_one_per_line(x, index, *axis) && self.is_on_the_way(x) => {
                let from = self.ty(x).clone();
                let place = self.is_at(*axis, index, &from);
                let zero = self.node(Op::Const(Number::Int(0)), Operands::new(), from.clone());
                let chosen = self.node(Op::Select, [place, x, zero].as_slice().into(), from);
                let axes = [*axis].as_slice().into();
                return self.node(Op::Reduce(ReduceOp::Sum, axes), [chosen].as_slice().into(), ty);
            }
            _ => {}
        }
        self.push(op, operands, ty)
    }

    /// Adds a node, unless the same one is there.
    fn push(&mut self, op: Op, operands: Operands, ty: Type) -> NodeId {
        let node = Node { op, operands, ty };
        let is_one_of_many = matches!(node.op, Op::Random(_) | Op::Barrier);
        if !is_one_of_many && let Some(&same) = self.known.get(&node) {
            return same;
        }
        // Known from the operand, so that nobody has to walk back along a chain of views.
        self.constants.push(match node.op {
            Op::Const(number) => Some(number),
            Op::Reshape | Op::Expand | Op::Permute(_) | Op::Slice(_) => self.constants[node.operands[0]],
            _ => None,
        });
        let id = self.graph.push(node.op.clone(), node.operands.clone(), node.ty.clone());
        self.origins.push(self.origin);
        if !is_one_of_many {
            self.known.insert(node, id);
        }
        id
    }

    fn ty(&self, id: NodeId) -> &Type {
        &self.graph.nodes()[id].ty
    }

    /// The number that a node repeats, if the library has put it in.
    fn constant(&self, id: NodeId) -> Option<Number> {
        self.constants[id]
    }

    /// The operand, if the op gives it back.
    fn unchanged(&self, op: &Op, operands: &[NodeId], ty: &Type) -> Option<NodeId> {
        let &x = operands.first()?;
        let is = |operand: usize, number: f64| self.constant(operands[operand]).is_some_and(|n| n.to_f64() == number);
        let same = match op {
            Op::Cast => self.ty(x).dtype == ty.dtype,
            Op::Reshape | Op::Expand => self.ty(x).shape == ty.shape,
            Op::Permute(axes) => axes.iter().copied().eq(0..axes.len()),
            Op::Slice(axes) => {
                let shape = &self.ty(x).shape;
                axes.iter().zip(&**shape).all(|(slice, &len)| *slice == SliceAxis { start: 0, step: 1, len })
            }
            Op::Pad(axes) => axes.iter().all(|axis| *axis == PadAxis::default()),
            Op::Reduce(reduce, axes) => axes.is_empty() && !reduce.gives_index(),
            Op::Binary(BinaryOp::Mul) if is(0, 1.0) && ty.dtype != DType::Bool => return Some(operands[1]),
            Op::Binary(BinaryOp::Add) if is(0, 0.0) => return Some(operands[1]),
            Op::Binary(BinaryOp::Mul | BinaryOp::Div) => is(1, 1.0),
            Op::Binary(BinaryOp::Add | BinaryOp::Sub) => is(1, 0.0),
            Op::Unary(UnaryOp::Neg) => {
                let inner = &self.graph.nodes()[x];
                return (inner.op == Op::Unary(UnaryOp::Neg)).then(|| inner.operands[0]);
            }
            Op::Select => {
                let chosen = self.constant(x)?;
                return Some(operands[if chosen.to_f64() != 0.0 { 1 } else { 2 }]);
            }
            _ => false,
        };
        same.then_some(x)
    }

    /// The number that an op on the library's constants gives, for those ops that every device computes alike.
    fn folded(&self, op: &Op, operands: &[NodeId], ty: &Type) -> Option<Number> {
        let numbers = operands.iter().map(|&id| self.constant(id)).collect::<Option<SmallVec<[Number; 3]>>>()?;
        if numbers.is_empty() {
            return None;
        }
        if let Op::Reshape | Op::Expand | Op::Permute(_) | Op::Slice(_) = op {
            return Some(numbers[0]);
        }
        if !ty.dtype.is_float() || operands.iter().any(|&id| !self.ty(id).dtype.is_float()) {
            return None;
        }
        let round = |x: f64, dtype: DType| match dtype {
            DType::F16 => f16::from_number(Number::Float(x)).to_f64(),
            DType::F32 => x as f32 as f64,
            _ => x,
        };
        let rounded = |(number, &id): (&Number, &NodeId)| round(number.to_f64(), self.ty(id).dtype);
        let x: SmallVec<[f64; 3]> = numbers.iter().zip(operands).map(rounded).collect();
        let value = match op {
            Op::Cast => x[0],
            Op::Unary(op @ (UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Square)) => op.exact(x[0]),
            Op::Binary(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div)) => op.exact(x[0], x[1]),
            _ => return None,
        };
        let value = round(value, ty.dtype);
        value.is_finite().then_some(Number::Float(value))
    }

    /// The operands of a matrix product in the other order, if that is what a permutation of its axes amounts to, and nobody
    /// else reads it.
    fn swapped_product(&self, product: NodeId, axes: &[usize]) -> Option<Operands> {
        let Node { op: Op::Contract { batch, contracted }, operands, .. } = &self.graph.nodes()[product] else {
            return None;
        };
        let free_a = self.ty(operands[0]).shape.len() - contracted;
        let swapped = (0..*batch).chain(free_a..axes.len()).chain(*batch..free_a);
        let only_reader = self.readers[self.origins[product]] == 1;
        (only_reader && swapped.eq(axes.iter().copied())).then(|| [operands[1], operands[0]].as_slice().into())
    }

    /// Of a product that nobody else reads, no more than a slice: the product of slices. Axes may have been moved since, or some of
    /// extent 1 added or dropped. (So the gradient of a padded image is computed without its padding.)
    fn sliced_product(&mut self, x: NodeId, slices: &[SliceAxis], ty: &Type) -> Option<NodeId> {
        if self.readers[self.origins[x]] != 1 || ty.shape.numel() == 0 {
            return None;
        }
        let Node { op, operands, ty: Type { shape, dtype } } = self.graph.nodes()[x].clone();
        let whole = |len: usize| SliceAxis { start: 0, step: 1, len };
        let sliced = |slices: &[SliceAxis]| Type { shape: slices.iter().map(|slice| slice.len).collect(), dtype };
        match &op {
            Op::Reshape => {
                let within = self.ty(operands[0]).shape.clone();
                let is_long = |&(_, &extent): &(usize, &usize)| extent != 1;
                let kept = |shape: &Shape| shape.iter().copied().filter(|&extent| extent != 1).collect::<Vec<_>>();
                let is_one_whole = shape.iter().zip(slices).all(|(&extent, slice)| extent != 1 || slice.len == 1);
                if kept(&shape) != kept(&within) || !is_one_whole {
                    return None;
                }
                let mut long = slices.iter().zip(&*shape).filter(|(_, extent)| **extent != 1).map(|(slice, _)| *slice);
                let mut inner: Vec<SliceAxis> = within.iter().map(|&extent| whole(extent)).collect();
                for (axis, _) in within.iter().enumerate().filter(is_long) {
                    inner[axis] = long.next()?;
                }
                let smaller = self.sliced_product(operands[0], &inner, &sliced(&inner))?;
                Some(self.node(op, [smaller].as_slice().into(), ty.clone()))
            }
            Op::Permute(axes) => {
                let mut inner = slices.to_vec();
                axes.iter().zip(slices).for_each(|(&axis, slice)| inner[axis] = *slice);
                let smaller = self.sliced_product(operands[0], &inner, &sliced(&inner))?;
                Some(self.node(op, [smaller].as_slice().into(), ty.clone()))
            }
            &Op::Contract { batch, contracted } => {
                let free = self.ty(operands[0]).shape.len() - contracted;
                let of_a = slices[..free].to_vec();
                let of_b = [&slices[..batch], &slices[free..]].concat();
                let mut smaller = Operands::new();
                for (operand, mut slices) in operands.into_iter().zip([of_a, of_b]) {
                    let shape = &self.ty(operand).shape;
                    slices.extend(shape[shape.len() - contracted..].iter().map(|&len| whole(len)));
                    let ty = Type { shape: slices.iter().map(|slice| slice.len).collect(), ..*self.ty(operand) };
                    smaller.push(self.node(Op::Slice(slices.into()), [operand].as_slice().into(), ty));
                }
                Some(self.node(op, smaller, ty.clone()))
            }
            _ => None,
        }
    }

    /// The sum over batch axes of a product that nobody else reads: of one product, with these axes among the summed ones.
    fn summed_product(&mut self, product: NodeId, reduce: ReduceOp, axes: &[usize], ty: &Type) -> Option<NodeId> {
        let Node { op: Op::Contract { batch, contracted }, operands, .. } = self.graph.nodes()[product].clone() else {
            return None;
        };
        let fits = reduce == ReduceOp::Sum && !axes.is_empty() && axes.iter().all(|&axis| axis < batch);
        if !fits || self.readers[self.origins[product]] != 1 {
            return None;
        }
        let kept = (0..batch).filter(|axis| !axes.contains(axis));
        let mut moved = Operands::new();
        for operand in operands {
            let Type { shape, dtype } = self.ty(operand).clone();
            let free = batch..shape.len() - contracted;
            let order: SmallVec<[usize; 4]> = kept
                .clone()
                .chain(free)
                .chain(axes.iter().copied())
                .chain(shape.len() - contracted..shape.len())
                .collect();
            let shape = order.iter().map(|&axis| shape[axis]).collect();
            moved.push(self.node(Op::Permute(order), [operand].as_slice().into(), Type { shape, dtype }));
        }
        let op = Op::Contract { batch: batch - axes.len(), contracted: contracted + axes.len() };
        let sum = Type { shape: ty.shape.without(axes), dtype: ty.dtype };
        let sum = self.node(op, moved, sum);
        Some(self.node(Op::Reshape, [sum].as_slice().into(), ty.clone()))
    }

    /// Whether an index has one entry for each line of `x` along an axis.
    fn is_one_per_line(&self, x: NodeId, index: NodeId, axis: usize) -> bool {
        self.ty(index).shape[axis] == 1 && self.ty(x).shape.numel() > 0
    }

    /// Whether a value is computed by a map and asked for by nobody, so that it need not be stored for an index to be used.
    fn is_on_the_way(&self, x: NodeId) -> bool {
        let is_map = matches!(self.graph.nodes()[x].op, Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast);
        is_map && self.ty(x).dtype != DType::Bool && !self.asked.contains(&x)
    }

    /// Where a line's place along an axis is the line's index.
    fn is_at(&mut self, axis: usize, index: NodeId, ty: &Type) -> NodeId {
        let at = |dtype| Type { shape: ty.shape.clone(), dtype };
        let dtype = self.ty(index).dtype;
        let checked_ty = self.ty(index).clone();
        let extent = ty.shape[axis];
        let checked = self.push(Op::Index { axis, extent }, [index].as_slice().into(), checked_ty);
        let index = self.node(Op::Expand, [checked].as_slice().into(), at(dtype));
        let place = self.node(Op::Iota(axis), Operands::new(), at(dtype));
        self.node(Op::Compare(CompareOp::Eq), [place, index].as_slice().into(), at(DType::Bool))
    }
}
