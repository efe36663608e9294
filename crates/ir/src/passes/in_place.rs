//! Updates in place: a kernel may write over a buffer that it is the last to read.
//!
//! A donated input is what a failed run must leave whole, so it is overwritten only where nothing can fail any more but
//! the lack of memory, which a backend checks before the first such kernel.

use crate::View;
use crate::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Plan};
use std::collections::HashSet;

/// Lets kernels write over buffers of which they are the last readers.
pub(super) fn update_in_place(plan: &mut Plan, donated: &[bool]) {
    const NEVER: usize = usize::MAX;
    let mut last_use = vec![0; plan.buffers.len()];
    for (i, kernel) in plan.kernels.iter().enumerate() {
        for load in &kernel.loads {
            last_use[load.buffer] = i;
        }
    }
    for &output in &plan.outputs {
        last_use[output] = NEVER;
    }
    let fallible = fallible(plan);
    let last_fallible = fallible.iter().rposition(|&fallible| fallible);
    // A scatter checks its indices before it writes.
    let safe = |i: usize, kernel: &Kernel| match last_fallible {
        None => true,
        Some(last) => i > last || (i == last && matches!(kernel.family, Family::Scatter { .. })),
    };

    let mut renamed: Vec<BufferId> = (0..plan.buffers.len()).collect();
    for i in 0..plan.kernels.len() {
        for load in &mut plan.kernels[i].loads {
            load.buffer = renamed[load.buffer];
        }
        for at in 0..plan.kernels[i].outputs.len() {
            let kernel = &plan.kernels[i];
            let output = kernel.outputs[at].buffer;
            let is_taken = |b: BufferId| kernel.outputs.iter().any(|store| store.buffer == b);
            let is_alike = |b: BufferId| {
                let (one, other) = (&plan.buffers[b], &plan.buffers[output]);
                (one.dtype, one.len) == (other.dtype, other.len)
            };
            // Rows are written when all of the row has been read.
            let may_replace = kernel.outputs[at].per_row || !matches!(kernel.family, Family::Reduce { .. });
            let is_free = |b: BufferId| match plan.buffers[b].input {
                None => true,
                Some(slot) => donated[slot] && safe(i, kernel),
            };
            let mut candidates: Vec<BufferId> = overwritable(kernel)
                .filter(|&b| may_replace && last_use[b] == i && is_alike(b) && is_free(b) && !is_taken(b))
                .collect();
            // Donated inputs first: they are what an optimiser step updates.
            candidates.sort_by_key(|&b| plan.buffers[b].input.is_none());
            if let Some(&target) = candidates.first() {
                renamed[output] = target;
                last_use[target] = last_use[output];
                plan.kernels[i].outputs[at].buffer = target;
            }
        }
    }
    for output in &mut plan.outputs {
        *output = renamed[*output];
    }
}

/// For each kernel, whether it may fail: a user's may, and one that may meet an index that is out of range and that no
/// earlier kernel has looked at.
pub(super) fn fallible(plan: &Plan) -> Vec<bool> {
    let mut checked: HashSet<(BufferId, usize)> = HashSet::new();
    let mut fallible = Vec::with_capacity(plan.kernels.len());
    for kernel in &plan.kernels {
        let mut fails = matches!(kernel.family, Family::Custom(_));
        for (load, extent) in indices(kernel) {
            // A whole buffer of indices needs to be looked at once.
            let whole = load.filter(|load| shows_all(&load.view, plan.buffers[load.buffer].len));
            let known = load.is_some_and(|load| checked.contains(&(load.buffer, extent)));
            fails |= !known;
            checked.extend(whole.map(|load| (load.buffer, extent)));
        }
        fallible.push(fails);
    }
    fallible
}

/// The indices that a kernel uses: where each is loaded, if it is, and the extent that it must stay below.
fn indices(kernel: &Kernel) -> Vec<(Option<&Load>, usize)> {
    let Expression { instructions } = &kernel.expression;
    let loaded = |register: usize| instructions[register].0.load().map(|load| &kernel.loads[load]);
    let mut found = Vec::new();
    for (instruction, _) in instructions {
        match *instruction {
            Instruction::Gather { load, axis, index } => {
                found.push((loaded(index), kernel.loads[load].view.axes[axis].extent));
            }
            Instruction::Index { index, extent, .. } => found.push((loaded(index), extent)),
            _ => {}
        }
    }
    if let Family::Scatter { axis, .. } = kernel.family {
        found.push((Some(&kernel.loads[1]), kernel.loads[0].view.axes[axis].extent));
    }
    found
}

/// Whether a view shows every element of a buffer of this length.
fn shows_all(view: &View, len: usize) -> bool {
    let mut moving: Vec<(usize, usize)> = view
        .axes
        .iter()
        .filter(|a| a.stride != 0 && a.extent > 1)
        .map(|a| (a.stride.unsigned_abs(), a.extent))
        .collect();
    moving.sort_unstable();
    // Windows may overlap.
    let apart = moving.windows(2).all(|axes| axes[1].0 >= axes[0].0 * axes[0].1);
    let shown = moving.iter().map(|&(_, extent)| extent).product::<usize>();
    view.axes.iter().all(|axis| axis.guard.is_none()) && apart && shown == len
}

/// The buffers that a kernel reads once, element by element where it writes, so that it may write over them: a row program
/// over what it reads and writes once for each row.
pub(super) fn overwritable(kernel: &Kernel) -> impl Iterator<Item = BufferId> + '_ {
    let direct: Vec<usize> = kernel.direct_loads().collect();
    kernel.loads.iter().enumerate().filter_map(move |(i, load)| {
        let read_once = kernel.loads.iter().filter(|l| l.buffer == load.buffer).count() == 1;
        let gathers =
            |(instruction, _): &(Instruction, _)| matches!(instruction, Instruction::Gather { load, .. } if *load == i);
        let fits = match &kernel.family {
            Family::Elementwise => true,
            Family::Scatter { .. } => i == 0,
            // What is multiplied is read while results are written.
            Family::Contract { operands, .. } => {
                direct.contains(&i)
                    && !operands.iter().any(|e| e.instructions.iter().any(|(read, _)| read.load() == Some(i)))
            }
            Family::Reduce { .. } => true,
            Family::Scan { .. } | Family::Sort { .. } | Family::Attention { .. } | Family::Custom(_) => false,
        };
        let gathered = kernel.expression.instructions.iter().any(gathers);
        let in_order = match kernel.family {
            Family::Reduce { axes } => load.view.repeats_each(axes),
            _ => load.view.is_contiguous(),
        };
        (fits && read_once && !gathered && in_order).then_some(load.buffer)
    })
}
