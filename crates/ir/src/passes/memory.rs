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

/// How many orders of choosing are tried.
const TRIES: usize = 200;

/// A place for each array, and the bytes of each place: arrays share one if their lifetimes do not meet. Large arrays
/// choose first, and each takes the smallest place that is free for it (greedy by size; Pisarchyk and Lee: "Efficient
/// memory management for deep neural net inference", 2020); then the order is changed a little, as long as that helps.
pub fn share_places(lifetimes: &[Lifetime]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), lifetimes[i].first));
    let mut best = share_in_order(lifetimes, &order);
    let total = |(_, bytes): &(Vec<usize>, Vec<usize>)| bytes.iter().sum::<usize>();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..if order.len() > 2 { TRIES } else { 0 } {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (from, to) = (random as u32 as usize % order.len(), (random >> 32) as usize % order.len());
        let mut changed = order.clone();
        let moved = changed.remove(from);
        changed.insert(to, moved);
        let other = share_in_order(lifetimes, &changed);
        if total(&other) <= total(&best) {
            (best, order) = (other, changed);
        }
    }
    best
}

/// A place for each array, of which each in its turn takes the one that grows the least.
fn share_in_order(lifetimes: &[Lifetime], order: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut places = vec![0; lifetimes.len()];
    let mut taken: Vec<Vec<usize>> = Vec::new();
    let mut bytes: Vec<usize> = Vec::new();
    for &i in order {
        let meets = |&other: &usize| {
            let (a, b) = (&lifetimes[i], &lifetimes[other]);
            a.first <= b.last && b.first <= a.last
        };
        let wanted = lifetimes[i].bytes;
        // What it grows by, and then what it leaves unused.
        let cost = |place: usize| (wanted.saturating_sub(bytes[place]), bytes[place].saturating_sub(wanted));
        let free = (0..taken.len()).filter(|&place| !taken[place].iter().any(meets));
        let place = free.min_by_key(|&place| cost(place)).filter(|&place| cost(place).0 < wanted).unwrap_or_else(|| {
            taken.push(Vec::new());
            bytes.push(0);
            taken.len() - 1
        });
        bytes[place] = bytes[place].max(wanted);
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
