//! From recorded nodes to a graph: what is to be computed, in topological order, and what it reads.
//!
//! The graph of a training step is the same at every step, so it is not built to look for its plan: an [`Extraction`] is
//! compared with the graphs of earlier plans where it lies.

use crate::error::{Error, Result};
use crate::evaluate::have_values;
use crate::node::{Node, Value};
use foldhash::fast::FixedState;
use gradus_ir::op::Op;
use gradus_ir::{Error as ErrorKind, Graph, NodeId, Number};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A node's mark holds the number of the evaluation that made it, flags, and the node's place in the graph.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    epoch: u64,
}

/// What a mark says besides.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Flag {
    /// It is computed by this evaluation, or has its place as an input.
    Taken = 1 << 24,
    /// Its value was asked for.
    Asked = 1 << 25,
    /// It is a leaf whose cell gets a new value.
    Replaced = 1 << 26,
    /// Its buffer may be overwritten.
    Donated = 1 << 27,
    /// It reads a replaced leaf.
    Reads = 1 << 28,
}

const EPOCH_SHIFT: u32 = 29;
const PLACES: u64 = 1 << 24;

impl Marks {
    /// The marks of the evaluation after this one.
    pub(crate) fn next(&mut self) -> Marks {
        self.epoch = (self.epoch + 1) << EPOCH_SHIFT >> EPOCH_SHIFT;
        *self
    }

    pub(crate) fn none() -> Marks {
        Marks { epoch: 0 }
    }

    /// The flags and place of a node; 0 if it has none yet.
    fn get(self, node: &Node) -> u64 {
        let mark = node.mark.load(Ordering::Relaxed);
        if mark >> EPOCH_SHIFT == self.epoch { mark } else { 0 }
    }

    pub(crate) fn is(self, node: &Node, flag: Flag) -> bool {
        self.get(node) & flag as u64 != 0
    }

    pub(crate) fn set(self, node: &Node, flag: Flag) {
        let mark = self.epoch << EPOCH_SHIFT | self.get(node) | flag as u64;
        node.mark.store(mark, Ordering::Relaxed);
    }

    fn place(self, node: &Node) -> NodeId {
        (node.mark.load(Ordering::Relaxed) & (PLACES - 1)) as NodeId
    }

    fn set_place(self, node: &Node, place: NodeId) -> Result<()> {
        if place as u64 >= PLACES {
            let kind = ErrorKind::Backend(format!("{place} pending nodes are too many for one run: evaluate earlier"));
            return Err(Error::located(node.op.name(), kind, node.location));
        }
        let flags = self.get(node) & !(PLACES - 1) | Flag::Taken as u64;
        node.mark.store(self.epoch << EPOCH_SHIFT | flags | place as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The pending nodes behind `roots` that are not taken yet, in topological order. They are taken then.
    pub(crate) fn collect(self, roots: &[Arc<Node>]) -> Vec<Arc<Node>> {
        let (mut found, mut stack) = (Vec::with_capacity(128), Vec::with_capacity(16));
        let take = |stack: &mut Vec<Arc<Node>>, node: &Arc<Node>| {
            if node.is_pending() && !self.is(node, Flag::Taken) {
                self.set(node, Flag::Taken);
                stack.push(node.clone());
            }
        };
        roots.iter().for_each(|root| take(&mut stack, root));
        while let Some(node) = stack.pop() {
            node.state().edges.iter().for_each(|edge| take(&mut stack, edge));
            found.push((node.id, node));
        }
        // Ids grow along edges.
        found.sort_unstable_by_key(|(id, _)| *id);
        found.into_iter().map(|(_, node)| node).collect()
    }
}

/// A node in its place.
pub(crate) struct Entry {
    pub(crate) node: Arc<Node>,
    pub(crate) role: Role,
    /// Where its operands end in the list of all operands; they begin where those of the entry before end.
    operands_end: usize,
}

/// What a node is to an evaluation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Its value is there, and is read.
    Leaf,
    /// That, and its buffer may be overwritten.
    Donated,
    /// Its value is computed.
    Computed,
    /// That, and kept.
    Kept,
}

impl Role {
    pub(crate) fn is_leaf(self) -> bool {
        matches!(self, Role::Leaf | Role::Donated)
    }
}

/// A graph that is not built: its nodes in topological order, and what its slots stand for.
pub(crate) struct Extraction {
    marks: Marks,
    pub(crate) entries: Vec<Entry>,
    operands: Vec<NodeId>,
    /// The numbers of the scalar slots.
    pub(crate) scalars: Vec<Number>,
}

impl Extraction {
    pub(crate) fn new(marks: Marks, capacity: usize) -> Extraction {
        let capacity = capacity + capacity / 4;
        Extraction {
            marks,
            entries: Vec::with_capacity(capacity),
            operands: Vec::with_capacity(2 * capacity),
            scalars: Vec::new(),
        }
    }

    /// Gives a node the next place. Its operands are those that were added since the entry before.
    fn push(&mut self, node: Arc<Node>, role: Role) -> Result<()> {
        self.marks.set_place(&node, self.entries.len())?;
        if !role.is_leaf() && !matches!(node.op, Op::Const(_)) {
            self.scalars.extend(node.number);
        }
        let operands_end = self.operands.len();
        // Made where it stays: a processor waits where it loads what was just stored in other pieces.
        self.entries.extend(std::iter::once_with(move || Entry { node, role, operands_end }));
        Ok(())
    }

    /// Adds a value that is read, unless it has its place.
    fn leaf(&mut self, node: &Arc<Node>) -> Result<()> {
        if self.marks.is(node, Flag::Taken) {
            return Ok(());
        }
        let role = if self.marks.is(node, Flag::Donated) { Role::Donated } else { Role::Leaf };
        self.push(node.clone(), role)
    }

    /// Adds a node that is computed, after the values that it reads; nodes come in topological order.
    pub(crate) fn computed(&mut self, node: Arc<Node>, kept: bool) -> Result<()> {
        if node.is_placeholder() {
            return self.push(node, Role::Leaf);
        }
        let state = node.state();
        for edge in &state.edges {
            // What a compiled function read of a cell, it will read anew.
            if !self.marks.is(edge, Flag::Taken)
                && !node.recorded
                && let Value::Gone = edge.state().value
            {
                let name = edge.cell.as_ref().map_or(String::new(), |tag| tag.name());
                return Err(Error::located(node.op.name(), ErrorKind::ParameterUpdated { name }, node.location));
            }
            self.leaf(edge)?;
        }
        self.operands.extend(state.edges.iter().map(|edge| self.marks.place(edge)));
        drop(state);
        self.push(node, if kept { Role::Kept } else { Role::Computed })
    }

    /// The nodes behind the input slots.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (&Arc<Node>, bool)> {
        let leaves = self.entries.iter().filter(|entry| entry.role.is_leaf());
        leaves.map(|entry| (&entry.node, entry.role == Role::Donated))
    }

    /// The nodes that are computed.
    pub(crate) fn nodes(&self) -> impl DoubleEndedIterator<Item = &Arc<Node>> {
        self.entries.iter().filter(|entry| !entry.role.is_leaf()).map(|entry| &entry.node)
    }

    /// The nodes whose values are kept.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.entries.iter().filter(|entry| entry.role == Role::Kept).map(|entry| &entry.node)
    }

    /// Whether the run may overwrite a buffer.
    pub(crate) fn overwrites(&self) -> bool {
        self.entries.iter().any(|entry| entry.role == Role::Donated)
    }

    /// Equal graphs have equal hashes.
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        for (Entry { node, role, .. }, operands) in self.with_operands() {
            role.hash(&mut hasher);
            node.ty.hash(&mut hasher);
            if !role.is_leaf() {
                node.op.hash(&mut hasher);
                operands.iter().for_each(|&place| hasher.write_usize(place));
            }
        }
        hasher.finish()
    }

    /// The entries with their operands.
    pub(crate) fn with_operands(&self) -> impl Iterator<Item = (&Entry, &[NodeId])> {
        let starts = std::iter::once(0).chain(self.entries.iter().map(|entry| entry.operands_end));
        self.entries.iter().zip(starts).map(|(entry, start)| (entry, &self.operands[start..entry.operands_end]))
    }

    /// The first place where a graph differs from this one, and in what.
    pub(crate) fn difference(&self, graph: &Graph) -> Option<Difference> {
        let mut inputs = graph.donated.iter();
        let mut outputs = graph.outputs.iter().peekable();
        let differs = |((place, (entry, operands)), node): ((NodeId, (&Entry, &[NodeId])), &gradus_ir::Node)| {
            let is_output = outputs.next_if_eq(&&place).is_some();
            let what = if !is_same_op(entry, &node.op) {
                "is another op"
            } else if entry.node.ty != node.ty {
                "had another shape or dtype"
            } else if !operands.iter().eq(node.operands.iter()) {
                "read other tensors"
            } else {
                let same_role = match entry.role {
                    role @ (Role::Leaf | Role::Donated) => inputs.next() == Some(&(role == Role::Donated)),
                    role => is_output == (role == Role::Kept),
                };
                if same_role {
                    return None;
                }
                "was kept, or overwritten, where now it is not, or the other way round"
            };
            Some(Difference { place: Some(place), what })
        };
        let length = || {
            let what = "there are more ops, or fewer";
            (self.entries.len() != graph.nodes().len()).then_some(Difference { place: None, what })
        };
        self.with_operands().enumerate().zip(graph.nodes()).find_map(differs).or_else(length)
    }

    /// A difference in words.
    pub(crate) fn describe(&self, difference: &Difference) -> String {
        let Some(Entry { node, .. }) = difference.place.and_then(|place| self.entries.get(place)) else {
            return difference.what.to_string();
        };
        let (op, ty, at) = (node.op.name(), &node.ty, node.location);
        format!("{op} {}{}, recorded at {}:{}, {}", ty.dtype, ty.shape, at.file(), at.line(), difference.what)
    }

    /// The graph, built.
    pub(crate) fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        let mut scalars = 0..;
        for (entry, operands) in self.with_operands() {
            let node = &entry.node;
            let mut slot = || scalars.next().unwrap_or_default();
            match (entry.role, &node.op) {
                (role @ (Role::Leaf | Role::Donated), _) => {
                    graph.input(node.ty.shape.clone(), node.ty.dtype, role == Role::Donated)
                }
                (_, Op::Scalar(_)) => graph.push(Op::Scalar(slot()), operands.into(), node.ty.clone()),
                (_, Op::Random(_)) => graph.push(Op::Random(slot()), operands.into(), node.ty.clone()),
                (_, op) => graph.push(op.clone(), operands.into(), node.ty.clone()),
            };
        }
        let kept = |(place, entry): (NodeId, &Entry)| (entry.role == Role::Kept).then_some(place);
        graph.outputs = self.entries.iter().enumerate().filter_map(kept).collect();
        graph
    }
}

/// Where two graphs part.
pub(crate) struct Difference {
    /// The place of the first node that differs; `None` if one graph is the beginning of the other.
    pub(crate) place: Option<NodeId>,
    pub(crate) what: &'static str,
}

/// Whether a node computes what a node of a graph does. Slots are numbered in order, so they agree where all else does.
fn is_same_op(entry: &Entry, op: &Op) -> bool {
    match (entry.role, &entry.node.op, op) {
        (Role::Leaf | Role::Donated, _, op) => matches!(op, Op::Input(_)),
        (_, Op::Scalar(_), Op::Scalar(_)) | (_, Op::Random(_), Op::Random(_)) => true,
        (_, a, b) => a == b,
    }
}

impl Extraction {
    /// The op of a node of the graph and the line that recorded it, in words.
    pub(crate) fn named(&self, node: NodeId) -> Option<(String, String)> {
        let node = &self.entries.get(node)?.node;
        Some((node.op.name().to_string(), format!("{}:{}", node.location.file(), node.location.line())))
    }
}

/// A graph and what its slots stand for.
#[derive(Default)]
pub(crate) struct Traced {
    pub(crate) graph: Graph,
    /// The nodes behind the input slots.
    pub(crate) leaves: Vec<Arc<Node>>,
    /// The numbers of the scalar slots.
    pub(crate) scalars: Vec<Number>,
}

/// The graph that computes `outputs` from `inputs`, without running it: input slot `i` is `inputs[i]`, and other values
/// on the way take the slots after them.
pub(crate) fn trace(outputs: &[Arc<Node>], inputs: &[Arc<Node>]) -> Result<Traced> {
    let Some(first) = outputs.first() else {
        return Ok(Traced::default());
    };
    have_values(outputs)?;
    let mut planner = first.device.planner();
    let marks = planner.marks.next();
    let mut extraction = Extraction::new(marks, inputs.len());
    for node in inputs {
        extraction.push(node.clone(), Role::Leaf)?;
    }
    // Values count only where there are no edges; elsewhere the graph is followed.
    let mut nodes = Vec::new();
    let mut stack: Vec<Arc<Node>> = outputs.to_vec();
    while let Some(node) = stack.pop() {
        if marks.is(&node, Flag::Taken) {
            continue;
        }
        let edges = node.state().edges.clone();
        if edges.is_empty() && !node.is_pending() {
            extraction.push(node, Role::Leaf)?;
            continue;
        }
        marks.set(&node, Flag::Taken);
        stack.extend(edges);
        nodes.push(node);
    }
    nodes.sort_unstable_by_key(|node| node.id);
    for node in nodes {
        extraction.computed(node, false)?;
    }
    let mut graph = extraction.graph();
    graph.outputs = outputs.iter().map(|output| marks.place(output)).collect();
    let leaves = extraction.leaves().map(|(leaf, _)| leaf.clone()).collect();
    Ok(Traced { graph, leaves, scalars: extraction.scalars })
}
