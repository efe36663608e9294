//! Trading time for memory: a part of the forward pass that the backward pass computes again.

use crate::Outputs;
use crate::grad::pull_back;
use gradus_ir::op::Op;
use gradus_tensor::graph::{self, NodeRef, Recipe, apply, recorded_at, with_rule};
use gradus_tensor::{GradientRule, Result, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::panic::Location;
use std::sync::Arc;

/// `f(inputs)`, of which only what comes in and what comes out is kept for a later [`grad`](crate::grad): the gradient
/// computes what lies between again, once it gets there. A chain of n blocks, each in a checkpoint of its own, needs the
/// memory of n outputs and of the inside of one block.
///
/// Gradients are those without the checkpoint, to any order, also with respect to parameters and other tensors that `f`
/// captures. `f` is called once: what it recorded is recorded again, with the same random numbers. Checkpoints can be
/// nested, and several outputs are checkpoints of their own: what two of them share is computed again for each.
///
/// Tensors that `f` reads the values of or gives to the outside are kept in any case. So is the inside under
/// [`no_grad`](gradus_tensor::no_grad) and where nothing has a gradient: there is nothing to save.
///
/// ```
/// use gradus_autograd::{checkpoint, grad};
/// use gradus_tensor::{Cell, Device, Key, Tensor};
/// let device = Device::cpu();
/// let weights: Vec<Cell> = (0..4).map(|i| Cell::parameter(Tensor::randn([8, 8], Key::new(i), &device))).collect();
/// let mut x = Tensor::ones([2, 8], &device);
/// for weight in &weights {
///     x = checkpoint(|x| x[0].matmul(&weight.tensor()).gelu().softmax(-1), &[x]);
/// }
/// let parameters: Vec<Tensor> = weights.iter().map(Cell::tensor).collect();
/// let gradients = grad(&x.square().sum(..), &parameters)?;
/// # assert_eq!(gradients.len(), 4);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// Errors of `f` are in its outputs; those of its gradient are errors of `grad`.
#[track_caller]
pub fn checkpoint<R: Outputs>(f: impl FnOnce(&[Tensor]) -> R, inputs: &[Tensor]) -> R {
    let (since, location) = (graph::next_id(), Location::caller());
    f(inputs).map_tensors(&mut |output| with_recomputation(output, since, location))
}

/// An output whose gradient computes everything again that was recorded since a node.
fn with_recomputation(output: Tensor, since: u64, location: &'static Location<'static>) -> Tensor {
    let node = match NodeRef::new(&output) {
        Ok(node) if node.ty().dtype.is_float() && !node.stops_gradient() => node,
        _ => return output,
    };
    let (program, inputs) = Program::of(node, since);
    if program.steps.is_empty() || !inputs.iter().any(|input| input.ty().dtype.is_float()) {
        return output;
    }
    let inputs: Vec<Tensor> = inputs.iter().map(NodeRef::tensor).collect();
    recorded_at(location, || with_rule(&output, &inputs, Arc::new(Recompute { program, location })))
}

/// A part of the graph, as a function that can be recorded again. It holds no nodes, so no values either.
struct Program {
    steps: Vec<Step>,
}

/// An op, and the places of its operands: inputs come first, then steps.
struct Step {
    recipe: Recipe,
    operands: Vec<usize>,
}

impl Program {
    /// What leads to `output` and was recorded since a node, and the nodes outside of it that it reads.
    fn of(output: NodeRef, since: u64) -> (Program, Vec<NodeRef>) {
        let mut inside: BTreeMap<u64, (NodeRef, Vec<NodeRef>)> = BTreeMap::new();
        let mut inputs: BTreeMap<u64, NodeRef> = BTreeMap::new();
        let mut stack = vec![output];
        while let Some(node) = stack.pop() {
            let id = node.id();
            if inside.contains_key(&id) || inputs.contains_key(&id) {
                continue;
            }
            // A cell may be a target of its own. What has lost its operands has a value.
            let outside = id < since || node.cell_id().is_some() || matches!(node.op(), Op::Input(_));
            match node.operands() {
                Ok(operands) if !outside => {
                    stack.extend(operands.iter().cloned());
                    inside.insert(id, (node, operands));
                }
                _ => drop(inputs.insert(id, node)),
            }
        }
        let places: HashMap<u64, usize> = inputs.keys().chain(inside.keys()).copied().zip(0..).collect();
        let step = |(node, operands): &(NodeRef, Vec<NodeRef>)| Step {
            recipe: node.recipe(),
            operands: operands.iter().map(|operand| places[&operand.id()]).collect(),
        };
        (Program { steps: inside.values().map(step).collect() }, inputs.into_values().collect())
    }

    /// Records it again on other inputs; gives the output.
    fn record(&self, inputs: &[Tensor]) -> Result<Tensor> {
        // Nodes, not tensors: an evaluation on the way keeps what tensors hold.
        let mut nodes = inputs.iter().map(NodeRef::new).collect::<Result<Vec<_>>>()?;
        let mut output = None;
        for Step { recipe, operands } in &self.steps {
            let operands: Vec<Tensor> = operands.iter().map(|&place| nodes[place].tensor()).collect();
            let tensor = recipe.record(&operands.iter().collect::<Vec<_>>());
            nodes.push(NodeRef::new(&tensor)?);
            output = Some(tensor);
        }
        Ok(output.expect("a checkpoint has an inside"))
    }
}

/// The gradient of a program's output with respect to its inputs.
struct Recompute {
    program: Program,
    location: &'static Location<'static>,
}

impl GradientRule for Recompute {
    fn name(&self) -> &str {
        "checkpoint"
    }

    fn backward(
        &self,
        inputs: &[Tensor],
        _output: &Tensor,
        cotangent: &Tensor,
        wanted: &[bool],
    ) -> Vec<Option<Tensor>> {
        // The walk through what is recorded here needs its graph, also inside of `no_grad`.
        let gradients = graph::with_grad(|| {
            // Behind barriers, so that it is neither merged with the forward pass nor done before its time.
            let behind = |input| recorded_at(self.location, || apply(Op::Barrier, &[input, cotangent]));
            let inputs: Vec<Tensor> = inputs.iter().map(behind).collect();
            let output = self.program.record(&inputs)?;
            let targets: Vec<&Tensor> =
                inputs.iter().zip(wanted).filter_map(|(x, &wanted)| wanted.then_some(x)).collect();
            pull_back(&output, cotangent, &targets, self.location)
        });
        let constant = |gradient: Tensor| if graph::is_no_grad() { gradient.detach() } else { gradient };
        match gradients {
            Err(error) => vec![Some(Tensor::build(cotangent.device(), || Err(error))); wanted.len()],
            Ok(gradients) => {
                let mut gradients = gradients.into_iter();
                let next = |&wanted: &bool| if wanted { gradients.next().flatten().map(constant) } else { None };
                wanted.iter().map(next).collect()
            }
        }
    }
}
