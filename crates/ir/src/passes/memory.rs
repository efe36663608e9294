//! How much memory a plan needs, and which of its buffers may share a place.

use crate::plan::{BufferId, Plan};
use std::collections::HashMap;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The step that makes it.
    pub first: usize,
    /// The last step that needs it; `usize::MAX` if it is an output.
    pub last: usize,
    /// Its bytes.
    pub bytes: usize,
    /// Arrays, by their position, that a step reads while it writes this one: they must not be parts of one place.
    pub apart: Vec<usize>,
}

/// Arrays in places: some share one because their lifetimes do not meet, some lie side by side in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// For each array, its place and where it begins there.
    pub of: Vec<(usize, usize)>,
    /// The bytes of each place.
    pub bytes: Vec<usize>,
}

/// Arrays begin at multiples of this: what WebGPU asks of parts of a buffer.
const ALIGNMENT: usize = 256;
/// How many orders of choosing are tried.
const TRIES: usize = 100;

/// A place for each array. Large arrays choose first, and each goes where the places grow the least (greedy by size;
/// Pisarchyk and Lee: "Efficient memory management for deep neural net inference", 2020); then the order is changed a
/// little, as long as that helps.
pub fn share_places(lifetimes: &[Lifetime]) -> Places {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), lifetimes[i].first));
    let total = |places: &Places| places.bytes.iter().sum::<usize>();
    let mut best = in_order(lifetimes, &order);
    let least = alive_at_once(lifetimes);
    let mut random = Xorshift(0x2545_f491_4f6c_dd1d);
    for _ in 0..TRIES {
        if total(&best) <= least || order.len() < 3 {
            break;
        }
        let mut changed = order.clone();
        let moved = changed.remove(random.below(order.len()));
        changed.insert(random.below(order.len()), moved);
        let other = in_order(lifetimes, &changed);
        if total(&other) <= total(&best) {
            (best, order) = (other, changed);
        }
    }
    best
}

/// A small random source: the same places in every run.
pub(super) struct Xorshift(pub(super) u64);

impl Xorshift {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }
}

/// A place for each array, of which each in its turn goes where it costs the least.
fn in_order(lifetimes: &[Lifetime], order: &[usize]) -> Places {
    let mut places = Places { of: vec![(0, 0); lifetimes.len()], bytes: Vec::new() };
    let mut inside: Vec<Vec<usize>> = Vec::new();
    for &i in order {
        let wanted = lifetimes[i].bytes.next_multiple_of(ALIGNMENT);
        let offers = (0..inside.len()).filter_map(|place| {
            let offset = room(lifetimes, &places, &inside[place], i)?;
            let growth = (offset + wanted).saturating_sub(places.bytes[place]);
            Some((growth, places.bytes[place], place, offset))
        });
        let (place, offset) = match offers.min() {
            Some((growth, _, place, offset)) if growth < wanted => (place, offset),
            _ => {
                inside.push(Vec::new());
                places.bytes.push(0);
                (inside.len() - 1, 0)
            }
        };
        places.bytes[place] = places.bytes[place].max(offset + wanted);
        places.of[i] = (place, offset);
        inside[place].push(i);
    }
    places
}

/// Where an array may begin in a place that has others, if it may lie there at all.
fn room(lifetimes: &[Lifetime], places: &Places, others: &[usize], i: usize) -> Option<usize> {
    let array = &lifetimes[i];
    let is_output = |a: &Lifetime| a.last == usize::MAX;
    let mut taken: Vec<(usize, usize)> = Vec::new();
    for &other in others {
        let neighbour = &lifetimes[other];
        if array.first > neighbour.last || neighbour.first > array.last {
            // What an output leaves unused would stay in use with it.
            let wastes = is_output(array) && neighbour.bytes > array.bytes + array.bytes / 16;
            let wastes_too = is_output(neighbour) && array.bytes > neighbour.bytes + neighbour.bytes / 16;
            if wastes || wastes_too {
                return None;
            }
            continue;
        }
        if is_output(array) || is_output(neighbour) || array.apart.contains(&other) || neighbour.apart.contains(&i) {
            return None;
        }
        taken.push((places.of[other].1, neighbour.bytes.next_multiple_of(ALIGNMENT)));
    }
    taken.sort_unstable();
    let mut offset = 0;
    for (start, bytes) in taken {
        if start >= offset + array.bytes {
            break;
        }
        offset = offset.max(start + bytes);
    }
    (offset == 0 || !is_output(array)).then_some(offset)
}

/// The most bytes that are alive at once.
pub fn alive_at_once(lifetimes: &[Lifetime]) -> usize {
    let mut changes: Vec<(usize, isize)> = Vec::with_capacity(2 * lifetimes.len());
    for lifetime in lifetimes {
        changes.push((lifetime.first, lifetime.bytes as isize));
        changes.push((lifetime.last.saturating_add(1), -(lifetime.bytes as isize)));
    }
    changes.sort_unstable();
    let (mut alive, mut most) = (0, 0);
    for (_, change) in changes {
        alive += change;
        most = most.max(alive);
    }
    most as usize
}

/// The lifetimes of the arrays that steps make, from what each step reads and writes (arrays by some number below
/// `count`, with their bytes), and the numbers of these arrays. Outputs are needed to the end.
pub fn lifetimes(
    count: usize,
    bytes: impl Fn(usize) -> usize,
    steps: impl Iterator<Item = (Vec<usize>, Vec<usize>)>,
    outputs: &[usize],
) -> (Vec<usize>, Vec<Lifetime>) {
    let mut found: Vec<Option<Lifetime>> = vec![None; count];
    let use_at = |found: &mut Vec<Option<Lifetime>>, array: usize, step: usize| {
        let new = || Lifetime { first: step, last: step, bytes: bytes(array), apart: Vec::new() };
        let lifetime = found[array].get_or_insert_with(new);
        lifetime.last = lifetime.last.max(step);
    };
    for (step, (read, written)) in steps.enumerate() {
        for &array in read.iter().chain(&written) {
            use_at(&mut found, array, step);
        }
        for &array in &written {
            if let Some(lifetime) = &mut found[array] {
                lifetime.apart.extend(read.iter().copied().filter(|&other| other != array));
            }
        }
    }
    outputs.iter().for_each(|&output| use_at(&mut found, output, usize::MAX));
    let numbers: Vec<usize> = (0..count).filter(|&array| found[array].is_some()).collect();
    let position: HashMap<usize, usize> = numbers.iter().enumerate().map(|(at, &array)| (array, at)).collect();
    let mut found: Vec<Lifetime> = found.into_iter().flatten().collect();
    for lifetime in &mut found {
        lifetime.apart = lifetime.apart.iter().filter_map(|array| position.get(array).copied()).collect();
    }
    (numbers, found)
}

/// The lifetimes of what a plan's kernels make.
fn of_plan(plan: &Plan) -> Vec<Lifetime> {
    let is_made = |b: &BufferId| plan.buffers[*b].input.is_none();
    let steps = plan.kernels.iter().map(|kernel| {
        let read = kernel.loads.iter().map(|load| load.buffer).filter(is_made).collect();
        (read, kernel.outputs.iter().map(|store| store.buffer).filter(is_made).collect())
    });
    let outputs: Vec<BufferId> = plan.outputs.iter().copied().filter(is_made).collect();
    lifetimes(plan.buffers.len(), |b| plan.bytes(b), steps, &outputs).1
}

/// The most bytes that are alive at once of what a plan's kernels make.
pub(super) fn peak(plan: &Plan) -> usize {
    alive_at_once(&of_plan(plan))
}

impl Plan {
    /// How much memory a run needs.
    pub fn memory(&self) -> PlanMemory {
        let places = share_places(&of_plan(self)).bytes;
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
    fn arrays_that_meet_do_not_overlap() {
        let alive = |first, last, bytes| Lifetime { first, last, bytes, apart: Vec::new() };
        let mut random = Xorshift(7);
        for _ in 0..200 {
            let mut lifetimes: Vec<Lifetime> = (0..12)
                .map(|_| {
                    let first = random.below(10);
                    let last = if random.below(5) == 0 { usize::MAX } else { first + random.below(4) };
                    alive(first, last, 256 * (1 + random.below(8)))
                })
                .collect();
            // One array is made from two others.
            lifetimes[0].apart = vec![1, 2];
            let Places { of, bytes } = share_places(&lifetimes);
            for (i, a) in lifetimes.iter().enumerate() {
                assert!(of[i].1 + a.bytes <= bytes[of[i].0]);
                for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                    let meet = a.first <= b.last && b.first <= a.last && of[i].0 == of[j].0;
                    let overlap = of[i].1 < of[j].1 + b.bytes && of[j].1 < of[i].1 + a.bytes;
                    assert!(!(meet && overlap), "{a:?} {b:?}");
                    assert!(!meet || (a.last != usize::MAX && b.last != usize::MAX && !a.apart.contains(&j)));
                }
            }
            assert!(bytes.iter().sum::<usize>() >= alive_at_once(&lifetimes));
        }
    }
}
