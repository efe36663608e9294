//! Faults of a planner, planted in good plans.

use crate::rewritings;
use crate::support::Case;
use crate::validity::addresses;
use gradus_ir::op::{BinaryOp, CompareOp, ReduceOp, ScanOp};
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Plan, Register};
use gradus_ir::{Graph, Number, View};

/// How a kind of fault is planted.
pub(crate) enum Plant {
    /// Every plan that differs from a case's good one by one fault. The case holds the numbers of another run.
    Plans(fn(&Case, &Plan) -> Vec<Plan>),
    /// Every graph that a faulty rewriting may have made of a case's one, to be planned.
    Graphs(fn(&Case) -> Vec<Graph>),
    /// As [`Plant::Plans`], in plans of cases with an index that is out of range.
    Checks(fn(&Case, &Plan) -> Vec<Plan>),
}

use Plant::{Checks, Graphs, Plans};

/// The kinds of fault.
pub(crate) const MUTATIONS: &[(&str, Plant)] = &[
    (
        "two strides swapped",
        Plans(|_, plan| {
            each_load(plan, |load| {
                let axes = &mut load.view.axes;
                let pair = (1..axes.len())
                    .find(|&i| axes[i - 1].stride != axes[i].stride && axes[i - 1].extent > 1 && axes[i].extent > 1)?;
                (axes[pair - 1].stride, axes[pair].stride) = (axes[pair].stride, axes[pair - 1].stride);
                Some(())
            })
        }),
    ),
    (
        "a stride of the other sign",
        Plans(|_, plan| {
            each_load(plan, |load| {
                let View { axes, offset } = &mut load.view;
                let axis = axes.iter_mut().find(|axis| axis.stride != 0 && axis.extent > 1 && axis.guard.is_none())?;
                // From the other end on, so that it stays in bounds.
                *offset += axis.stride * (axis.extent as isize - 1);
                axis.stride = -axis.stride;
                Some(())
            })
        }),
    ),
    (
        "a repeated axis walked along",
        Plans(|_, plan| {
            each_load(plan, |load| {
                let axis = load.view.axes.iter().position(|axis| axis.stride == 0 && axis.extent > 1)?;
                load.view.axes[axis].stride = 1;
                let len = plan.buffers[load.buffer].len as isize;
                addresses(&load.view).filter(|&(_, high)| high < len).map(drop)
            })
        }),
    ),
    (
        "a view forgotten",
        Plans(|_, plan| {
            each_load(plan, |load| {
                let whole = View::contiguous(&load.view.shape());
                let fits = !load.view.is_contiguous() && load.view.shape().numel() <= plan.buffers[load.buffer].len;
                fits.then(|| load.view = whole)
            })
        }),
    ),
    (
        "a guard dropped",
        Plans(|_, plan| each_load(plan, |load| load.view.axes.iter_mut().find_map(|axis| axis.guard.take().map(drop)))),
    ),
    (
        "a guard moved",
        Plans(|_, plan| {
            each_load(plan, |load| {
                load.view.axes.iter_mut().find_map(|axis| axis.guard.as_mut().map(|guard| guard.low -= 1))
            })
        }),
    ),
    (
        "an offset changed",
        Plans(|_, plan| {
            each_load(plan, |load| {
                load.view.offset += 1;
                Some(())
            })
        }),
    ),
    (
        "another buffer read",
        Plans(|_, plan| {
            each_load(plan, |load| {
                let same = |b: usize| plan.buffers[b].dtype == plan.buffers[load.buffer].dtype;
                let fits =
                    |b: usize| b != load.buffer && same(b) && plan.buffers[b].len >= plan.buffers[load.buffer].len;
                // Only one that is written before, as the planner would choose.
                load.buffer = (0..load.buffer).rev().find(|&b| fits(b))?;
                Some(())
            })
        }),
    ),
    (
        "a user's number baked in",
        Plans(|case, plan| {
            each_register(plan, |kernel, at| match kernel.expression.instructions[at].0 {
                Instruction::Scalar(slot) => replace(kernel, at, Instruction::Const(case.scalars[slot])),
                _ => None,
            })
        }),
    ),
    ("a user's number folded", Graphs(rewritings::numbers_folded)),
    (
        "another slot's number",
        Plans(|_, plan| {
            each_register(plan, |kernel, at| {
                let (instruction, dtype) = kernel.expression.instructions[at].clone();
                let other = |(i, d): &&(Instruction, _)| {
                    matches!(i, Instruction::Scalar(_)) && *i != instruction && *d == dtype
                };
                let other = all_instructions(plan).find(other)?;
                matches!(instruction, Instruction::Scalar(_)).then(|| replace(kernel, at, other.0.clone()))?
            })
        }),
    ),
    (
        "a constant changed",
        Plans(|_, plan| {
            each_register(plan, |kernel, at| match kernel.expression.instructions[at].0 {
                Instruction::Const(number) => replace(kernel, at, Instruction::Const(changed(number))),
                _ => None,
            })
        }),
    ),
    ("two draws merged", Graphs(rewritings::draws_merged)),
    (
        "another draw's key",
        Plans(|_, plan| {
            each_register(plan, |kernel, at| {
                let instruction = kernel.expression.instructions[at].0.clone();
                let other = |(i, _): &&(Instruction, _)| matches!(i, Instruction::Random(_)) && *i != instruction;
                let other = all_instructions(plan).find(other)?;
                matches!(instruction, Instruction::Random(_)).then(|| replace(kernel, at, other.0.clone()))?
            })
        }),
    ),
    (
        "operands swapped",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| {
                use BinaryOp::{Div, Pow, Rem, Sub};
                use CompareOp::{Ge, Gt, Le, Lt};
                if kernel.loads.windows(2).any(|pair| pair[0] == pair[1]) {
                    return None;
                }
                let swap = |(instruction, _): &mut (Instruction, _)| match instruction {
                    Instruction::Binary(Sub | Div | Rem | Pow, a, b)
                    | Instruction::Compare(Lt | Le | Gt | Ge, a, b) => {
                        std::mem::swap(a, b);
                        Some(())
                    }
                    _ => None,
                };
                kernel.expression.instructions.iter_mut().find_map(swap)
            })
        }),
    ),
    (
        "branches of a selection exchanged",
        Plans(|_, plan| {
            each_register(plan, |kernel, at| match kernel.expression.instructions[at].0 {
                Instruction::Select(condition, then, other) if then != other => {
                    replace(kernel, at, Instruction::Select(condition, other, then))
                }
                _ => None,
            })
        }),
    ),
    (
        "a conversion dropped",
        Plans(|_, plan| {
            each_register(plan, |kernel, at| match kernel.expression.instructions[at].0 {
                Instruction::Cast(from) => redirect(kernel, at, from),
                _ => None,
            })
        }),
    ),
    ("a conversion there and back dropped", Graphs(rewritings::casts_dropped)),
    (
        "another axis",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| {
                let rank = kernel.space.len();
                let other = |axis: &mut usize| (rank > 1).then(|| *axis = (*axis + 1) % rank);
                match &mut kernel.family {
                    Family::Scatter { axis, .. } | Family::Scan { axis, .. } => other(axis),
                    Family::Contract { batch, .. } if *batch > 0 => {
                        *batch -= 1;
                        Some(())
                    }
                    _ => kernel.expression.instructions.iter_mut().find_map(|(instruction, _)| match instruction {
                        Instruction::Iota(axis) | Instruction::Gather { axis, .. } => other(axis),
                        _ => None,
                    }),
                }
            })
        }),
    ),
    (
        "another direction of a sort",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| match &mut kernel.family {
                Family::Sort { descending, .. } => {
                    *descending = !*descending;
                    Some(())
                }
                _ => None,
            })
        }),
    ),
    (
        "another look of attention",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| match &mut kernel.family {
                Family::Attention { causal, .. } => {
                    *causal = !*causal;
                    Some(())
                }
                _ => None,
            })
        }),
    ),
    (
        "another scan",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| match &mut kernel.family {
                Family::Scan { op: op @ ScanOp::Sum, .. } => {
                    *op = ScanOp::Prod;
                    Some(())
                }
                Family::Scan { op: ScanOp::Recurrence, .. } if kernel.loads[0] != kernel.loads[1] => {
                    kernel.loads.swap(0, 1);
                    Some(())
                }
                _ => None,
            })
        }),
    ),
    (
        "an index not checked",
        Checks(|_, plan| {
            each_register(plan, |kernel, at| match kernel.expression.instructions[at].0 {
                Instruction::Index { index, .. } => redirect(kernel, at, index),
                _ => None,
            })
        }),
    ),
    (
        "an input overwritten before indices are checked",
        Checks(|_, plan| {
            let earlier = |k: usize| {
                let kernel = &plan.kernels[k];
                kernel.outputs.iter().find(|store| plan.buffers[store.buffer].input.is_some())?;
                let waits = |other: &Kernel| {
                    let writes = |b: BufferId| other.outputs.iter().any(|store| store.buffer == b);
                    let reads = |b: BufferId| other.loads.iter().any(|load| load.buffer == b);
                    kernel.loads.iter().any(|load| writes(load.buffer))
                        || kernel.outputs.iter().any(|s| reads(s.buffer))
                };
                let first = plan.kernels[..k].iter().rposition(waits).map_or(0, |last| last + 1);
                (first < k).then(|| edited(plan, |plan| plan.kernels[first..=k].rotate_right(1)))
            };
            (0..plan.kernels.len()).filter_map(earlier).collect()
        }),
    ),
    ("a map and the padding of it exchanged", Graphs(rewritings::padding_exchanged)),
    ("a map and the reduction of it exchanged", Graphs(rewritings::reduction_exchanged)),
    (
        "another reduction",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| {
                if kernel.row_len() == 1 {
                    return None;
                }
                let reduction = |(instruction, _): &mut (Instruction, _)| match instruction {
                    Instruction::Reduce(op, _) => {
                        *op = other(*op);
                        Some(())
                    }
                    _ => None,
                };
                kernel.expression.instructions.iter_mut().find_map(reduction)
            })
        }),
    ),
    (
        "another register reduced",
        Plans(|_, plan| {
            each_register(plan, |kernel, at| match kernel.expression.instructions[at].0 {
                Instruction::Reduce(op, from) => {
                    let other = alike(&kernel.expression, from, 0..at)?;
                    replace(kernel, at, Instruction::Reduce(op, other))
                }
                _ => None,
            })
        }),
    ),
    (
        "a row's result read before it is known",
        Plans(|_, plan| {
            each_register(plan, |kernel, at| {
                let instructions = &kernel.expression.instructions;
                let (instruction, _) = &instructions[at];
                // The element that is reduced takes the place of what it is reduced to.
                let early = |result: Register| match instructions[result] {
                    (Instruction::Reduce(_, element), dtype) if instructions[element].1 == dtype => {
                        Some((result, element))
                    }
                    _ => None,
                };
                let (result, element) = instruction.operands().into_iter().find_map(early)?;
                let instruction = instruction.renumbered(|load| load, |r| if r == result { element } else { r });
                replace(kernel, at, instruction)
            })
        }),
    ),
    (
        "a row of one axis more or less",
        Plans(|_, plan| {
            let rank = |kernel: &Kernel| kernel.space.len();
            let longer = each_kernel(plan, |kernel| match kernel.family {
                Family::Reduce { axes } if axes < rank(kernel) && kernel.space[rank(kernel) - axes - 1] > 1 => {
                    kernel.family = Family::Reduce { axes: axes + 1 };
                    Some(())
                }
                _ => None,
            });
            let shorter = each_kernel(plan, |kernel| match kernel.family {
                Family::Reduce { axes } if axes > 0 && kernel.space[rank(kernel) - axes] > 1 => {
                    kernel.family = Family::Reduce { axes: axes - 1 };
                    Some(())
                }
                _ => None,
            });
            [longer, shorter].concat()
        }),
    ),
    (
        "stored for rows and not elements, or the reverse",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| {
                let is_row = matches!(kernel.family, Family::Reduce { .. }) && kernel.row_len() > 1;
                is_row.then(|| kernel.outputs[0].per_row = !kernel.outputs[0].per_row)
            })
        }),
    ),
    (
        "what is done to a product dropped",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| {
                let e = &kernel.expression;
                let sum =
                    e.instructions.iter().position(|(instruction, _)| *instruction == Instruction::Accumulator)?;
                let is_other = |register: Register| register != sum && e.dtype(register) == e.dtype(sum);
                kernel.outputs.iter_mut().find(|store| is_other(store.register)).map(|store| store.register = sum)
            })
        }),
    ),
    (
        "what is done to an operand dropped",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| match &mut kernel.family {
                Family::Contract { operands, .. } => operands.iter_mut().find_map(|operand| {
                    let (instruction, dtype) = operand.instructions.iter().find(|(i, _)| i.load().is_some())?.clone();
                    let last = operand.instructions.last()?;
                    let changes = last.1 == dtype && last.0 != instruction;
                    changes.then(|| *operand = Expression::of_load(instruction.load().unwrap_or_default(), dtype))
                }),
                _ => None,
            })
        }),
    ),
    (
        "a free and a summed axis exchanged",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| {
                let Family::Contract { batch, contracted, .. } = kernel.family else {
                    return None;
                };
                // The operands' loads come first.
                kernel.loads.iter_mut().take(2).find_map(|load| {
                    let axes = &mut load.view.axes;
                    let summed = axes.len() - contracted;
                    let pairs = (batch..summed).flat_map(|free| (summed..axes.len()).map(move |along| (free, along)));
                    let fits = |&(a, b): &(usize, usize)| axes[a].extent == axes[b].extent && axes[a] != axes[b];
                    let (a, b) = pairs.into_iter().find(fits)?;
                    axes.swap(a, b);
                    Some(())
                })
            })
        }),
    ),
    (
        "a buffer overwritten too early",
        Plans(|_, plan| overwriting(plan, read, |victim, needed| plan.buffers[victim].input.is_none() && needed)),
    ),
    (
        "a donated input overwritten too early",
        Plans(|case, plan| {
            let donated = |b: BufferId| plan.buffers[b].input.is_some_and(|slot| case.graph.donated[slot]);
            overwriting(plan, read, |victim, needed| donated(victim) && needed)
        }),
    ),
    (
        "an input overwritten that was not donated",
        Plans(|case, plan| {
            let kept = |b: BufferId| plan.buffers[b].input.is_some_and(|slot| !case.graph.donated[slot]);
            overwriting(plan, read, |victim, _| kept(victim))
        }),
    ),
    ("every input taken as donated", Graphs(rewritings::all_donated)),
    (
        "two live arrays in one buffer",
        Plans(|_, plan| {
            let written =
                |kernels: &[Kernel]| kernels.iter().flat_map(|k| &k.outputs).map(|store| store.buffer).collect();
            overwriting(plan, written, |_, needed| needed)
        }),
    ),
    (
        "two outputs exchanged",
        Plans(|_, plan| {
            pairs(plan.outputs.len())
                .filter(|&(a, b)| plan.outputs[a] != plan.outputs[b] && fits(plan, plan.outputs[a], plan.outputs[b]))
                .map(|(a, b)| edited(plan, |plan| plan.outputs.swap(a, b)))
                .collect()
        }),
    ),
    (
        "dependent kernels exchanged",
        Plans(|_, plan| {
            let reads = |k: usize, b: BufferId| plan.kernels[k].loads.iter().any(|load| load.buffer == b);
            pairs(plan.kernels.len())
                .filter(|&(a, b)| plan.kernels[a].outputs.iter().any(|store| reads(b, store.buffer)))
                .map(|(a, b)| edited(plan, |plan| plan.kernels.swap(a, b)))
                .collect()
        }),
    ),
    ("a barrier looked through", Graphs(rewritings::barriers_dropped)),
    (
        "a kernel dropped",
        Plans(|_, plan| (0..plan.kernels.len()).map(|k| edited(plan, |plan| drop(plan.kernels.remove(k)))).collect()),
    ),
    (
        "stores dropped but one",
        Plans(|_, plan| each_kernel(plan, |kernel| (kernel.outputs.len() > 1).then(|| kernel.outputs.truncate(1)))),
    ),
    (
        "another register stored",
        Plans(|_, plan| {
            each_kernel(plan, |kernel| {
                let e = &kernel.expression;
                kernel.outputs.iter_mut().find_map(|store| {
                    store.register = alike(e, store.register, 0..e.instructions.len())?;
                    Some(())
                })
            })
        }),
    ),
];

/// The reduction that is the most like another one.
fn other(op: ReduceOp) -> ReduceOp {
    match op {
        ReduceOp::Sum => ReduceOp::Prod,
        ReduceOp::Prod => ReduceOp::Sum,
        ReduceOp::Max => ReduceOp::Min,
        ReduceOp::Min => ReduceOp::Max,
        ReduceOp::ArgMax => ReduceOp::ArgMin,
        ReduceOp::ArgMin => ReduceOp::ArgMax,
    }
}

/// Another number of the same kind.
pub(crate) fn changed(number: Number) -> Number {
    match number {
        Number::Bool(value) => Number::Bool(!value),
        Number::Int(value) => Number::Int(value ^ 1),
        Number::Float(value) if value.is_finite() => Number::Float(value + 1.0),
        Number::Float(_) => Number::Float(0.5),
    }
}

/// A register of the dtype of another one, the last of those before the end of a range.
fn alike(e: &Expression, register: Register, among: std::ops::Range<Register>) -> Option<Register> {
    among.rev().find(|&r| r != register && e.dtype(r) == e.dtype(register))
}

fn all_instructions(plan: &Plan) -> impl Iterator<Item = &(Instruction, gradus_ir::DType)> {
    plan.kernels.iter().flat_map(|kernel| &kernel.expression.instructions)
}

/// Puts another instruction in the place of one.
fn replace(kernel: &mut Kernel, at: Register, with: Instruction) -> Option<()> {
    kernel.expression.instructions[at].0 = with;
    Some(())
}

/// Lets all that reads a register read another one.
fn redirect(kernel: &mut Kernel, from: Register, to: Register) -> Option<()> {
    let found = |register| if register == from { to } else { register };
    for (instruction, _) in &mut kernel.expression.instructions {
        *instruction = instruction.renumbered(|load| load, found);
    }
    kernel.outputs.iter_mut().for_each(|store| store.register = found(store.register));
    Some(())
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |b| (0..b).map(move |a| (a, b)))
}

fn edited(plan: &Plan, edit: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = plan.clone();
    edit(&mut plan);
    plan
}

/// Whether a buffer can hold what another one holds.
fn fits(plan: &Plan, a: BufferId, b: BufferId) -> bool {
    let [a, b] = [a, b].map(|id| &plan.buffers[id]);
    a.len > 0 && (a.dtype, a.len) == (b.dtype, b.len)
}

/// The buffers that kernels read.
fn read(kernels: &[Kernel]) -> Vec<BufferId> {
    kernels.iter().flat_map(|kernel| &kernel.loads).map(|load| load.buffer).collect()
}

/// Every plan in which a kernel writes over a buffer, one that it or an earlier kernel uses, and not to its own. `accepts`
/// is told of a buffer whether it is needed later.
fn overwriting(
    plan: &Plan,
    used: impl Fn(&[Kernel]) -> Vec<BufferId>,
    accepts: impl Fn(BufferId, bool) -> bool,
) -> Vec<Plan> {
    let mutant = |i: usize| {
        let output = plan.kernels[i].outputs[0].buffer;
        let needed = |b: BufferId| plan.outputs.contains(&b) || read(&plan.kernels[i + 1..]).contains(&b);
        let mut before = used(&plan.kernels[..=i]).into_iter();
        let victim = before.find(|&b| b != output && fits(plan, b, output) && accepts(b, needed(b)))?;
        let rename = |b: &mut BufferId| *b = if *b == output { victim } else { *b };
        Some(edited(plan, |plan| {
            for kernel in &mut plan.kernels[i..] {
                kernel.loads.iter_mut().for_each(|load| rename(&mut load.buffer));
                kernel.outputs.iter_mut().for_each(|store| rename(&mut store.buffer));
            }
            plan.outputs.iter_mut().for_each(rename);
        }))
    };
    (0..plan.kernels.len()).filter_map(mutant).collect()
}

/// A mutant for each kernel that the fault can be planted in. (In a kernel that writes nothing it would not show.)
fn each_kernel(plan: &Plan, plant: impl Fn(&mut Kernel) -> Option<()>) -> Vec<Plan> {
    let mutant = |i: usize| {
        let mut mutant = plan.clone();
        plant(&mut mutant.kernels[i]).map(|()| mutant)
    };
    (0..plan.kernels.len())
        .filter(|&i| plan.buffers[plan.kernels[i].outputs[0].buffer].len > 0)
        .filter_map(mutant)
        .collect()
}

/// A mutant for each load that the fault can be planted in.
fn each_load(plan: &Plan, plant: impl Fn(&mut Load) -> Option<()>) -> Vec<Plan> {
    let most = plan.kernels.iter().map(|kernel| kernel.loads.len()).max().unwrap_or(0);
    let nth = |n: usize| {
        each_kernel(plan, |kernel| {
            kernel.loads.get_mut(n).filter(|load| load.view.shape().numel() > 0).and_then(&plant)
        })
    };
    (0..most).flat_map(nth).collect()
}

/// A mutant for each register that the fault can be planted in.
fn each_register(plan: &Plan, plant: impl Fn(&mut Kernel, Register) -> Option<()>) -> Vec<Plan> {
    let most = plan.kernels.iter().map(|kernel| kernel.expression.instructions.len()).max().unwrap_or(0);
    let nth = |n: usize| {
        each_kernel(plan, |kernel| (n < kernel.expression.instructions.len()).then(|| plant(kernel, n)).flatten())
    };
    (0..most).flat_map(nth).collect()
}
