//! Which nodes share a kernel.
//!
//! Nodes are looked at in order. A map joins the groups of its operands where it looks at the same index as they do;
//! groups that meet in a map become one. A reduction along trailing axes makes the group's space a space of rows, and
//! what it gives, one value per row, may be read again by maps of the same rows: softmax, normalisations and their gradients
//! come out as one kernel each. Maps of a matrix product join it. What is read in any other way (transposed,
//! by a product, by another group that the first one must not wait for) is stored, or computed once more where that is
//! cheap. Views vanish into loads.

mod attention;
mod builder;
mod finish;
mod group;
mod join;

use super::simplify::Simplified;
use crate::graph::{Graph, Node, NodeId};
use crate::op::{Op, ReduceOp, ScatterMode, Type};
use crate::plan::{Buffer, BufferId, Expression, Family, Instruction, Load, Plan, Register, Store};
use crate::{DType, Shape, Target, View};
use builder::{Builder, axis_through, is_dear, loops};
use group::{Form, Group, GroupId, Level, Member};

/// Loads of what is cheap enough to be computed again by each of several readers.
const CHEAP_LOADS: usize = 2;
/// Instructions of it.
const CHEAP_INSTRUCTIONS: usize = 8;

/// Where a node's value is found.
#[derive(Clone)]
enum Value {
    /// One number, repeated.
    Uniform(Instruction),
    /// The index along an axis of the node's shape.
    Iota(usize),
    /// A buffer through a view; also which groups must run before it is read.
    Stored(Load, Vec<GroupId>),
    /// In a register of a group.
    Register(Computed),
}

/// A register of a group, seen through views.
#[derive(Clone)]
struct Computed {
    /// The node that it is computed for.
    node: NodeId,
    group: GroupId,
    register: Register,
    level: Level,
    /// How an index finds its element in the level's shape.
    view: View,
    /// The same as a chain of view ops from the node's shape.
    chain: Vec<(Op, Shape)>,
}

/// A plan whose kernels are not in order yet.
pub(super) struct Fused {
    pub(super) plan: Plan,
    /// For each kernel, kernels that must run earlier although nothing of theirs is read.
    pub(super) after: Vec<Vec<usize>>,
}

/// Puts the nodes of a graph into kernels; each into one of its own unless `enabled`.
pub(super) fn fuse(simplified: &Simplified, target: &Target, enabled: bool) -> Fused {
    let graph = &simplified.graph;
    let mut fuser = Fuser {
        graph,
        target,
        enabled,
        uses: Uses::of(graph),
        buffers: Vec::new(),
        maker: Vec::new(),
        groups: Vec::new(),
        values: Vec::with_capacity(graph.nodes().len()),
        now: 0,
    };
    for (id, node) in graph.nodes().iter().enumerate() {
        fuser.now = id;
        let value = fuser.node(id, node);
        fuser.values.push(value);
        if !enabled && !matches!(fuser.values[id], Value::Uniform(_)) {
            let (load, after) = fuser.stored(id);
            fuser.values[id] = Value::Stored(load, after);
        }
    }
    let outputs = graph.outputs.iter().map(|&id| fuser.output(id)).collect();
    fuser.finish(outputs, &simplified.origins)
}

/// How the nodes of a graph are used.
struct Uses {
    /// How often each node is read, directly or through views; an output once by whoever asked for it.
    readers: Vec<usize>,
    /// The last node that reads each node's values, directly or through views; outputs are read at the end.
    last_reader: Vec<NodeId>,
    /// Whether a node's values are stored whatever other readers do: they are an output, or read by a product or an index.
    stored: Vec<bool>,
}

impl Uses {
    fn of(graph: &Graph) -> Uses {
        let count = graph.nodes().len();
        let mut uses = Uses { readers: vec![0; count], last_reader: vec![0; count], stored: vec![false; count] };
        for &output in &graph.outputs {
            uses.readers[output] += 1;
            uses.last_reader[output] = usize::MAX;
            uses.stored[output] = true;
        }
        for (id, node) in graph.nodes().iter().enumerate().rev() {
            let is_view = node.op.is_view();
            for (place, &operand) in node.operands.iter().enumerate() {
                // Each element of what is repeated would be computed several times, as by several readers.
                let from = &graph.nodes()[operand].ty.shape;
                let repeats = matches!(node.op, Op::Expand) && node.ty.shape.numel() > from.numel();
                uses.readers[operand] += if is_view { uses.readers[id] + usize::from(repeats) } else { 1 };
                let last = if is_view { uses.last_reader[id] } else { id };
                uses.last_reader[operand] = uses.last_reader[operand].max(last);
                let stores = match node.op {
                    Op::Contract { .. } | Op::Scatter(..) | Op::Barrier => true,
                    Op::Scan(..) | Op::Argsort { .. } | Op::Attention { .. } | Op::Custom(_) => true,
                    Op::Gather(_) => place == 0,
                    _ => is_view && uses.stored[id],
                };
                uses.stored[operand] |= stores;
            }
        }
        uses
    }
}

struct Fuser<'a> {
    graph: &'a Graph,
    target: &'a Target,
    enabled: bool,
    uses: Uses,
    buffers: Vec<Buffer>,
    /// The group that writes each buffer.
    maker: Vec<Option<GroupId>>,
    groups: Vec<Group>,
    values: Vec<Value>,
    /// The node that is being looked at.
    now: NodeId,
}

impl Fuser<'_> {
    fn ty(&self, id: NodeId) -> &Type {
        &self.graph.nodes()[id].ty
    }

    fn new_buffer(&mut self, dtype: DType, len: usize, input: Option<usize>, maker: Option<GroupId>) -> BufferId {
        self.buffers.push(Buffer { dtype, len, input });
        self.maker.push(maker);
        self.buffers.len() - 1
    }

    /// Where a register is now.
    fn found(&self, mut group: GroupId, mut register: Register) -> (GroupId, Register) {
        while let Some((to, places)) = &self.groups[group].moved {
            (group, register) = (*to, places[register]);
        }
        (group, register)
    }

    fn found_group(&self, mut group: GroupId) -> GroupId {
        while let Some((to, _)) = &self.groups[group].moved {
            group = *to;
        }
        group
    }

    /// A node's value, with its register found where it is now.
    fn value(&self, id: NodeId) -> Value {
        let mut value = self.values[id].clone();
        if let Value::Register(computed) = &mut value {
            (computed.group, computed.register) = self.found(computed.group, computed.register);
            // Where a group was taken over, its elements may have become rows.
            let members = &self.groups[computed.group].members;
            if let Some(member) = members.iter().find(|m| m.node == computed.node && m.register == computed.register) {
                computed.level = member.level;
            }
        }
        value
    }

    /// Whether a node may still be read by nodes that have not been looked at.
    fn is_open(&self, node: NodeId) -> bool {
        self.uses.last_reader[node] > self.now
    }

    fn is_sound(&self, group: &Group) -> bool {
        group.is_sound(self.target, |node| self.is_open(node))
    }

    fn node(&mut self, id: NodeId, node: &Node) -> Value {
        let Node { op, operands, ty } = node;
        match op {
            Op::Input(slot) => {
                let buffer = self.new_buffer(ty.dtype, ty.shape.numel(), Some(*slot), None);
                Value::Stored(Load { buffer, view: View::contiguous(&ty.shape) }, Vec::new())
            }
            Op::Scalar(slot) => Value::Uniform(Instruction::Scalar(*slot)),
            Op::Const(number) => Value::Uniform(Instruction::Const(*number)),
            Op::Iota(axis) => Value::Iota(*axis),
            Op::Random(slot) => {
                let builder = Builder::of_source(Instruction::Random(*slot), ty.shape.clone(), ty.dtype);
                // Raw words are stored first: Mesa 22.3's software adapter gets functions of what they are converted to wrong
                // in the kernel that draws them.
                match ty.dtype {
                    DType::U32 => Value::Stored(self.copied(id, &builder, Vec::new()), Vec::new()),
                    _ => self.new_group(id, builder),
                }
            }
            Op::Barrier => self.barrier(operands),
            Op::Reshape | Op::Permute(_) | Op::Expand | Op::Slice(_) | Op::Pad(_) | Op::Window(_) => {
                self.view(op, operands[0], &ty.shape)
            }
            Op::Reduce(op, axes) => self.reduce(id, *op, axes, operands[0]),
            Op::Contract { batch, contracted } => {
                let mut group = Group::new(Form::Map, ty.shape.clone());
                let expressions = [0, 1].map(|side| self.product_operand(&mut group, operands[side]));
                group.form = Form::Product { batch: *batch, contracted: *contracted, operands: expressions };
                let sum = group.expression.push(Instruction::Accumulator, ty.dtype.computed());
                if ty.dtype.computed() != ty.dtype {
                    group.expression.push(Instruction::Cast(sum), ty.dtype);
                }
                self.push_group(id, group)
            }
            Op::Scatter(mode, axis) => {
                let family = Family::Scatter { mode: *mode, axis: *axis };
                let adds = *mode == ScatterMode::Add;
                let space = self.ty(operands[2]).shape.clone();
                let buffer = self.closed(id, (family, space), operands, adds, |view| view);
                self.narrowed(id, Load { buffer, view: View::contiguous(&ty.shape) })
            }
            Op::Scan(op, axis) => {
                let family = Family::Scan { op: *op, axis: *axis };
                let buffer = self.closed(id, (family, ty.shape.clone()), operands, true, |view| view);
                self.narrowed(id, Load { buffer, view: View::contiguous(&ty.shape) })
            }
            Op::Argsort { axis, descending, kept } => {
                // Rows are sorted: the axis becomes the last one, and goes back to its place in the result's view.
                let last = ty.shape.len() - 1;
                let turned = |view: View| {
                    let mut view = view;
                    let line = view.axes.remove(*axis);
                    view.axes.push(line);
                    view
                };
                let space = turned(View::contiguous(&self.ty(operands[0]).shape)).shape();
                let mut view = View::contiguous(&space.with(last, *kept));
                let family = Family::Sort { descending: *descending, kept: *kept };
                let buffer = self.closed(id, (family, space), operands, false, turned);
                let line = view.axes.remove(last);
                view.axes.insert(*axis, line);
                Value::Stored(Load { buffer, view }, Vec::new())
            }
            Op::Attention { part, causal } => self.attention(id, *part, *causal, operands),
            Op::Custom(custom) => {
                let family = Family::Custom(custom.clone());
                let operands: Vec<_> = operands.iter().map(|&operand| self.whole(operand)).collect();
                let buffer = self.closed_over(id, (family, ty.shape.clone()), operands, ty.dtype);
                Value::Stored(Load { buffer, view: View::contiguous(&ty.shape) }, Vec::new())
            }
            Op::Gather(axis) => {
                let (load, after) = self.stored(operands[0]);
                let make = |group: &mut Group, level: Level, registers: &[Register]| {
                    // The axis is counted in the node's shape.
                    if group.shape_of(level) != ty.shape {
                        return None;
                    }
                    let load = group.load_whole(&load, level);
                    group.wait_for(after.iter().copied());
                    Some(Instruction::Gather { load, axis: *axis, index: registers[0] })
                };
                let reads = self.maker[load.buffer].into_iter().chain(after.iter().copied()).collect();
                self.map(id, &operands[1..], reads, &make)
            }
            map => {
                let make = |_: &mut Group, _: Level, r: &[Register]| Some(instruction(map, r));
                self.map(id, operands, Vec::new(), &make)
            }
        }
    }

    /// A kernel of its own, whose operands are loads, each seen through `seen`; gives the buffer of its result. One that
    /// `adds` works in the dtype that its operands' numbers are computed in.
    fn closed(
        &mut self,
        id: NodeId,
        (family, space): (Family, Shape),
        operands: &[NodeId],
        adds: bool,
        seen: impl Fn(View) -> View,
    ) -> BufferId {
        let mut loads = Vec::with_capacity(operands.len());
        for &operand in operands {
            let (load, after) = if adds { self.widened(operand) } else { self.stored(operand) };
            loads.push((Load { view: seen(load.view), ..load }, after));
        }
        let dtype = self.ty(id).dtype;
        self.closed_over(id, (family, space), loads, if adds { dtype.computed() } else { dtype })
    }

    /// The same with operands that are stored, and the groups that must run before they are read.
    fn closed_over(
        &mut self,
        id: NodeId,
        (family, space): (Family, Shape),
        operands: Vec<(Load, Vec<GroupId>)>,
        dtype: DType,
    ) -> BufferId {
        let mut group = Group::new(Form::Closed(family), space);
        for (load, after) in operands {
            // Their places count, so equal ones stay apart.
            group.loads.push(load);
            group.wait_for(after);
        }
        group.expression.push(Instruction::Accumulator, dtype);
        let at = self.groups.len();
        self.groups.push(group);
        let buffer = self.new_buffer(dtype, self.ty(id).shape.numel(), None, Some(at));
        self.groups[at].stores.push(Store { buffer, register: 0, per_row: false });
        self.groups[at].members.push(Member { node: id, register: 0, level: Level::Element });
        buffer
    }

    /// A node's value as a load, in the dtype that its numbers are computed in.
    fn widened(&mut self, id: NodeId) -> (Load, Vec<GroupId>) {
        let (load, after) = self.stored(id);
        let dtype = self.ty(id).dtype;
        if dtype.computed() == dtype {
            return (load, after);
        }
        let widened = Builder::of_load(load, dtype).cast(dtype.computed());
        (self.copied(id, &widened, after), Vec::new())
    }

    /// A node's value that was stored in the dtype that its numbers are computed in.
    fn narrowed(&mut self, id: NodeId, load: Load) -> Value {
        let (from, to) = (self.buffers[load.buffer].dtype, self.ty(id).dtype);
        if from == to {
            return Value::Stored(load, Vec::new());
        }
        self.new_group(id, Builder::of_load(load, from).cast(to))
    }

    /// A value as it is; what depends on it waits for `after`.
    fn barrier(&mut self, operands: &[NodeId]) -> Value {
        let (load, earlier) = self.stored(operands[0]);
        let mut after: Vec<GroupId> = earlier;
        for &operand in &operands[1..] {
            match self.value(operand) {
                Value::Register(computed) => after.push(computed.group),
                Value::Stored(load, earlier) => after.extend(self.maker[load.buffer].into_iter().chain(earlier)),
                Value::Uniform(_) | Value::Iota(_) => {}
            }
        }
        after.sort_unstable();
        after.dedup();
        Value::Stored(load, after)
    }

    fn view(&mut self, op: &Op, operand: NodeId, shape: &Shape) -> Value {
        let from = self.ty(operand).clone();
        match self.value(operand) {
            value @ Value::Uniform(_) if !matches!(op, Op::Pad(_)) => return value,
            Value::Iota(axis) => {
                if let Some(axis) = axis_through(op, axis, &from.shape, shape) {
                    return Value::Iota(axis);
                }
            }
            Value::Register(mut computed) => {
                if let Some(view) = computed.view.through(op, shape) {
                    computed.view = view;
                    computed.chain.push((op.clone(), shape.clone()));
                    return Value::Register(computed);
                }
            }
            _ => {}
        }
        let (load, after) = self.stored(operand);
        let load = match load.view.through(op, shape) {
            Some(view) => Load { view, ..load },
            None => {
                let copy = self.copied(operand, &Builder::of_load(load, from.dtype), after.clone());
                let view = copy.view.through(op, shape).expect("every view op applies to a row-major buffer");
                Load { view, ..copy }
            }
        };
        Value::Stored(load, after)
    }

    /// A reduction runs over a space whose trailing axes are the reduced ones.
    fn reduce(&mut self, id: NodeId, op: ReduceOp, axes: &[usize], operand: NodeId) -> Value {
        let from = self.ty(operand).clone();
        let ty = self.ty(id).clone();
        let kept: Vec<usize> = (0..from.shape.len()).filter(|axis| !axes.contains(axis)).collect();
        let order: Vec<usize> = kept.iter().chain(axes).copied().collect();
        let is_in_order = order.iter().copied().eq(0..order.len());
        if let (Value::Register(computed), true) = (self.value(operand), is_in_order) {
            let aligned = self.aligned(&computed, &from.shape) == Some(Level::Element);
            let mut group = self.groups[computed.group].clone();
            if aligned && group.set_row(&from.shape, axes.len()).is_some() {
                let register = group.reduce(op, computed.register, ty.dtype);
                group.members.push(Member { node: id, register, level: Level::Row });
                if self.is_sound(&group) {
                    self.groups[computed.group] = group;
                    return self.in_register(id, computed.group, register, Level::Row);
                }
            }
        }
        let mut builder = self.apart(operand);
        let turned: Shape = order.iter().map(|&axis| from.shape[axis]).collect();
        if !is_in_order || builder.has(loops) {
            let permute = Op::Permute(order.as_slice().into());
            builder = match builder.through(&permute, &turned).filter(|builder| !builder.has(loops)) {
                Some(turned) => turned,
                None => {
                    let (load, _) = self.stored(operand);
                    let view = load.view.through(&permute, &turned).expect("axes of a view may be reordered");
                    Builder::of_load(Load { view, ..load }, from.dtype)
                }
            };
        }
        let mut group = Group::new(Form::Map, turned.clone());
        group.axes = Some(axes.len());
        let register = group.add(&builder, Level::Element).expect("a space fits itself");
        group.after = self.waits_for(operand);
        let register = group.reduce(op, register, ty.dtype);
        group.members.push(Member { node: id, register, level: Level::Row });
        self.groups.push(group);
        self.in_register(id, self.groups.len() - 1, register, Level::Row)
    }

    /// The value of a node that is in a register of a group.
    fn in_register(&self, node: NodeId, group: GroupId, register: Register, level: Level) -> Value {
        let view = View::contiguous(&self.ty(node).shape);
        Value::Register(Computed { node, group, register, level, view, chain: Vec::new() })
    }

    /// Adds a group whose last register is a node's value.
    fn push_group(&mut self, id: NodeId, mut group: Group) -> Value {
        let register = group.expression.instructions.len() - 1;
        group.members.push(Member { node: id, register, level: Level::Element });
        self.groups.push(group);
        self.in_register(id, self.groups.len() - 1, register, Level::Element)
    }

    fn new_group(&mut self, id: NodeId, builder: Builder) -> Value {
        let mut group = Group::new(Form::Map, builder.space.clone());
        let register = group.add(&builder, Level::Element).expect("a space fits itself");
        group.members.push(Member { node: id, register, level: Level::Element });
        self.groups.push(group);
        self.in_register(id, self.groups.len() - 1, register, Level::Element)
    }

    /// An operand of a product: its loads join the group's, and what is done to them is given. What is f16 in memory is
    /// multiplied as f32.
    fn product_operand(&mut self, group: &mut Group, operand: NodeId) -> Expression {
        let mut expression = self.operand_as_it_is(group, operand);
        let dtype = self.ty(operand).dtype;
        if dtype.computed() != dtype {
            let last = expression.instructions.len() - 1;
            expression.push(Instruction::Cast(last), dtype.computed());
        }
        expression
    }

    fn operand_as_it_is(&mut self, group: &mut Group, operand: NodeId) -> Expression {
        group.wait_for(self.waits_for(operand));
        let dtype = self.ty(operand).dtype;
        if let Value::Register(computed) = self.value(operand) {
            // Each element is used many times over, so little may be done to it, and one load must be all.
            let alone = self.uses.readers[computed.node] == 1 && self.groups[computed.group].axes.is_none();
            let builder = if alone { self.cone(&computed) } else { None };
            if let Some(builder) = builder
                && builder.loads.len() == 1
                && builder.expression.instructions.len() <= CHEAP_INSTRUCTIONS
                && !builder.has(|i| is_dear(i) || matches!(i, Instruction::Iota(_) | Instruction::Gather { .. }))
            {
                let first = group.loads.len();
                group.loads.extend(builder.loads);
                let mut expression = Expression::default();
                for (instruction, dtype) in &builder.expression.instructions {
                    expression.instructions.push((instruction.renumbered(|load| first + load, |r| r), *dtype));
                }
                return expression;
            }
        }
        let (load, _) = self.stored(operand);
        group.loads.push(load);
        Expression::of_load(group.loads.len() - 1, dtype)
    }
}

/// The instruction of a map.
fn instruction(op: &Op, r: &[Register]) -> Instruction {
    match op {
        Op::Unary(op) => Instruction::Unary(*op, r[0]),
        Op::Binary(op) => Instruction::Binary(*op, r[0], r[1]),
        Op::Compare(op) => Instruction::Compare(*op, r[0], r[1]),
        Op::Select => Instruction::Select(r[0], r[1], r[2]),
        Op::Cast => Instruction::Cast(r[0]),
        Op::Index { axis, extent } => Instruction::Index { index: r[0], axis: *axis, extent: *extent },
        other => unreachable!("{} is no map", other.name()),
    }
}
