//! What every plan must be, whatever it computes: a check that knows nothing of the planner.

use gradus_ir::op::attention::{AttentionPart, AttentionShape};
use gradus_ir::op::{Op, Type};
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Register, Store};
use gradus_ir::{DType, Graph, NodeId, Plan, Shape, View};

/// What a plan for a graph does wrong, if anything: reading what is not there, writing what must stay or what does not
/// fit, and not waiting.
pub(crate) fn check(plan: &Plan, graph: &Graph) -> Result<(), String> {
    for (id, buffer) in plan.buffers.iter().enumerate() {
        if let Some(slot) = buffer.input {
            let node = graph.nodes().iter().find(|node| node.op == Op::Input(slot));
            let fits = node.is_some_and(|node| holds(plan, id, &node.ty));
            ensure(fits, || format!("buffer {id} is not input {slot}"))?;
        }
    }
    let mut written: Vec<bool> = plan.buffers.iter().map(|buffer| buffer.input.is_some()).collect();
    for (at, kernel) in plan.kernels.iter().enumerate() {
        let checked = Check { plan, graph, kernel }.run(&mut written);
        checked.map_err(|what| format!("kernel {at} ({}): {what}", kernel.family_name()))?;
    }
    for (at, kernel) in plan.kernels.iter().enumerate() {
        for store in &kernel.outputs {
            let read = plan.kernels[at + 1..].iter().any(|k| k.loads.iter().any(|load| load.buffer == store.buffer));
            ensure(read || plan.outputs.contains(&store.buffer), || format!("nobody reads buffer {}", store.buffer))?;
        }
    }
    ensure(plan.outputs.len() == graph.outputs.len(), || "the number of outputs is another one".into())?;
    for (&buffer, &node) in plan.outputs.iter().zip(&graph.outputs) {
        let ty = &graph.nodes()[node].ty;
        ensure(written[buffer] && holds(plan, buffer, ty), || format!("buffer {buffer} is not output {node}"))?;
        let overwritten = |b| plan.kernels.iter().any(|k| k.outputs.iter().any(|store| store.buffer == b));
        let donated = plan.buffers[buffer].input.is_some_and(|slot| graph.donated[slot]);
        ensure(!donated || overwritten(buffer), || format!("output {node} is a donated input"))?;
    }
    barriers(plan, graph)
}

fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what()) }
}

/// Whether a buffer is made for an array of this type.
fn holds(plan: &Plan, buffer: BufferId, ty: &Type) -> bool {
    let buffer = &plan.buffers[buffer];
    (buffer.dtype, buffer.len) == (ty.dtype, ty.shape.numel())
}

/// The lowest and the highest address of a view, if it shows an element at all.
pub(crate) fn addresses(view: &View) -> Option<(isize, isize)> {
    let (mut low, mut high) = (view.offset, view.offset);
    for axis in &view.axes {
        let mut elements = (0..axis.extent).filter_map(|i| axis.guard.map_or(Some(i), |guard| guard.element(i)));
        let first = elements.next()?;
        let ends = [first, elements.next_back().unwrap_or(first)].map(|i| axis.stride * i as isize);
        low += ends[0].min(ends[1]);
        high += ends[0].max(ends[1]);
    }
    Some((low, high))
}

/// What reads a value behind a barrier runs after what the barrier waits for.
fn barriers(plan: &Plan, graph: &Graph) -> Result<(), String> {
    let nodes = graph.nodes();
    // Kernels that copy what is an output are none that anything waits for.
    let is_computed = |id: NodeId| {
        let op = &nodes[id].op;
        !op.is_view() && !matches!(op, Op::Input(_) | Op::Scalar(_) | Op::Const(_) | Op::Iota(_) | Op::Barrier)
    };
    // What was folded to a constant is there from the beginning.
    let is_folded = |kernel: &Kernel| {
        kernel.expression.instructions.iter().all(|(instruction, _)| matches!(instruction, Instruction::Const(_)))
    };
    let first = |id: NodeId| {
        let makes = |kernel: &Kernel| kernel.nodes.contains(&id);
        is_computed(id).then(|| plan.kernels.iter().position(makes)).flatten()
    };
    for (id, barrier) in nodes.iter().enumerate().filter(|(_, node)| node.op == Op::Barrier) {
        let readers = (id..nodes.len()).filter(|&reader| nodes[reader].operands.contains(&id));
        for reader in readers.filter_map(first) {
            let mut awaited = barrier.operands[1..].iter().filter_map(|&node| first(node));
            let waits = awaited.all(|earlier| earlier < reader || is_folded(&plan.kernels[earlier]));
            ensure(waits, || format!("kernel {reader} does not wait for barrier {id}"))?;
        }
    }
    Ok(())
}

/// A kernel that is being looked at.
struct Check<'a> {
    plan: &'a Plan,
    graph: &'a Graph,
    kernel: &'a Kernel,
}

impl Check<'_> {
    fn run(&self, written: &mut [bool]) -> Result<(), String> {
        let Kernel { space, loads, expression, outputs, .. } = self.kernel;
        for load in loads {
            let len = self.plan.buffers[load.buffer].len as isize;
            ensure(written[load.buffer], || format!("buffer {} is read before it is written", load.buffer))?;
            let within = addresses(&load.view).is_none_or(|(low, high)| 0 <= low && high < len);
            ensure(within, || format!("a view reaches out of buffer {}", load.buffer))?;
        }
        self.family()?;
        self.expression(expression, space)?;
        for (at, store) in outputs.iter().enumerate() {
            let once = !outputs[..at].iter().any(|other| other.buffer == store.buffer);
            ensure(once, || format!("buffer {} is written twice", store.buffer))?;
            self.store(store)?;
            if written[store.buffer] {
                self.in_place(store.buffer)?;
            }
        }
        outputs.iter().for_each(|store| written[store.buffer] = true);
        Ok(())
    }

    /// What each family asks of its loads and its space.
    fn family(&self) -> Result<(), String> {
        let Kernel { family, space, loads, .. } = self.kernel;
        match family {
            Family::Elementwise => Ok(()),
            Family::Reduce { axes } => ensure(*axes <= space.len(), || "a row of too many axes".into()),
            Family::Contract { batch, contracted, operands } => {
                let mut shapes: Vec<Shape> = Vec::new();
                for operand in operands {
                    let load = operand.instructions.iter().find_map(|(instruction, _)| instruction.load());
                    let shape = load.map(|load| loads[load].view.shape()).ok_or("an operand without a load")?;
                    ensure(batch + contracted <= shape.len(), || "an operand of too few axes".into())?;
                    self.expression(operand, &shape)?;
                    shapes.push(shape);
                }
                let free = shapes.iter().flat_map(|shape| &shape[*batch..shape.len() - contracted]);
                let whole: Shape = shapes[0][..*batch].iter().chain(free).copied().collect();
                let summed = |shape: &Shape| Shape::new(&shape[shape.len() - contracted..]);
                let fit = shapes[0][..*batch] == shapes[1][..*batch] && summed(&shapes[0]) == summed(&shapes[1]);
                ensure(fit && whole == *space, || "operands that do not fit".into())
            }
            Family::Scatter { axis, .. } => {
                let [base, index, updates] = &loads[..] else {
                    return Err("not three loads".into());
                };
                let dtype = |buffer: BufferId| self.plan.buffers[buffer].dtype;
                let fits = updates.view.shape() == *space
                    && index.view.shape() == *space
                    && is_along(&base.view.shape(), space, *axis)
                    && dtype(base.buffer) == dtype(updates.buffer)
                    && dtype(index.buffer).is_int();
                ensure(fits, || "operands that do not fit".into())
            }
            Family::Scan { op, axis } => {
                let fits = |load: &Load| {
                    load.view.shape() == *space
                        && self.plan.buffers[load.buffer].dtype == self.plan.buffers[loads[0].buffer].dtype
                };
                let all = loads.len() == op.operands() && loads.iter().all(fits) && *axis < space.len();
                ensure(all, || "operands that do not fit".into())
            }
            Family::Attention { parts, causal } => {
                let (types, is_plain) = self.operands_of_attention();
                let fits = |&part: &AttentionPart| {
                    let numbers = part.operands();
                    let known = types.len() == numbers || types.len() == numbers + 1;
                    let op = Op::Attention { part, causal: *causal };
                    known && op.infer(&types.iter().collect::<Vec<_>>(), &types[0]).is_ok()
                };
                ensure(is_plain && parts.iter().all(fits), || "operands that do not fit".into())
            }
            Family::Sort { kept, .. } => {
                let is_long_enough = space.last().is_some_and(|row| kept <= row);
                let fits = loads.len() == 1 && loads[0].view.shape() == *space && is_long_enough;
                ensure(fits, || "an operand that does not fit".into())
            }
            Family::Custom(op) => {
                let fits = |(load, (_, dtype)): (&Load, &(String, DType))| {
                    let buffer = &self.plan.buffers[load.buffer];
                    let whole = load.view.is_contiguous() && load.view.shape().numel() == buffer.len;
                    whole && buffer.dtype == *dtype
                };
                let all = loads.len() == op.inputs.len() && loads.iter().zip(&op.inputs).all(fits);
                ensure(all, || "operands that are not whole".into())
            }
        }
    }

    /// The types of what attention reads, and whether none of it is padded.
    fn operands_of_attention(&self) -> (Vec<Type>, bool) {
        let loads = &self.kernel.loads;
        let ty = |load: &Load| Type { shape: load.view.shape(), dtype: self.plan.buffers[load.buffer].dtype };
        let is_plain = loads.iter().all(|load| load.view.axes.iter().all(|axis| axis.guard.is_none()));
        (loads.iter().map(ty).collect(), is_plain)
    }

    /// Registers are defined before they are used, loads have the shape of the space, and dtypes are those of the ops.
    fn expression(&self, expression: &Expression, space: &Shape) -> Result<(), String> {
        let loads = &self.kernel.loads;
        for (register, (instruction, dtype)) in expression.instructions.iter().enumerate() {
            let wrong = |what: &str| Err(format!("register {register}, {instruction:?}: {what}"));
            if instruction.operands().iter().any(|&operand| operand >= register) {
                return wrong("read before it is known");
            }
            if let Some(load) = instruction.load() {
                let shape = loads[load].view.shape();
                let fits = match *instruction {
                    Instruction::Gather { axis, .. } => is_along(&shape, space, axis),
                    _ => shape == *space,
                };
                if !fits {
                    return wrong("a load of another shape");
                }
            }
            if self.dtype(expression, register) != Some(*dtype) {
                return wrong("another dtype");
            }
        }
        Ok(())
    }

    /// The dtype that an instruction gives; `None` where it may not stand.
    fn dtype(&self, expression: &Expression, register: Register) -> Option<DType> {
        let Kernel { family, space, loads, .. } = self.kernel;
        let (instruction, dtype) = &expression.instructions[register];
        let stored = |load: usize| self.plan.buffers[loads[load].buffer].dtype;
        let op = match *instruction {
            Instruction::Load(load) => return Some(stored(load)),
            Instruction::Gather { load, index, .. } => return expression.dtype(index).is_int().then(|| stored(load)),
            Instruction::Index { index, .. } => return Some(expression.dtype(index)).filter(|dtype| dtype.is_int()),
            Instruction::Scalar(slot) => return self.has(&Op::Scalar(slot)).then_some(*dtype),
            Instruction::Const(_) => return Some(*dtype),
            Instruction::Iota(axis) => return (axis < space.len()).then_some(*dtype),
            Instruction::Random(slot) => return self.has(&Op::Random(slot)).then_some(*dtype),
            Instruction::Accumulator => {
                return match family {
                    Family::Contract { operands, .. } => operands[0].instructions.last().map(|(_, dtype)| *dtype),
                    Family::Scatter { .. } | Family::Scan { .. } => Some(stored(0)),
                    Family::Sort { .. } => Some(DType::I32),
                    Family::Attention { .. } => Some(stored(0)),
                    Family::Custom(op) => Some(op.dtype),
                    _ => None,
                };
            }
            Instruction::Reduce(op, _) if matches!(family, Family::Reduce { .. }) => {
                Op::Reduce(op, [0].as_slice().into())
            }
            Instruction::Reduce(..) => return None,
            Instruction::Unary(op, _) => Op::Unary(op),
            Instruction::Binary(op, ..) => Op::Binary(op),
            Instruction::Compare(op, ..) => Op::Compare(op),
            Instruction::Select(..) => Op::Select,
            Instruction::Cast(_) => Op::Cast,
        };
        let ty = |dtype| Type { shape: Shape::new(&[1]), dtype };
        let operands: Vec<Type> = instruction.operands().iter().map(|&r| ty(expression.dtype(r))).collect();
        op.infer(&operands.iter().collect::<Vec<_>>(), &ty(*dtype)).ok().map(|ty| ty.dtype)
    }

    fn has(&self, op: &Op) -> bool {
        self.graph.nodes().iter().any(|node| node.op == *op)
    }

    /// A store fits its buffer.
    fn store(&self, store: &Store) -> Result<(), String> {
        let Kernel { family, space, loads, expression, .. } = self.kernel;
        let buffer = &self.plan.buffers[store.buffer];
        let wrong = |what: &str| Err(format!("the store to buffer {}: {what}", store.buffer));
        if expression.instructions.get(store.register).is_none_or(|(_, dtype)| *dtype != buffer.dtype) {
            return wrong("another dtype");
        }
        let len = match family {
            Family::Scatter { .. } => loads[0].view.shape().numel(),
            Family::Sort { kept, .. } => space.with(space.len() - 1, *kept).numel(),
            Family::Attention { parts, .. } => {
                let shapes = [0, 1, 2].map(|load| loads[load].view.shape());
                let shape = AttentionShape::of(&shapes[0], &shapes[1], &shapes[2]);
                parts.get(store.register).map_or(usize::MAX, |&part| shape.of_part(part).numel())
            }
            Family::Reduce { axes } if store.per_row => {
                let split = space.len() - axes;
                if self.kernel.row_len() != 1 && !expression.per_row(|load| &loads[load].view, split)[store.register] {
                    return wrong("a row has more than one of it");
                }
                space[..split].iter().product()
            }
            _ if store.per_row => return wrong("there are no rows"),
            _ => space.numel(),
        };
        if len == buffer.len { Ok(()) } else { wrong("another length") }
    }

    /// A kernel that writes over a buffer reads it once, each element where it writes it; and it may.
    fn in_place(&self, buffer: BufferId) -> Result<(), String> {
        let Kernel { family, loads, expression, .. } = self.kernel;
        let wrong = |what: &str| Err(format!("buffer {buffer} is overwritten, {what}"));
        if self.plan.buffers[buffer].input.is_some_and(|slot| !self.graph.donated[slot]) {
            return wrong("an input that was not donated");
        }
        let [load] = (0..loads.len()).filter(|&load| loads[load].buffer == buffer).collect::<Vec<_>>()[..] else {
            return wrong("and not read once");
        };
        let plainly = |e: &Expression| e.instructions.iter().any(|(i, _)| *i == Instruction::Load(load));
        let anyhow = |e: &Expression| e.instructions.iter().any(|(i, _)| i.load() == Some(load));
        let gathers = |(i, _): &(Instruction, _)| matches!(i, Instruction::Gather { load: from, .. } if *from == load);
        let aligned = !expression.instructions.iter().any(gathers)
            && match family {
                Family::Elementwise => plainly(expression),
                Family::Contract { operands, .. } => plainly(expression) && !operands.iter().any(anyhow),
                Family::Scatter { .. } => load == 0,
                Family::Reduce { .. } => plainly(expression),
                Family::Scan { .. } | Family::Sort { .. } | Family::Attention { .. } | Family::Custom(_) => false,
            };
        let in_order = match self.kernel.family {
            // Once for each row: read so, and written so.
            Family::Reduce { axes } => {
                let View { axes: all, offset } = &loads[load].view;
                let (rows, along) = all.split_at(all.len() - axes);
                let stands = along.iter().all(|axis| axis.stride == 0 && axis.guard.is_none());
                let per_row = self.kernel.outputs.iter().all(|store| store.per_row || store.buffer != buffer);
                stands && per_row && View { axes: rows.into(), offset: *offset }.is_contiguous()
            }
            _ => loads[load].view.is_contiguous(),
        };
        if aligned && in_order { Ok(()) } else { wrong("and read elsewhere") }
    }
}

/// Whether a shape differs from another one at most along an axis.
fn is_along(shape: &Shape, space: &Shape, axis: usize) -> bool {
    axis < space.len() && shape.len() == space.len() && shape.with(axis, space[axis]) == *space
}
