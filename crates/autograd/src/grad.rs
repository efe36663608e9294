//! The walk from a loss to its targets.

use crate::rules;
use foldhash::fast::FixedState;
use gradus_tensor::graph::{NodeRef, Scope, is_profiled};
use gradus_tensor::{Error, ErrorKind, Result, Tensor};
use std::collections::{HashMap, HashSet};
use std::panic::Location;

/// The gradients of a loss (one number) with respect to each target, in order.
///
/// Targets are parameters, [`tracked`](Tensor::tracked) tensors, or any tensor that the loss was computed from. Of these
/// last, results are freed of their graphs when they are read, and when many are pending, also on other threads: what is in
/// use for long is better tracked. The gradients are tensors like any other: their gradients can be taken too.
///
/// # Errors
/// If the loss is not one number, a target is not reached, a gradient would flow through an op without one, a graph that may
/// have led to a target is gone (a parameter was updated since, or an untracked tensor was read), or the loss carries an
/// error. [`Grad`] has options.
#[track_caller]
pub fn grad<'a>(loss: &Tensor, targets: impl IntoIterator<Item = &'a Tensor>) -> Result<Vec<Tensor>> {
    Grad::of(loss).wrt(targets)
}

/// The value of `f` at `inputs`, and its gradients with respect to them.
///
/// ```
/// use gradus_autograd::value_and_grad;
/// use gradus_tensor::{Device, Tensor};
/// let x = Tensor::new([3.0, 4.0], &Device::cpu());
/// let (norm, gradients) = value_and_grad(|x| x[0].norm(..), &[x])?;
/// assert_eq!(norm.item::<f32>()?, 5.0);
/// assert_eq!(gradients[0].to_vec::<f32>()?, [0.6, 0.8]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// # Errors
/// As [`grad`].
#[track_caller]
pub fn value_and_grad(f: impl FnOnce(&[Tensor]) -> Tensor, inputs: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::tracked).collect();
    let value = f(&leaves);
    let gradients = grad(&value, &leaves)?;
    Ok((value, gradients))
}

/// Options for [`grad`].
///
/// ```
/// use gradus_autograd::Grad;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let (x, unused) = (Tensor::new([1.0, 2.0], &device).tracked(), Tensor::new([5.0], &device).tracked());
/// let y = &x * 3.0;
/// let gradients = Grad::of(&y).cotangent(&Tensor::new([1.0, 10.0], &device)).allow_unused().wrt([&x, &unused])?;
/// assert_eq!(gradients[0].to_vec::<f32>()?, [3.0, 30.0]);
/// assert_eq!(gradients[1].to_vec::<f32>()?, [0.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Grad {
    output: Tensor,
    cotangent: Option<Tensor>,
    allow_unused: bool,
}

impl Grad {
    /// Gradients of `output`.
    pub fn of(output: &Tensor) -> Grad {
        Grad { output: output.clone(), cotangent: None, allow_unused: false }
    }

    /// The gradient of Σ `output` · `cotangent` instead of a single number's: a vector-Jacobian product.
    pub fn cotangent(mut self, cotangent: &Tensor) -> Grad {
        self.cotangent = Some(cotangent.clone());
        self
    }

    /// Targets that the output does not depend on get zeros instead of an error. (Of one that it may depend on through a graph that
    /// is gone, nobody knows: that stays an error.)
    pub fn allow_unused(mut self) -> Grad {
        self.allow_unused = true;
        self
    }

    /// The gradients with respect to `targets`, in order.
    ///
    /// # Errors
    /// As [`grad`].
    #[track_caller]
    pub fn wrt<'a>(self, targets: impl IntoIterator<Item = &'a Tensor>) -> Result<Vec<Tensor>> {
        let targets: Vec<Tensor> = targets.into_iter().cloned().collect();
        let output = NodeRef::new(&self.output)?;
        let seed = self.seed()?;
        let nodes = targets.iter().map(NodeRef::new).collect::<Result<Vec<_>>>()?;
        for (index, target) in targets.iter().enumerate() {
            if !target.dtype().is_float() {
                let name = target_name(&NodeRef::new(target)?, index);
                let op = format!("the target {name}, which is of dtype {}", target.dtype());
                return Err(Error::new("grad", ErrorKind::NotDifferentiable { op, at: "this call".into() }));
            }
        }
        let walk = Walk::new(output.clone(), &nodes, Location::caller())?;
        let cotangents = walk.backward(seed)?;
        targets
            .iter()
            .zip(nodes)
            .enumerate()
            .map(|(index, (target, node))| match cotangents.get(&node.id()) {
                Some(cotangent) => Ok(cotangent.clone()),
                None if self.allow_unused => Ok(target.zeros_like()),
                None => Err(walk.unreached(&node, index)),
            })
            .collect()
    }

    #[track_caller]
    fn seed(&self) -> Result<Tensor> {
        let shape = self.output.shape().clone();
        match &self.cotangent {
            None if self.output.numel() == 1 => Ok(self.output.ones_like()),
            None => Err(Error::new("grad", ErrorKind::NotScalar { shape })),
            Some(cotangent) if *cotangent.shape() != shape => {
                let (what, found) = ("the cotangent", cotangent.shape().clone());
                Err(Error::new("grad", ErrorKind::Shape { what, expected: shape, found }))
            }
            Some(cotangent) if cotangent.dtype() != self.output.dtype() => {
                let (left, right) = (self.output.dtype(), cotangent.dtype());
                Err(Error::new("grad", ErrorKind::DTypes { left, right }))
            }
            Some(cotangent) => Ok(cotangent.clone()),
        }
    }
}

/// The cotangents of `targets`, given that of `output`; `None` where none flows.
pub(crate) fn pull_back(
    output: &Tensor,
    cotangent: &Tensor,
    targets: &[&Tensor],
    here: &'static Location<'static>,
) -> Result<Vec<Option<Tensor>>> {
    let nodes = targets.iter().map(|target| NodeRef::new(target)).collect::<Result<Vec<_>>>()?;
    let walk = Walk::new(NodeRef::new(output)?, &nodes, here)?;
    let found = walk.backward(cotangent.clone())?;
    Ok(nodes.iter().map(|node| found.get(&node.id()).cloned()).collect())
}

/// The part of the graph between an output and its targets.
struct Walk {
    output: NodeRef,
    targets: Ids,
    /// Nodes on a path from a target to the output, with their operands, in topological order.
    between: Vec<(NodeRef, Vec<NodeRef>)>,
    /// The ids of these nodes.
    useful: Ids,
    /// Cells that were assigned since the output was recorded.
    updated: Ids,
    /// Which parameter's assignment cut the first graph that was cut by one.
    cut: Option<Error>,
    /// The line that asks for gradients.
    here: &'static Location<'static>,
}

/// A set of ids, which need no protection from an attacker.
type Ids = HashSet<u64, FixedState>;

impl Walk {
    /// # Errors
    /// If a graph that is gone may have led to a target: its gradient would not be whole.
    fn new(output: NodeRef, targets: &[NodeRef], here: &'static Location<'static>) -> Result<Walk> {
        let (between, useful, updated) = (Vec::new(), Ids::default(), Ids::default());
        let ids = targets.iter().map(NodeRef::id).collect();
        let mut walk = Walk { output: output.clone(), targets: ids, between, useful, updated, cut: None, here };
        let (mut seen, mut reached) = (Ids::default(), Vec::new());
        let mut stack = vec![output];
        while let Some(node) = stack.pop() {
            if !seen.insert(node.id()) {
                continue;
            }
            if node.is_updated() {
                walk.updated.extend(node.cell_id());
            }
            // A target may lie behind another one, so the walk goes on behind targets too.
            let operands = if node.stops_gradient() { Ok(Vec::new()) } else { node.operands() };
            let operands = match operands {
                Ok(operands) => operands,
                Err(error) if targets.iter().any(|target| node.may_have_led_to(target)) => return Err(error),
                Err(error) => {
                    if matches!(error.kind(), ErrorKind::ParameterUpdated { .. }) {
                        walk.cut.get_or_insert(error);
                    }
                    Vec::new()
                }
            };
            stack.extend(operands.iter().cloned());
            reached.push((node, operands));
        }
        // Ids grow along edges, so operands are settled before their readers.
        reached.sort_unstable_by_key(|(node, _)| node.id());
        for (node, operands) in reached {
            if walk.targets.contains(&node.id()) || operands.iter().any(|o| walk.useful.contains(&o.id())) {
                walk.useful.insert(node.id());
                walk.between.push((node, operands));
            }
        }
        if walk.between.iter().any(|(node, _)| node.was_evaluated()) {
            warn_once();
        }
        Ok(walk)
    }

    /// Cotangents of the targets, by id.
    fn backward(&self, seed: Tensor) -> Result<HashMap<u64, Tensor>> {
        let mut cotangents: HashMap<u64, Tensor, FixedState> = HashMap::default();
        cotangents.insert(self.output.id(), seed);
        let (mut found, is_profiled) = (HashMap::new(), is_profiled());
        for (node, operands) in self.between.iter().rev() {
            let Some(cotangent) = cotangents.remove(&node.id()) else {
                continue;
            };
            if self.targets.contains(&node.id()) {
                found.insert(node.id(), cotangent.clone());
            }
            let wanted: Vec<bool> = operands.iter().map(|o| self.useful.contains(&o.id())).collect();
            if !wanted.contains(&true) {
                continue;
            }
            // A gradient's time is that of the module whose node it is the gradient of.
            let _scope = if is_profiled { Scope::of_node(node.id()) } else { None };
            let gradients = rules::backward(node, operands, &wanted, &cotangent);
            let gradients = gradients.map_err(|kind| Error::located("grad", kind, self.here))?;
            for (operand, gradient) in operands.iter().zip(gradients) {
                let Some(gradient) = gradient else {
                    continue;
                };
                if let Some(error) = gradient.error() {
                    return Err(error.clone());
                }
                let sum = match cotangents.remove(&operand.id()) {
                    Some(earlier) => earlier + gradient,
                    None => gradient,
                };
                cotangents.insert(operand.id(), sum);
            }
        }
        Ok(found)
    }

    /// Why a target has no gradient.
    fn unreached(&self, target: &NodeRef, index: usize) -> Error {
        if target.is_updated() || target.cell_id().is_some_and(|id| self.updated.contains(&id)) {
            let name = target_name(target, index);
            return Error::located("grad", ErrorKind::ParameterUpdated { name }, self.here);
        }
        match &self.cut {
            Some(error) => error.clone(),
            None => Error::located("grad", ErrorKind::Unreached { target: target_name(target, index) }, self.here),
        }
    }
}

/// A target in words: the parameter's name, or its position.
fn target_name(target: &NodeRef, index: usize) -> String {
    match target.parameter() {
        Some(name) if !name.is_empty() => name,
        _ => format!("target {index}"),
    }
}

fn warn_once() {
    static WARNED: std::sync::Once = std::sync::Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "a loss was read before its gradient was taken: the forward pass runs again. Take gradients (or step) first, then read the loss"
        );
    });
}
