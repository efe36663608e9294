//! Faulty rewritings of graphs, as a planner might do them before it puts nodes into kernels.

use crate::support::Case;
use gradus_ir::op::{Op, UnaryOp};
use gradus_ir::{Graph, Node, NodeId};

/// Numbers of the user taken for the library's, as they were in another run.
pub(crate) fn numbers_folded(case: &Case) -> Vec<Graph> {
    each_node(case, |nodes, id| match nodes[id].op {
        Op::Scalar(slot) => {
            nodes[id].op = Op::Const(case.scalars[slot]);
            Some(())
        }
        _ => None,
    })
}

/// Two random arrays of one type made one.
pub(crate) fn draws_merged(case: &Case) -> Vec<Graph> {
    let is_draw = |node: &Node| matches!(node.op, Op::Random(_));
    each_node(case, |nodes, id| {
        let same = nodes[..id].iter().position(|node| is_draw(node) && node.ty == nodes[id].ty)?;
        is_draw(&nodes[id]).then(|| nodes[id].op = nodes[same].op.clone())
    })
}

/// A conversion and the one back taken for nothing.
pub(crate) fn casts_dropped(case: &Case) -> Vec<Graph> {
    each_node(case, |nodes, id| {
        let first = *nodes[id].operands.first()?;
        let from = *nodes[first].operands.first()?;
        let is_cast = |id: NodeId| nodes[id].op == Op::Cast;
        let is_back = is_cast(id) && is_cast(first) && nodes[from].ty == nodes[id].ty;
        is_back.then(|| nodes[id] = same(from, &nodes[id]))
    })
}

/// Barriers taken for what they hold back.
pub(crate) fn barriers_dropped(case: &Case) -> Vec<Graph> {
    each_node(case, |nodes, id| {
        let value = *nodes[id].operands.first()?;
        (nodes[id].op == Op::Barrier).then(|| nodes[id] = same(value, &nodes[id]))
    })
}

/// A map applied to what is padded, zeros and all, and not before.
pub(crate) fn padding_exchanged(case: &Case) -> Vec<Graph> {
    exchanged(case, |op| matches!(op, Op::Pad(_)))
}

/// A map applied to what is reduced, and not before.
pub(crate) fn reduction_exchanged(case: &Case) -> Vec<Graph> {
    exchanged(case, |op| matches!(op, Op::Reduce(reduce, _) if !reduce.gives_index()))
}

/// All inputs overwritten as if they were donated.
pub(crate) fn all_donated(case: &Case) -> Vec<Graph> {
    let mut graph = case.graph.clone();
    graph.donated.fill(true);
    if graph == case.graph { Vec::new() } else { vec![graph] }
}

/// A map that only such an op reads, and this op, each in the other's place.
fn exchanged(case: &Case, fits: impl Fn(&Op) -> bool) -> Vec<Graph> {
    each_node(case, |nodes, id| {
        let map = *nodes[id].operands.first()?;
        let readers = nodes.iter().flat_map(|node| &node.operands).filter(|&&operand| operand == map).count();
        let is_only = readers == 1 && !case.graph.outputs.contains(&map);
        let is_map = matches!(nodes[map].op, Op::Unary(op) if op != UnaryOp::Neg);
        if !(is_only && is_map && fits(&nodes[id].op)) {
            return None;
        }
        (nodes[map].op, nodes[id].op) = (nodes[id].op.clone(), nodes[map].op.clone());
        nodes[map].ty = nodes[id].ty.clone();
        Some(())
    })
}

/// A node that gives another one back, in the place of one of the same type.
fn same(other: NodeId, node: &Node) -> Node {
    Node { op: Op::Reshape, operands: [other].as_slice().into(), ty: node.ty.clone() }
}

/// A graph for each node that the fault can be planted in.
fn each_node(case: &Case, plant: impl Fn(&mut [Node], NodeId) -> Option<()>) -> Vec<Graph> {
    let mutant = |id: NodeId| {
        let mut nodes = case.graph.nodes().to_vec();
        plant(&mut nodes, id)?;
        let mut graph = Graph::new();
        for Node { op, operands, ty } in nodes {
            graph.push(op, operands, ty);
        }
        (graph.outputs, graph.donated) = (case.graph.outputs.clone(), case.graph.donated.clone());
        Some(graph)
    };
    (0..case.graph.nodes().len()).filter_map(mutant).collect()
}
