//! From a graph to a plan.

mod in_place;
mod lower;

use crate::{Graph, Plan};

/// The plan of a graph: one kernel per primitive; views are part of loads, and buffers are updated in place where
/// their last reader is the writer.
pub fn plan(graph: &Graph) -> Plan {
    let mut plan = lower::lower(graph);
    in_place::update_in_place(&mut plan, &graph.donated);
    plan
}
