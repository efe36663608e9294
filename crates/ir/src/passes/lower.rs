//! Lowering: each primitive becomes one kernel, views become part of its loads, numbers part of its expression.

use crate::graph::{Graph, Node, NodeId};
use crate::op::{Op, ReduceOp};
use crate::plan::{Buffer, BufferId, Expression, Family, Instruction, Kernel, Load, Plan, Register, Store};
use crate::{DType, Shape, View};

/// Where a node's value is found.
#[derive(Clone)]
enum Value {
    /// One number, repeated.
    Uniform(Instruction),
    /// A buffer through a view.
    Stored(Load),
}

/// Makes a plan with a buffer per materialised node.
pub(super) fn lower(graph: &Graph) -> Plan {
    let mut lowering = Lowering { graph, plan: Plan::default(), values: Vec::with_capacity(graph.nodes().len()) };
    let needed = needed(graph);
    for (id, node) in graph.nodes().iter().enumerate() {
        let value = needed[id].then(|| lowering.node(node));
        lowering.values.push(value);
    }
    lowering.plan.outputs = graph.outputs.iter().map(|&id| lowering.output(id)).collect();
    lowering.plan
}

/// Which nodes the outputs depend on.
fn needed(graph: &Graph) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes().len()];
    for &output in &graph.outputs {
        needed[output] = true;
    }
    for id in (0..needed.len()).rev() {
        if needed[id] {
            for &operand in &graph.nodes()[id].operands {
                needed[operand] = true;
            }
        }
    }
    needed
}

struct Lowering<'a> {
    graph: &'a Graph,
    plan: Plan,
    values: Vec<Option<Value>>,
}

/// A kernel under construction.
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
        };
        self.expression.push(instruction, dtype)
    }

    fn load(&mut self, load: Load) -> usize {
        self.loads.push(load);
        self.loads.len() - 1
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

    /// A value as a load: numbers are written to a buffer of one element first.
    fn stored(&mut self, value: Value, shape: &Shape, dtype: DType) -> Load {
        match value {
            Value::Stored(load) => load,
            uniform => {
                let mut builder = Builder::new(Shape::default());
                let register = builder.register(uniform, dtype);
                match self.emit(Family::Elementwise, builder, register, &Shape::default(), dtype) {
                    Value::Stored(load) => Load { view: View::splat(shape), ..load },
                    Value::Uniform(_) => unreachable!("emit stores"),
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
            Value::Uniform(_) => unreachable!("emit stores"),
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
            Op::Barrier => return self.value(operands[0]),
            op if op.is_view() => return self.view(op, operands[0], &ty.shape),
            Op::Reduce(op, axes) => {
                return self.reduce(*op, axes, operands[0], ty.dtype, &ty.shape);
            }
            Op::Contract { batch, contracted } => {
                for &operand in operands {
                    let load = self.operand_load(operand);
                    builder.load(load);
                }
                let register = builder.expression.push(Instruction::Accumulator, ty.dtype);
                let family = Family::Contract { batch: *batch, contracted: *contracted };
                return self.emit(family, builder, register, &ty.shape, ty.dtype);
            }
            Op::Scatter(mode, axis) => {
                builder.space = self.graph.nodes()[operands[2]].ty.shape.clone();
                for &operand in operands {
                    let load = self.operand_load(operand);
                    builder.load(load);
                }
                let register = builder.expression.push(Instruction::Accumulator, ty.dtype);
                let family = Family::Scatter { mode: *mode, axis: *axis };
                return self.emit(family, builder, register, &ty.shape, ty.dtype);
            }
            Op::Gather(axis) => {
                let load = self.operand_load(operands[0]);
                let load = builder.load(load);
                let index = builder.register(self.value(operands[1]), self.dtype(operands[1]));
                Instruction::Gather { load, axis: *axis, index }
            }
            Op::Iota(axis) => Instruction::Iota(*axis),
            Op::Random(slot) => Instruction::Random(*slot),
            map => {
                let r: Vec<Register> =
                    operands.iter().map(|&o| builder.register(self.value(o), self.dtype(o))).collect();
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
        let register = builder.expression.push(instruction, ty.dtype);
        self.emit(Family::Elementwise, builder, register, &ty.shape, ty.dtype)
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
        if let Value::Stored(Load { view, .. }) = &mut value {
            view.axes = order.iter().map(|&axis| view.axes[axis]).collect();
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
