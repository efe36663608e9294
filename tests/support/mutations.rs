//! Faults of a planner, planted in good plans.

use gradus_ir::op::{BinaryOp, CompareOp, ReduceOp};
use gradus_ir::plan::{Family, Instruction, Kernel, Load, Plan};

/// Every plan that differs from the given one by one fault of a kind.
type Mutants = fn(&Plan) -> Vec<Plan>;

/// The kinds of fault.
pub(crate) const MUTATIONS: [(&str, Mutants); 9] = [
    ("two strides swapped", |plan| {
        each_load(plan, |load| {
            let axes = &mut load.view.axes;
            let pair = (1..axes.len())
                .find(|&i| axes[i - 1].stride != axes[i].stride && axes[i - 1].extent > 1 && axes[i].extent > 1)?;
            (axes[pair - 1].stride, axes[pair].stride) = (axes[pair].stride, axes[pair - 1].stride);
            Some(())
        })
    }),
    ("a guard dropped", |plan| {
        each_load(plan, |load| load.view.axes.iter_mut().find_map(|axis| axis.guard.take().map(drop)))
    }),
    ("a guard moved", |plan| {
        each_load(plan, |load| {
            load.view.axes.iter_mut().find_map(|axis| axis.guard.as_mut().map(|guard| guard.low -= 1))
        })
    }),
    ("an offset changed", |plan| {
        each_load(plan, |load| {
            load.view.offset += 1;
            Some(())
        })
    }),
    ("another buffer read", |plan| {
        each_load(plan, |load| {
            let same = |b: usize| plan.buffers[b].dtype == plan.buffers[load.buffer].dtype;
            let fits = |b: usize| b != load.buffer && same(b) && plan.buffers[b].len >= plan.buffers[load.buffer].len;
            // Only one that is written before, as the planner would choose.
            load.buffer = (0..load.buffer).rev().find(|&b| fits(b))?;
            Some(())
        })
    }),
    ("operands swapped", |plan| {
        each_kernel(plan, |kernel| {
            use BinaryOp::{Div, Pow, Rem, Sub};
            use CompareOp::{Ge, Gt, Le, Lt};
            if kernel.loads.windows(2).any(|pair| pair[0] == pair[1]) {
                return None;
            }
            let swap = |(instruction, _): &mut (Instruction, _)| match instruction {
                Instruction::Binary(Sub | Div | Rem | Pow, a, b) | Instruction::Compare(Lt | Le | Gt | Ge, a, b) => {
                    std::mem::swap(a, b);
                    Some(())
                }
                Instruction::Select(_, then, other) => {
                    std::mem::swap(then, other);
                    Some(())
                }
                _ => None,
            };
            kernel.expression.instructions.iter_mut().find_map(swap)
        })
    }),
    ("a buffer overwritten too early", |plan| {
        let mut mutants = Vec::new();
        for (i, kernel) in plan.kernels.iter().enumerate() {
            let output = kernel.outputs[0].buffer;
            let needed = |b: usize| {
                plan.outputs.contains(&b) || plan.kernels[i + 1..].iter().flat_map(|k| &k.loads).any(|l| l.buffer == b)
            };
            let before = plan.kernels[..=i].iter().flat_map(|k| &k.loads).map(|load| load.buffer);
            let victim = before.filter(|&b| b != output && plan.buffers[b].len > 0 && needed(b)).find(|&b| {
                (plan.buffers[b].dtype, plan.buffers[b].len) == (plan.buffers[output].dtype, plan.buffers[output].len)
            });
            if let Some(victim) = victim {
                let mut mutant = plan.clone();
                let rename = |b: &mut usize| *b = if *b == output { victim } else { *b };
                for kernel in &mut mutant.kernels[i..] {
                    kernel.loads.iter_mut().for_each(|load| rename(&mut load.buffer));
                    kernel.outputs.iter_mut().for_each(|store| rename(&mut store.buffer));
                }
                mutant.outputs.iter_mut().for_each(rename);
                mutants.push(mutant);
            }
        }
        mutants
    }),
    ("another axis", |plan| {
        each_kernel(plan, |kernel| {
            let rank = kernel.space.len();
            let other = |axis: &mut usize| (rank > 1).then(|| *axis = (*axis + 1) % rank);
            match &mut kernel.family {
                Family::Scatter { axis, .. } => other(axis),
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
    ("another reduction", |plan| {
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
