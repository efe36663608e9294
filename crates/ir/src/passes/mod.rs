//! From a graph to a plan.

mod in_place;
mod lower;

use crate::{Graph, Plan};

/// The plan of a graph: element-wise ops are fused with what reads them, views are part of loads, and buffers are updated in
/// place where their last reader is the writer.
pub fn plan(graph: &Graph) -> Plan {
    planned(graph, true)
}

/// The plan that gives each primitive a kernel of its own: slower, and the same numbers, to find faults in fusion.
pub fn plan_unfused(graph: &Graph) -> Plan {
    planned(graph, false)
}

fn planned(graph: &Graph, fuse: bool) -> Plan {
    let mut plan = lower::lower(graph, fuse);
    in_place::update_in_place(&mut plan, &graph.donated);
    plan
}
