//! From a graph to a plan: simplified, put into kernels, in an order, updated in place.

mod fuse;
mod in_place;
mod memory;
mod order;
mod simplify;
mod table;

pub use memory::{Lifetime, Places, PlanMemory, alive_at_once, lifetimes, share_places};
pub use table::KernelSummary;

use crate::{Graph, Plan, Target};
use order::Unordered;

/// The plan of a graph for a target: several nodes to a kernel, views as part of loads, and buffers updated in place where
/// their last reader is the writer.
pub fn plan(graph: &Graph, target: &Target) -> Plan {
    unordered(graph, target).best()
}

/// The plan that gives each primitive a kernel of its own: slower, and the same numbers, to find faults in fusion.
pub fn plan_unfused(graph: &Graph, target: &Target) -> Plan {
    let nothing_changed = simplify::Simplified::unchanged(graph);
    Unordered::new(fuse::fuse(&nothing_changed, target, false), &graph.donated).best()
}

/// The plan of a graph with its kernels in an order of the caller's: `choose` is given the kernels that may run next, and
/// says which of them does. For those who study orders.
pub fn plan_in_order(graph: &Graph, target: &Target, choose: &mut dyn FnMut(&[usize]) -> usize) -> Plan {
    unordered(graph, target).chosen(choose)
}

fn unordered(graph: &Graph, target: &Target) -> Unordered {
    Unordered::new(fuse::fuse(&simplify::simplify(graph), target, true), &graph.donated)
}
