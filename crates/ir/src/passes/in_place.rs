//! Updates in place: a kernel may write over a buffer that it is the last to read.
//!
//! A donated input is what a failed run must leave whole, so it is overwritten only where nothing can fail any more but
//! the lack of memory, which a backend checks before the first such kernel.

use crate::plan::{BufferId, Family, Instruction, Kernel, Plan};

/// Moves kernels that overwrite donated inputs to the end, then lets kernels write over buffers of which they are the last
/// readers.
pub(super) fn update_in_place(plan: &mut Plan, donated: &[bool]) {
    let is_donated = |plan: &Plan, buffer: BufferId| plan.buffers[buffer].input.is_some_and(|slot| donated[slot]);
    if donated.contains(&true) {
        postpone_overwriting(plan, |plan, buffer| is_donated(plan, buffer));
    }

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

    let last_fallible = plan.kernels.iter().rposition(may_fail);
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
        let kernel = &plan.kernels[i];
        let output = kernel.outputs[0].buffer;
        let mut candidates: Vec<BufferId> = overwritable(kernel)
            .filter(|&b| plan.buffers[b].dtype == plan.buffers[output].dtype)
            .filter(|&b| plan.buffers[b].len == plan.buffers[output].len && last_use[b] == i)
            .filter(|&b| plan.buffers[b].input.is_none() || (is_donated(plan, b) && safe(i, kernel)))
            .collect();
        // Donated inputs first: they are what an optimiser step updates.
        candidates.sort_by_key(|&b| plan.buffers[b].input.is_none());
        if let Some(&target) = candidates.first() {
            renamed[output] = target;
            last_use[target] = last_use[output];
            plan.kernels[i].outputs[0].buffer = target;
        }
    }
    for output in &mut plan.outputs {
        *output = renamed[*output];
    }
}

/// Whether a kernel looks at indices, which may be out of range.
fn may_fail(kernel: &Kernel) -> bool {
    let gathers = kernel.expression.instructions.iter().any(|(i, _)| matches!(i, Instruction::Gather { .. }));
    gathers || matches!(kernel.family, Family::Scatter { .. })
}

/// The buffers that a kernel reads once, element by element where it writes, so that it may write over them.
fn overwritable(kernel: &Kernel) -> impl Iterator<Item = BufferId> + '_ {
    kernel.loads.iter().enumerate().filter_map(move |(i, load)| {
        let read_once = kernel.loads.iter().filter(|l| l.buffer == load.buffer).count() == 1;
        let fits = match kernel.family {
            Family::Elementwise => !may_fail(kernel),
            Family::Scatter { .. } => i == 0,
            Family::Reduce { .. } | Family::Contract { .. } => false,
        };
        (fits && read_once && load.view.is_contiguous()).then_some(load.buffer)
    })
}

/// Stably moves kernels that write an output over a donated input, and all that depend on them, to the end.
fn postpone_overwriting(plan: &mut Plan, donated: impl Fn(&Plan, BufferId) -> bool) {
    let mut late_buffer = vec![false; plan.buffers.len()];
    let mut late_kernel = Vec::with_capacity(plan.kernels.len());
    for kernel in &plan.kernels {
        let writes_output = kernel.outputs.iter().any(|s| plan.outputs.contains(&s.buffer));
        let overwrites = writes_output && overwritable(kernel).any(|b| donated(plan, b));
        let late = overwrites || kernel.loads.iter().any(|l| late_buffer[l.buffer]);
        if late {
            for store in &kernel.outputs {
                late_buffer[store.buffer] = true;
            }
        }
        late_kernel.push(late);
    }
    let kernels = std::mem::take(&mut plan.kernels);
    let (mut early, mut late) = (Vec::with_capacity(kernels.len()), Vec::new());
    for (kernel, is_late) in kernels.into_iter().zip(late_kernel) {
        if is_late { late.push(kernel) } else { early.push(kernel) }
    }
    early.append(&mut late);
    plan.kernels = early;
}
