//! The order of kernels: one that needs little memory at once.

use super::fuse::Fused;
use super::in_place;
use super::memory;
use crate::plan::{BufferId, Plan};
use std::collections::{HashMap, HashSet};

/// How many orders the search keeps at each kernel, times the number of kernels: what it costs in all.
const BEAM: usize = 4096;
/// How many it keeps at most, however few kernels there are.
const WIDEST_BEAM: usize = 64;

/// Kernels without an order, and which of them must run before which.
pub(super) struct Unordered {
    plan: Plan,
    /// For each kernel, those that must run earlier.
    earlier: Vec<Vec<usize>>,
    donated: Vec<bool>,
}

impl Unordered {
    pub(super) fn new(fused: Fused, donated: &[bool]) -> Unordered {
        let Fused { plan, after } = fused;
        let makers = makers(&plan);
        let mut earlier = after;
        for (kernel, earlier) in plan.kernels.iter().zip(&mut earlier) {
            earlier.extend(kernel.loads.iter().filter_map(|load| makers.get(&load.buffer)));
            earlier.sort_unstable();
            earlier.dedup();
        }
        let mut unordered = Unordered { plan, earlier, donated: donated.to_vec() };
        unordered.protect_donated();
        unordered
    }

    /// What overwrites a donated input runs after all else that reads it, and after all that may fail.
    fn protect_donated(&mut self) {
        if !self.donated.contains(&true) {
            return;
        }
        let recorded = self.recorded();
        let fallible: HashSet<usize> = {
            let plan = self.arranged(&recorded);
            let fallible = in_place::fallible(&plan);
            recorded.iter().zip(fallible).filter(|(_, fallible)| *fallible).map(|(&kernel, _)| kernel).collect()
        };
        for writer in 0..self.plan.kernels.len() {
            let overwritten = self.overwritten(writer);
            if overwritten.is_empty() {
                continue;
            }
            let reads = |k: usize| self.plan.kernels[k].loads.iter().any(|load| overwritten.contains(&load.buffer));
            let first: Vec<usize> = (0..self.plan.kernels.len())
                .filter(|&k| k != writer && (reads(k) || fallible.contains(&k)))
                .filter(|&k| !self.needs(k, writer))
                .collect();
            let earlier = &mut self.earlier[writer];
            earlier.extend(first);
            earlier.sort_unstable();
            earlier.dedup();
        }
    }

    /// The donated inputs that a kernel may write an output over.
    fn overwritten(&self, kernel: usize) -> Vec<BufferId> {
        let Plan { buffers, kernels, outputs } = &self.plan;
        let kernel = &kernels[kernel];
        let is_donated = |b: &BufferId| buffers[*b].input.is_some_and(|slot| self.donated[slot]);
        let replaces = |b: &BufferId| {
            let alike = |o: BufferId| (buffers[o].dtype, buffers[o].len) == (buffers[*b].dtype, buffers[*b].len);
            kernel.outputs.iter().any(|store| outputs.contains(&store.buffer) && alike(store.buffer))
        };
        in_place::overwritable(kernel).filter(is_donated).filter(replaces).collect()
    }

    /// Whether a kernel must run after another one.
    fn needs(&self, kernel: usize, other: usize) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![kernel];
        while let Some(kernel) = open.pop() {
            if kernel == other {
                return true;
            }
            if seen.insert(kernel) {
                open.extend(&self.earlier[kernel]);
            }
        }
        false
    }

    /// The plan in an order that needs little memory.
    pub(super) fn best(self) -> Plan {
        let orders = [self.frugal(), self.recorded()];
        let plans = orders.iter().map(|order| self.finished(order));
        plans.min_by_key(memory::peak).unwrap_or_default()
    }

    /// The plan in an order that a caller chooses: it is given the kernels that may run next, and says which.
    pub(super) fn chosen(self, choose: &mut dyn FnMut(&[usize]) -> usize) -> Plan {
        let order = self.walk(|ready| ready[choose(ready)]);
        self.finished(&order)
    }

    /// The order in which the last node of each kernel was recorded, as far as it may be.
    fn recorded(&self) -> Vec<usize> {
        let last = |k: usize| self.plan.kernels[k].nodes.last().copied().unwrap_or_default();
        self.walk(|ready| ready.iter().copied().min_by_key(|&k| (last(k), k)).unwrap_or_default())
    }

    /// The order that needs the least memory among those that a beam search comes across: of all ways to run the first few
    /// kernels, it goes on with those of the lowest peak, and of these with those that hold the least.
    fn frugal(&self) -> Vec<usize> {
        let costs = Costs::new(self);
        let width = (BEAM / self.plan.kernels.len().max(1)).clamp(1, WIDEST_BEAM);
        let mut beam = vec![Partial::new(self, &costs)];
        for _ in 0..self.plan.kernels.len() {
            let mut next: Vec<(usize, usize, usize, usize)> = Vec::new();
            for (at, partial) in beam.iter().enumerate() {
                for &kernel in &partial.ready {
                    let (peak, alive) = partial.after(kernel, &costs);
                    next.push((peak, alive, kernel, at));
                }
            }
            next.sort_unstable();
            let mut seen: HashSet<u64> = HashSet::new();
            let mut wider = Vec::with_capacity(width);
            for (_, _, kernel, at) in next {
                // The same kernels in another order leave the same to be done.
                if wider.len() < width && seen.insert(beam[at].mark ^ costs.marks[kernel]) {
                    wider.push(beam[at].with(kernel, &costs));
                }
            }
            beam = wider;
        }
        beam.into_iter().next().map(|partial| partial.order).unwrap_or_default()
    }

    /// Kernels in an order that respects what must run earlier; `choose` picks one of those that may run.
    fn walk(&self, mut choose: impl FnMut(&[usize]) -> usize) -> Vec<usize> {
        let count = self.plan.kernels.len();
        let mut waits: Vec<usize> = self.earlier.iter().map(Vec::len).collect();
        let mut later: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (kernel, earlier) in self.earlier.iter().enumerate() {
            earlier.iter().for_each(|&e| later[e].push(kernel));
        }
        let mut ready: Vec<usize> = (0..count).filter(|&k| waits[k] == 0).collect();
        let mut order = Vec::with_capacity(count);
        while !ready.is_empty() {
            let next = choose(&ready);
            ready.retain(|&kernel| kernel != next);
            order.push(next);
            for &kernel in &later[next] {
                waits[kernel] -= 1;
                if waits[kernel] == 0 {
                    ready.push(kernel);
                }
            }
        }
        assert_eq!(order.len(), count, "kernels wait for each other");
        order
    }

    fn arranged(&self, order: &[usize]) -> Plan {
        let Plan { buffers, kernels, outputs } = &self.plan;
        let kernels = order.iter().map(|&kernel| kernels[kernel].clone()).collect();
        Plan { buffers: buffers.clone(), kernels, outputs: outputs.clone() }
    }

    fn finished(&self, order: &[usize]) -> Plan {
        let mut plan = self.arranged(order);
        in_place::update_in_place(&mut plan, &self.donated);
        plan
    }
}

/// The first kernels of an order, and what they leave behind.
#[derive(Clone)]
struct Partial {
    order: Vec<usize>,
    /// Kernels that may run next.
    ready: Vec<usize>,
    /// For each kernel, how many others it still waits for.
    waits: Vec<u32>,
    /// For each buffer, how many kernels will still read it.
    readers: Vec<u32>,
    alive: usize,
    peak: usize,
    /// The kernels that have run, as the exclusive or of their marks.
    mark: u64,
}

/// What each kernel makes and reads.
struct Costs {
    /// The kernels that wait for each kernel.
    later: Vec<Vec<usize>>,
    /// Bytes that each kernel makes.
    made: Vec<usize>,
    /// The buffers that it reads, each once.
    reads: Vec<Vec<BufferId>>,
    /// The buffers that it may write over.
    overwritable: Vec<Vec<BufferId>>,
    /// The bytes that are free once a buffer has been read for the last time.
    freed: Vec<usize>,
    /// A random number for each kernel: sets of kernels differ in the exclusive or of theirs.
    marks: Vec<u64>,
}

impl Costs {
    fn new(unordered: &Unordered) -> Costs {
        let Plan { buffers, kernels, outputs } = &unordered.plan;
        let plan = &unordered.plan;
        let mut later = vec![Vec::new(); kernels.len()];
        for (kernel, earlier) in unordered.earlier.iter().enumerate() {
            earlier.iter().for_each(|&e| later[e].push(kernel));
        }
        let distinct = |mut ids: Vec<BufferId>| {
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let stays = |b: BufferId| buffers[b].input.is_some() || outputs.contains(&b);
        let reused = |k: usize| -> Vec<BufferId> {
            let alike =
                |b: BufferId, o: BufferId| (buffers[o].dtype, buffers[o].len) == (buffers[b].dtype, buffers[b].len);
            let mut left: Vec<BufferId> = kernels[k].outputs.iter().map(|store| store.buffer).collect();
            let mut found = Vec::new();
            for buffer in in_place::overwritable(&kernels[k]) {
                if let Some(at) = left.iter().position(|&o| alike(buffer, o)) {
                    left.remove(at);
                    found.push(buffer);
                }
            }
            found
        };
        let mut random = memory::Xorshift(0x9e37_79b9_7f4a_7c15);
        Costs {
            later,
            made: (0..kernels.len())
                .map(|k| {
                    let made: usize = kernels[k].outputs.iter().map(|store| plan.bytes(store.buffer)).sum();
                    let over: usize = unordered.overwritten(k).iter().map(|&b| plan.bytes(b)).sum();
                    made.saturating_sub(over)
                })
                .collect(),
            reads: kernels.iter().map(|k| distinct(k.loads.iter().map(|load| load.buffer).collect())).collect(),
            overwritable: (0..kernels.len()).map(reused).collect(),
            freed: (0..buffers.len()).map(|b| if stays(b) { 0 } else { plan.bytes(b) }).collect(),
            marks: kernels.iter().map(|_| random.next()).collect(),
        }
    }
}

impl Partial {
    fn new(unordered: &Unordered, costs: &Costs) -> Partial {
        let waits: Vec<u32> = unordered.earlier.iter().map(|earlier| earlier.len() as u32).collect();
        let mut readers = vec![0; unordered.plan.buffers.len()];
        costs.reads.iter().flatten().for_each(|&buffer| readers[buffer] += 1);
        let ready = (0..waits.len()).filter(|&kernel| waits[kernel] == 0).collect();
        Partial { order: Vec::new(), ready, waits, readers, alive: 0, peak: 0, mark: 0 }
    }

    /// Peak and bytes alive once a kernel has run next.
    fn after(&self, kernel: usize, costs: &Costs) -> (usize, usize) {
        let is_last = |b: &&BufferId| self.readers[**b] == 1;
        let bytes = |b: &BufferId| costs.freed[*b];
        let freed: usize = costs.reads[kernel].iter().filter(is_last).map(bytes).sum();
        let reused: usize = costs.overwritable[kernel].iter().filter(is_last).map(bytes).sum();
        let most = self.alive + costs.made[kernel] - reused.min(costs.made[kernel]);
        (self.peak.max(most), (most + reused.min(costs.made[kernel])).saturating_sub(freed))
    }

    fn with(&self, kernel: usize, costs: &Costs) -> Partial {
        let (peak, alive) = self.after(kernel, costs);
        let mut next = Partial { peak, alive, mark: self.mark ^ costs.marks[kernel], ..self.clone() };
        next.order.push(kernel);
        next.ready.retain(|&other| other != kernel);
        costs.reads[kernel].iter().for_each(|&buffer| next.readers[buffer] -= 1);
        for &other in &costs.later[kernel] {
            next.waits[other] -= 1;
            if next.waits[other] == 0 {
                next.ready.push(other);
            }
        }
        next
    }
}

/// The kernel that writes each buffer.
fn makers(plan: &Plan) -> HashMap<BufferId, usize> {
    let stores =
        plan.kernels.iter().enumerate().flat_map(|(k, kernel)| kernel.outputs.iter().map(move |s| (s.buffer, k)));
    stores.collect()
}
