//! How much memory a plan needs, and which of its buffers may share a place.

use crate::plan::{BufferId, Plan};
use std::fmt;

/// What a plan holds while it runs, known before it does. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanMemory {
    /// What it reads: values that are there before.
    pub inputs: usize,
    /// What it gives, without inputs that are given back or overwritten.
    pub outputs: usize,
    /// The most that is alive at once of what its kernels make.
    pub peak: usize,
    /// What the places of all that is made take together, where arrays whose lifetimes do not meet share a place.
    pub pool: usize,
    /// The number of these places.
    pub places: usize,
}

impl fmt::Display for PlanMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: usize| bytes as f64 / 1024.0;
        write!(
            f,
            "inputs {:.1} KiB, outputs {:.1} KiB, at most {:.1} KiB alive at once, in {} places of {:.1} KiB",
            kib(self.inputs),
            kib(self.outputs),
            kib(self.peak),
            self.places,
            kib(self.pool)
        )
    }
}

/// When an array is needed, in steps, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The step that makes it.
    pub first: usize,
    /// The last step that needs it.
    pub last: usize,
    /// Its bytes.
    pub bytes: usize,
}

/// A place for each array, and the bytes of each place: arrays share one if their lifetimes do not meet. Large arrays
/// choose first, and each takes the smallest place that is free for it (greedy by size; Pisarchyk and Lee: "Efficient
/// memory management for deep neural net inference", 2020).
pub fn share_places(lifetimes: &[Lifetime]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), lifetimes[i].first));
    let mut places = vec![0; lifetimes.len()];
    let mut taken: Vec<Vec<usize>> = Vec::new();
    let mut bytes: Vec<usize> = Vec::new();
    for i in order {
        let meets = |&other: &usize| {
            let (a, b) = (&lifetimes[i], &lifetimes[other]);
            a.first <= b.last && b.first <= a.last
        };
        // Places are made from large to small, so the last that is free is the smallest.
        let place = (0..taken.len()).rev().find(|&place| !taken[place].iter().any(meets)).unwrap_or_else(|| {
            taken.push(Vec::new());
            bytes.push(lifetimes[i].bytes);
            taken.len() - 1
        });
        taken[place].push(i);
        places[i] = place;
    }
    (places, bytes)
}

/// The lifetimes of the buffers that a plan's kernels make; `None` for inputs and what is never written.
fn lifetimes(plan: &Plan) -> Vec<Option<Lifetime>> {
    let mut found: Vec<Option<Lifetime>> = vec![None; plan.buffers.len()];
    for (step, kernel) in plan.kernels.iter().enumerate() {
        let used = kernel.outputs.iter().map(|store| store.buffer).chain(kernel.loads.iter().map(|load| load.buffer));
        for buffer in used.filter(|&b| plan.buffers[b].input.is_none()) {
            let bytes = plan.bytes(buffer);
            found[buffer].get_or_insert(Lifetime { first: step, last: step, bytes }).last = step;
        }
    }
    for &output in &plan.outputs {
        if let Some(lifetime) = &mut found[output] {
            lifetime.last = usize::MAX;
        }
    }
    found
}

/// The most bytes that are alive at once of what a plan's kernels make.
pub(super) fn peak(plan: &Plan) -> usize {
    let lifetimes: Vec<Lifetime> = lifetimes(plan).into_iter().flatten().collect();
    let mut changes = vec![0isize; plan.kernels.len() + 1];
    for lifetime in &lifetimes {
        changes[lifetime.first] += lifetime.bytes as isize;
        if lifetime.last < plan.kernels.len() {
            changes[lifetime.last + 1] -= lifetime.bytes as isize;
        }
    }
    let (mut alive, mut most) = (0, 0);
    for change in changes {
        alive += change;
        most = most.max(alive);
    }
    most as usize
}

impl Plan {
    /// How much memory a run needs.
    pub fn memory(&self) -> PlanMemory {
        let lifetimes: Vec<Lifetime> = lifetimes(self).into_iter().flatten().collect();
        let (_, places) = share_places(&lifetimes);
        let made = |b: &BufferId| self.buffers[*b].input.is_none();
        let mut outputs: Vec<BufferId> = self.outputs.iter().copied().filter(made).collect();
        outputs.sort_unstable();
        outputs.dedup();
        PlanMemory {
            inputs: (0..self.buffers.len()).filter(|b| !made(b)).map(|b| self.bytes(b)).sum(),
            outputs: outputs.into_iter().map(|b| self.bytes(b)).sum(),
            peak: peak(self),
            pool: places.iter().sum(),
            places: places.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_share_a_place_only_when_they_do_not_meet() {
        let alive = |first, last, bytes| Lifetime { first, last, bytes };
        let lifetimes = [alive(0, 1, 4), alive(1, 2, 8), alive(2, 3, 4), alive(3, 9, 6), alive(4, 5, 2)];
        let (places, bytes) = share_places(&lifetimes);
        assert_eq!(bytes.iter().sum::<usize>(), 12);
        for (i, a) in lifetimes.iter().enumerate() {
            assert!(bytes[places[i]] >= a.bytes);
            for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                assert!(places[i] != places[j] || a.last < b.first || b.last < a.first);
            }
        }
    }
}
