//! Lowering: primitives become kernels, views become part of their loads, numbers part of their expressions. A map that has
//! one reader is computed where it is read, if that is a map or a reduction.

use crate::graph::{Graph, Node, NodeId};
use crate::op::{BinaryOp, Op, ReduceOp, Type, UnaryOp};
use crate::plan::{Buffer, BufferId, Expression, Family, Instruction, Kernel, Load, Plan, Register, Store};
use crate::{DType, Shape, View};

/// Buffers that a fused kernel reads at most: with what it writes, they fit the eight bindings that every adapter has.
const MOST_LOADS: usize = 6;
/// Instructions of a fused kernel at most.
const MOST_INSTRUCTIONS: usize = 64;

/// Where a node's value is found.
#[derive(Clone)]
enum Value {
    /// One number, repeated.
    Uniform(Instruction),
    /// A buffer through a view.
    Stored(Load),
    /// The last register of a kernel that has not been emitted: its only reader may take it over.
    Computed(Builder),
}

/// Makes a plan with a buffer per materialised node.
pub(super) fn lower(graph: &Graph, fuse: bool) -> Plan {
    let mut lowering = Lowering { graph, plan: Plan::default(), values: Vec::with_capacity(graph.nodes().len()) };
    let readers = readers(graph);
    for (id, node) in graph.nodes().iter().enumerate() {
        let value = (readers[id] > 0).then(|| {
            let value = lowering.node(node);
            // Random numbers are stored: Mesa 22.3's software adapter gets functions of numbers that it has drawn itself wrong.
            let fuses = fuse && readers[id] == 1 && !matches!(node.op, Op::Random(_));
            if fuses { value } else { lowering.settled(value, &node.ty) }
        });
        lowering.values.push(value);
    }
    lowering.plan.outputs = graph.outputs.iter().map(|&id| lowering.output(id)).collect();
    lowering.plan
}

/// How often each node is read on the way to the outputs; an output is read once by whoever asked for it.
fn readers(graph: &Graph) -> Vec<usize> {
    let mut readers = vec![0; graph.nodes().len()];
    for &output in &graph.outputs {
        readers[output] += 1;
    }
    for id in (0..readers.len()).rev() {
        if readers[id] > 0 {
            for &operand in &graph.nodes()[id].operands {
                readers[operand] += 1;
            }
        }
    }
    readers
}

struct Lowering<'a> {
    graph: &'a Graph,
    plan: Plan,
    values: Vec<Option<Value>>,
}

/// A kernel under construction.
#[derive(Clone)]
struct Builder {
    space: Shape,
    loads: Vec<Load>,
    expression: Expression,
}

impl Builder {
    fn new(space: Shape) -> Builder {
        Builder { space, loads: Vec::new(), expression: Expression::default() }
    }

    /// The register that holds a value, whose dtype is given.
    fn register(&mut self, value: Value, dtype: DType) -> Register {
        let instruction = match value {
            Value::Uniform(instruction) => instruction,
            Value::Stored(load) => Instruction::Load(self.load(load)),
            Value::Computed(other) => return self.append(other),
        };
        self.expression.push(instruction, dtype)
    }

    /// The position of a load, which may be there already.
    fn load(&mut self, load: Load) -> usize {
        self.loads.iter().position(|other| *other == load).unwrap_or_else(|| {
            self.loads.push(load);
            self.loads.len() - 1
        })
    }

    /// Takes over what another builder computes, but for what is here already; gives the register of its last one.
    fn append(&mut self, other: Builder) -> Register {
        let loads: Vec<usize> = other.loads.into_iter().map(|load| self.load(load)).collect();
        let mut registers: Vec<Register> = Vec::with_capacity(other.expression.instructions.len());
        for (instruction, dtype) in other.expression.instructions {
            let instruction = (renumbered(instruction, &loads, &registers), dtype);
            let instructions = &mut self.expression.instructions;
            registers.push(instructions.iter().position(|other| *other == instruction).unwrap_or_else(|| {
                instructions.push(instruction);
                instructions.len() - 1
            }));
        }
        registers.last().copied().unwrap_or_default()
    }

    /// Whether the meaning of an instruction hangs on the space as it is.
    fn is_bound_to_its_space(&self) -> bool {
        let bound =
            |i: &Instruction| matches!(i, Instruction::Iota(_) | Instruction::Random(_) | Instruction::Gather { .. });
        self.expression.instructions.iter().any(|(instruction, _)| bound(instruction))
    }

    /// Whether an instruction loops on a GPU. A reduction over it would count its turns many times over, and some adapters
    /// end what takes 65,535 of them in all.
    fn loops(&self) -> bool {
        let loops = |i: &Instruction| matches!(i, Instruction::Binary(BinaryOp::Pow | BinaryOp::Rem, ..));
        self.expression.instructions.iter().any(|(instruction, _)| loops(instruction))
    }

    /// The same values seen through a view op, if every load can be.
    fn through(&self, op: &Op, shape: &Shape) -> Option<Builder> {
        // Padding is zero, not what the expression makes of zeros.
        if self.is_bound_to_its_space() || matches!(op, Op::Pad(_)) {
            return None;
        }
        let repeats = shape.numel() > self.space.numel();
        if repeats && self.expression.instructions.iter().any(|(instruction, _)| is_dear(instruction)) {
            return None;
        }
        let seen = |load: &Load| Some(Load { view: load.view.through(op, shape)?, ..*load });
        let loads = self.loads.iter().map(seen).collect::<Option<Vec<_>>>()?;
        Some(Builder { space: shape.clone(), loads, expression: self.expression.clone() })
    }
}

/// An instruction with its loads and registers found where they are now.
fn renumbered(instruction: Instruction, loads: &[usize], registers: &[Register]) -> Instruction {
    let r = |register: Register| registers[register];
    match instruction {
        Instruction::Load(load) => Instruction::Load(loads[load]),
        Instruction::Unary(op, x) => Instruction::Unary(op, r(x)),
        Instruction::Binary(op, a, b) => Instruction::Binary(op, r(a), r(b)),
        Instruction::Compare(op, a, b) => Instruction::Compare(op, r(a), r(b)),
        Instruction::Select(condition, then, other) => Instruction::Select(r(condition), r(then), r(other)),
        Instruction::Cast(x) => Instruction::Cast(r(x)),
        Instruction::Gather { load, axis, index } => Instruction::Gather { load: loads[load], axis, index: r(index) },
        source @ (Instruction::Scalar(_)
        | Instruction::Const(_)
        | Instruction::Iota(_)
        | Instruction::Random(_)
        | Instruction::Accumulator) => source,
    }
}

/// Whether an instruction is worth a kernel of its own rather than being repeated along a broadcast axis.
fn is_dear(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Unary(op, _) => !matches!(
            op,
            UnaryOp::Neg
                | UnaryOp::Abs
                | UnaryOp::Sign
                | UnaryOp::Square
                | UnaryOp::Recip
                | UnaryOp::Sqrt
                | UnaryOp::Rsqrt
                | UnaryOp::Relu
                | UnaryOp::Floor
                | UnaryOp::Ceil
                | UnaryOp::Round
                | UnaryOp::Trunc
                | UnaryOp::Not
        ),
        Instruction::Binary(op, ..) => matches!(op, BinaryOp::Pow | BinaryOp::Rem),
        Instruction::Random(_) => true,
        _ => false,
    }
}

impl Lowering<'_> {
    fn value(&self, id: NodeId) -> Value {
        // Operands precede their readers and are needed if these are.
        self.values[id].clone().expect("operands are lowered before their readers")
    }

    fn dtype(&self, id: NodeId) -> DType {
        self.graph.nodes()[id].ty.dtype
    }

    fn new_buffer(&mut self, dtype: DType, len: usize, input: Option<usize>) -> BufferId {
        self.plan.buffers.push(Buffer { dtype, len, input });
        self.plan.buffers.len() - 1
    }

    /// Adds a kernel whose result is a new buffer of the given shape.
    fn emit(&mut self, family: Family, builder: Builder, register: Register, shape: &Shape, dtype: DType) -> Value {
        let buffer = self.new_buffer(dtype, shape.numel(), None);
        let Builder { space, loads, expression } = builder;
        self.plan.kernels.push(Kernel { family, space, loads, expression, outputs: vec![Store { buffer, register }] });
        Value::Stored(Load { buffer, view: View::contiguous(shape) })
    }

    /// A value that several may read: what is computed is computed now.
    fn settled(&mut self, value: Value, ty: &Type) -> Value {
        match value {
            Value::Computed(_) => Value::Stored(self.stored(value, &ty.shape, ty.dtype)),
            settled => settled,
        }
    }

    /// A value as a load: numbers are written to a buffer of one element first.
    fn stored(&mut self, value: Value, shape: &Shape, dtype: DType) -> Load {
        match value {
            Value::Stored(load) => load,
            computed @ Value::Computed(_) => self.copied(computed, shape, dtype),
            uniform => {
                let mut builder = Builder::new(Shape::default());
                let register = builder.register(uniform, dtype);
                match self.emit(Family::Elementwise, builder, register, &Shape::default(), dtype) {
                    Value::Stored(load) => Load { view: View::splat(shape), ..load },
                    _ => unreachable!("emit stores"),
                }
            }
        }
    }

    /// A value copied to a buffer of its own.
    fn copied(&mut self, value: Value, shape: &Shape, dtype: DType) -> Load {
        let mut builder = Builder::new(shape.clone());
        let register = builder.register(value, dtype);
        match self.emit(Family::Elementwise, builder, register, shape, dtype) {
            Value::Stored(load) => load,
            _ => unreachable!("emit stores"),
        }
    }

    fn node(&mut self, node: &Node) -> Value {
        let Node { op, operands, ty } = node;
        let mut builder = Builder::new(ty.shape.clone());
        let instruction = match op {
            Op::Input(slot) => {
                let buffer = self.new_buffer(ty.dtype, ty.shape.numel(), Some(*slot));
                return Value::Stored(Load { buffer, view: View::contiguous(&ty.shape) });
            }
            Op::Scalar(slot) => return Value::Uniform(Instruction::Scalar(*slot)),
            Op::Const(number) => return Value::Uniform(Instruction::Const(*number)),
            Op::Barrier => {
                let value = self.value(operands[0]);
                return self.settled(value, ty);
            }
            op if op.is_view() => return self.view(op, operands[0], &ty.shape),
            Op::Reduce(op, axes) => {
                return self.reduce(*op, axes, operands[0], ty.dtype, &ty.shape);
            }
            Op::Contract { batch, contracted } => {
                // Their places count, so equal ones stay apart.
                builder.loads = operands.iter().map(|&operand| self.operand_load(operand)).collect();
                let register = builder.expression.push(Instruction::Accumulator, ty.dtype);
                let family = Family::Contract { batch: *batch, contracted: *contracted };
                return self.emit(family, builder, register, &ty.shape, ty.dtype);
            }
            Op::Scatter(mode, axis) => {
                builder.space = self.graph.nodes()[operands[2]].ty.shape.clone();
                // Their places count, so equal ones stay apart.
                builder.loads = operands.iter().map(|&operand| self.operand_load(operand)).collect();
                let register = builder.expression.push(Instruction::Accumulator, ty.dtype);
                let family = Family::Scatter { mode: *mode, axis: *axis };
                return self.emit(family, builder, register, &ty.shape, ty.dtype);
            }
            Op::Gather(axis) => {
                let load = self.operand_load(operands[0]);
                let load = builder.load(load);
                let index = self.small_enough(&operands[1..]).remove(0);
                let index = builder.register(index, self.dtype(operands[1]));
                Instruction::Gather { load, axis: *axis, index }
            }
            Op::Iota(axis) => Instruction::Iota(*axis),
            Op::Random(slot) => Instruction::Random(*slot),
            map => {
                let values = self.small_enough(operands);
                let r: Vec<Register> = values
                    .into_iter()
                    .zip(operands)
                    .map(|(value, &operand)| builder.register(value, self.dtype(operand)))
                    .collect();
                match map {
                    Op::Unary(op) => Instruction::Unary(*op, r[0]),
                    Op::Binary(op) => Instruction::Binary(*op, r[0], r[1]),
                    Op::Compare(op) => Instruction::Compare(*op, r[0], r[1]),
                    Op::Select => Instruction::Select(r[0], r[1], r[2]),
                    Op::Cast => Instruction::Cast(r[0]),
                    other => unreachable!("{} is lowered above", other.name()),
                }
            }
        };
        builder.expression.push(instruction, ty.dtype);
        Value::Computed(builder)
    }

    /// The values of a map's operands, of which one after the other is stored until the rest fits one kernel.
    fn small_enough(&mut self, operands: &[NodeId]) -> Vec<Value> {
        let mut values: Vec<Value> = operands.iter().map(|&operand| self.value(operand)).collect();
        loop {
            let loads = |value: &Value| match value {
                Value::Uniform(_) => 0,
                Value::Stored(_) => 1,
                Value::Computed(builder) => builder.loads.len(),
            };
            let instructions = |value: &Value| match value {
                Value::Computed(builder) => builder.expression.instructions.len(),
                _ => 1,
            };
            let fits = values.iter().map(loads).sum::<usize>() < MOST_LOADS
                && values.iter().map(instructions).sum::<usize>() < MOST_INSTRUCTIONS;
            let largest = (0..values.len()).filter(|&i| matches!(values[i], Value::Computed(_)));
            let Some(largest) = largest.max_by_key(|&i| (loads(&values[i]), instructions(&values[i]))) else {
                return values;
            };
            if fits {
                return values;
            }
            let ty = self.graph.nodes()[operands[largest]].ty.clone();
            values[largest] = self.settled(values[largest].clone(), &ty);
        }
    }

    fn operand_load(&mut self, id: NodeId) -> Load {
        let value = self.value(id);
        let ty = self.graph.nodes()[id].ty.clone();
        self.stored(value, &ty.shape, ty.dtype)
    }

    fn view(&mut self, op: &Op, operand: NodeId, shape: &Shape) -> Value {
        let value = self.value(operand);
        if let (Value::Uniform(_), Op::Reshape | Op::Permute(_) | Op::Expand | Op::Slice(_)) = (&value, op) {
            return value;
        }
        if let Value::Computed(builder) = &value
            && let Some(seen) = builder.through(op, shape)
        {
            return Value::Computed(seen);
        }
        let ty = self.graph.nodes()[operand].ty.clone();
        let load = self.stored(value, &ty.shape, ty.dtype);
        let load = match load.view.through(op, shape) {
            Some(view) => Load { view, ..load },
            None => {
                let copy = self.copied(Value::Stored(load), &ty.shape, ty.dtype);
                let view = copy.view.through(op, shape).expect("every view op applies to a row-major buffer");
                Load { view, ..copy }
            }
        };
        Value::Stored(load)
    }

    /// A reduction runs over a space whose trailing axes are the reduced ones.
    fn reduce(&mut self, op: ReduceOp, axes: &[usize], operand: NodeId, dtype: DType, result: &Shape) -> Value {
        let from = self.graph.nodes()[operand].ty.clone();
        let kept = (0..from.shape.len()).filter(|axis| !axes.contains(axis));
        let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
        let mut builder = Builder::new(order.iter().map(|&axis| from.shape[axis]).collect());
        let mut value = self.value(operand);
        let is_in_order = order.iter().copied().eq(0..order.len());
        let is_fit = |computed: &Builder| !computed.loops() && (is_in_order || !computed.is_bound_to_its_space());
        if matches!(&value, Value::Computed(computed) if !is_fit(computed)) {
            value = self.settled(value, &from);
        }
        let turn = |view: &mut View| view.axes = order.iter().map(|&axis| view.axes[axis]).collect();
        match &mut value {
            Value::Uniform(_) => {}
            Value::Stored(load) => turn(&mut load.view),
            Value::Computed(computed) if !is_in_order => computed.loads.iter_mut().for_each(|l| turn(&mut l.view)),
            Value::Computed(_) => {}
        }
        let register = builder.register(value, from.dtype);
        self.emit(Family::Reduce { op, axes: axes.len() }, builder, register, result, dtype)
    }

    /// The buffer of an output: whole, row-major, and not one that a donation may overwrite.
    fn output(&mut self, id: NodeId) -> BufferId {
        let ty = self.graph.nodes()[id].ty.clone();
        let value = self.value(id);
        if let Value::Stored(Load { buffer, view }) = &value {
            let info = &self.plan.buffers[*buffer];
            let donated = info.input.is_some_and(|slot| self.graph.donated[slot]);
            if view.is_contiguous() && info.len == ty.shape.numel() && !donated {
                return *buffer;
            }
        }
        self.copied(value, &ty.shape, ty.dtype).buffer
    }
}
