//! The order of kernels: one that needs little memory at once.

use super::fuse::Fused;
use super::in_place;
use super::memory;
use crate::plan::{BufferId, Plan};
use std::collections::{BTreeSet, HashMap, HashSet};

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

    /// The plan in the best of a few orders.
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

    /// Always the kernel that adds the least to what is held.
    fn frugal(&self) -> Vec<usize> {
        let mut readers: HashMap<BufferId, BTreeSet<usize>> = HashMap::new();
        for (k, kernel) in self.plan.kernels.iter().enumerate() {
            kernel.loads.iter().for_each(|load| {
                readers.entry(load.buffer).or_default().insert(k);
            });
        }
        let plan = &self.plan;
        let stays = |b: BufferId| plan.buffers[b].input.is_some() || plan.outputs.contains(&b);
        let mut left = readers;
        let last = |k: usize| plan.kernels[k].nodes.last().copied().unwrap_or_default();
        self.walk(|ready| {
            let growth = |k: usize| {
                let kernel = &plan.kernels[k];
                let made: usize = kernel.outputs.iter().map(|store| plan.bytes(store.buffer)).sum();
                let reused: usize =
                    self.overwritten(k).iter().take(kernel.outputs.len()).map(|&b| plan.bytes(b)).sum();
                let mut read: Vec<BufferId> = kernel.loads.iter().map(|load| load.buffer).collect();
                read.sort_unstable();
                read.dedup();
                let is_last = |b: BufferId| left.get(&b).is_some_and(|readers| readers.len() == 1);
                let freed: usize = read.into_iter().filter(|&b| !stays(b) && is_last(b)).map(|b| plan.bytes(b)).sum();
                made as isize - reused as isize - freed as isize
            };
            let next = ready.iter().copied().min_by_key(|&k| (growth(k), last(k), k)).unwrap_or_default();
            for load in &plan.kernels[next].loads {
                if let Some(readers) = left.get_mut(&load.buffer) {
                    readers.remove(&next);
                }
            }
            next
        })
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

/// The kernel that writes each buffer.
fn makers(plan: &Plan) -> HashMap<BufferId, usize> {
    let stores = plan.kernels.iter().enumerate().flat_map(|(k, kernel)| kernel.outputs.iter().map(move |s| (s.buffer, k)));
    stores.collect()
}
