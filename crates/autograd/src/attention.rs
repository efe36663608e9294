//! The derivatives of attention: of the output by kernels of its own, of everything else by what attention is composed of.

use crate::grad::pull_back;
use gradus_ir::op::Op;
use gradus_ir::op::attention::{AttentionPart, composed};
use gradus_tensor::graph::{NodeRef, apply, record_graph};
use gradus_tensor::{Result, Tensor};

/// The cotangents of the operands of a part, for those that are wanted; g is the cotangent of the node.
pub(crate) fn backward(
    part: AttentionPart,
    causal: bool,
    operands: &[Tensor],
    node: &NodeRef,
    wanted: &[bool],
    g: &Tensor,
) -> Vec<Option<Tensor>> {
    if part == AttentionPart::Output {
        return of_output(causal, operands, &node.tensor(), wanted, g);
    }
    match of_composed(part, causal, operands, node, wanted, g) {
        Ok(gradients) => gradients,
        Err(error) => vec![Some(Tensor::build(g.device(), || Err(error))); wanted.len()],
    }
}

fn of_output(causal: bool, operands: &[Tensor], output: &Tensor, wanted: &[bool], g: &Tensor) -> Vec<Option<Tensor>> {
    let (numbers, mask) = operands.split_at(3);
    let sums = Op::Attention { part: AttentionPart::LogSumExp, causal };
    let sums = apply(sums, &operands.iter().collect::<Vec<_>>());
    let products = (g * output).sum(-1);
    let inputs: Vec<&Tensor> = numbers.iter().chain([g, &sums, &products]).chain(mask).collect();
    let parts = [AttentionPart::GradQuery, AttentionPart::GradKey, AttentionPart::GradValue];
    let gradient =
        |(part, &wanted): (AttentionPart, &bool)| wanted.then(|| apply(Op::Attention { part, causal }, &inputs));
    parts.into_iter().zip(wanted).map(gradient).chain(mask.iter().map(|_| None)).collect()
}

fn of_composed(
    part: AttentionPart,
    causal: bool,
    operands: &[Tensor],
    node: &NodeRef,
    wanted: &[bool],
    g: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let types: Vec<_> = operands.iter().map(|x| Ok(NodeRef::new(x)?.ty().clone())).collect::<Result<_>>()?;
    let composed = composed(part, causal, &types.iter().collect::<Vec<_>>())?;
    // Each operand is a node of its own, also where two are the same tensor.
    let operands: Vec<Tensor> = operands.iter().map(|x| apply(Op::Barrier, &[x])).collect();
    let output = record_graph(&composed, &operands);
    let targets: Vec<&Tensor> = operands.iter().zip(wanted).filter_map(|(x, &wanted)| wanted.then_some(x)).collect();
    let mut gradients = pull_back(&output, g, &targets, node.location())?.into_iter();
    Ok(wanted.iter().map(|&wanted| if wanted { gradients.next().flatten() } else { None }).collect())
}
