//! Making a failing case small, and showing it.

use crate::support::Case;
use gradus_cpu::reference::Tolerance;
use gradus_ir::op::{Op, Type};
use gradus_ir::{Data, Element, Graph, Node, NodeId, Number, with_dtype};
use std::fmt;

/// Tries smaller cases while one of them fails too.
pub(crate) fn shrink(mut case: Case, fails: impl Fn(&Case) -> bool) -> Case {
    while let Some(smaller) = smaller(&case).into_iter().find(|smaller| size(smaller) < size(&case) && fails(smaller)) {
        case = smaller;
    }
    case
}

/// What shrinking makes smaller, the most important first: ops, nodes, outputs, donated inputs, elements.
fn size(case: &Case) -> [usize; 5] {
    let nodes = case.graph.nodes();
    let ops = nodes.iter().filter(|node| !matches!(node.op, Op::Input(_))).count();
    let donated = case.graph.donated.iter().filter(|&&donated| donated).count();
    let elements = nodes.iter().map(|node| node.ty.shape.numel()).sum();
    [ops, nodes.len(), case.graph.outputs.len(), donated, elements]
}

/// The parts of a case, free to be edited.
#[derive(Clone)]
struct Parts {
    nodes: Vec<Node>,
    outputs: Vec<NodeId>,
    donated: Vec<bool>,
    inputs: Vec<Data>,
    scalars: Vec<Number>,
}

fn smaller(case: &Case) -> Vec<Case> {
    let parts = Parts {
        nodes: case.graph.nodes().to_vec(),
        outputs: case.graph.outputs.clone(),
        donated: case.graph.donated.clone(),
        inputs: case.inputs.clone(),
        scalars: case.scalars.clone(),
    };
    let mut edited = Vec::new();
    let mut edit = |change: &dyn Fn(&mut Parts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        edited.push(parts);
    };
    for &output in &parts.outputs {
        edit(&|p| p.outputs = vec![output]);
    }
    for (i, &output) in parts.outputs.iter().enumerate() {
        edit(&|p| {
            p.outputs.remove(i);
        });
        for &operand in &parts.nodes[output].operands {
            edit(&|p| p.outputs[i] = operand);
        }
    }
    let values = values(case);
    for (id, node) in parts.nodes.iter().enumerate() {
        if let (Some(values), false) = (&values, matches!(node.op, Op::Input(_))) {
            edit(&|p| {
                p.inputs.push(values[id].clone());
                p.donated.push(false);
                p.nodes[id] =
                    Node { op: Op::Input(p.inputs.len() - 1), operands: [].as_slice().into(), ty: node.ty.clone() };
            });
        }
        for &operand in node.operands.iter().filter(|&&operand| parts.nodes[operand].ty == node.ty) {
            edit(&|p| {
                let readers = p.nodes.iter_mut().flat_map(|node| node.operands.iter_mut()).chain(&mut p.outputs);
                readers.filter(|read| **read == id).for_each(|read| *read = operand);
            });
        }
    }
    for slot in 0..parts.donated.len() {
        edit(&|p| p.donated[slot] = false);
    }
    edited.into_iter().filter_map(rebuilt).collect()
}

/// The value of every node by the reference.
fn values(case: &Case) -> Option<Vec<Data>> {
    let mut case = case.clone();
    case.graph.outputs = (0..case.graph.nodes().len()).collect();
    let arrays = case.reference(Tolerance::CPU).ok()?;
    let data = arrays.iter().map(|array| {
        with_dtype!(array.ty.dtype, T => <T as Element>::wrap(
            array.values.iter().map(|&x| Element::from_number(Number::Float(x))).collect()
        ))
    });
    Some(data.collect())
}

/// The case without what its outputs do not need, if it is valid.
fn rebuilt(parts: Parts) -> Option<Case> {
    let Parts { nodes, outputs, donated, inputs, scalars } = parts;
    let mut needed = vec![false; nodes.len()];
    outputs.iter().for_each(|&id| needed[id] = true);
    for id in (0..nodes.len()).rev() {
        if needed[id] {
            nodes[id].operands.iter().for_each(|&operand| needed[operand] = true);
        }
    }
    let mut case = Case { scalars, ..Case::default() };
    let mut renamed = vec![usize::MAX; nodes.len()];
    for (id, Node { op, operands, ty: Type { shape, dtype } }) in
        nodes.into_iter().enumerate().filter(|(id, _)| needed[*id])
    {
        renamed[id] = if let Op::Input(slot) = op {
            let input = case.input(shape, inputs[slot].clone());
            case.graph.donated[case.inputs.len() - 1] = donated[slot];
            input
        } else {
            let operands: Vec<NodeId> = operands.iter().map(|&operand| renamed[operand]).collect();
            case.graph.add(op, &operands, Type { shape, dtype }).ok()?
        };
    }
    case.graph.outputs = outputs.iter().map(|&id| renamed[id]).collect();
    (!case.graph.outputs.is_empty()).then_some(case)
}

/// A case as text: one line per node, inputs with their data.
pub(crate) struct Listing<'a>(pub(crate) &'a Case);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { graph, inputs, scalars } = self.0;
        let Graph { outputs, donated, .. } = graph;
        for (id, Node { op, operands, ty }) in graph.nodes().iter().enumerate() {
            let operands: String = operands.iter().map(|operand| format!(" %{operand}")).collect();
            write!(f, "%{id} = {op:?}{operands}: {}{}", ty.dtype, ty.shape)?;
            if let Op::Input(slot) = op {
                let data = if inputs[*slot].len() <= 32 { format!("{:?}", inputs[*slot]) } else { "…".into() };
                write!(f, "{} = {data}", if donated[*slot] { ", donated" } else { "" })?;
            }
            if let Op::Scalar(slot) | Op::Random(slot) = op {
                write!(f, " = {}", scalars[*slot])?;
            }
            writeln!(f)?;
        }
        write!(f, "outputs {outputs:?}")
    }
}
