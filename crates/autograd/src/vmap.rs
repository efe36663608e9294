//! Functions of one example, for many at once.

use crate::Outputs;
use crate::batch::{Examples, Mapped, move_axis};
use gradus_ir::op::Type;
use gradus_tensor::graph::{self, NodeRef, placeholder, recorded_at, with_symbolic_draws};
use gradus_tensor::{Error, ErrorKind, Result, Shape, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::panic::Location;

/// `f`, written for one example, of all examples at once: they lie along the first axis of every input, and results along
/// the first axis of every output. [`Vmap`] has options.
///
/// `f` is called once, with tensors that stand for one example each. What it recorded is then recorded again with a batch
/// axis; what does not depend on an example is computed once for all.
///
/// ```
/// use gradus_autograd::{grad, vmap};
/// use gradus_tensor::{Cell, Device, Tensor};
/// let device = Device::cpu();
/// let (a, b) = (Tensor::new([[1.0, 2.0], [3.0, 4.0]], &device), Tensor::new([[1.0, 1.0], [0.0, 1.0]], &device));
/// let dots = vmap(|x| x[0].dot(&x[1]), &[a.clone(), b])?;
/// assert_eq!(dots.to_vec::<f32>()?, [3.0, 4.0]);
///
/// // The gradient of each example's loss.
/// let weight = Cell::parameter(Tensor::new([1.0, -1.0], &device));
/// let gradients = vmap(|x| grad(&x[0].dot(&weight.tensor()).square(), [&weight.tensor()]), &[a])?;
/// assert_eq!(gradients[0].to_vec::<f32>()?, [-2.0, -4.0, -6.0, -8.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// It goes with [`grad`](crate::grad), [`checkpoint`](crate::checkpoint) and itself, inside and outside. Custom gradients are
/// those of each example. Cells are assigned outside: a result that reads an overwritten value is an error.
///
/// # Errors
/// If an input has no first axis, inputs differ in their number of examples or there are none, and those of `f` and of its
/// outputs. To read a value inside of `f` that depends on an example is [`ErrorKind::NoValue`].
#[track_caller]
pub fn vmap<R: Outputs>(f: impl FnOnce(&[Tensor]) -> R, inputs: &[Tensor]) -> Result<R::Checked> {
    Vmap::new().map(f, inputs)
}

/// Whether the random numbers that are drawn inside of a [`vmap`] differ between examples. (Numbers that are drawn on the
/// host, such as [`Tensor::permutation`]'s, are shared in any case.)
///
/// ```
/// use gradus_autograd::{Randomness, Vmap, vmap};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::zeros([2, 3], &Device::cpu());
/// let noisy = |x: &[Tensor]| &x[0] + Tensor::rand([3], Key::new(1), x[0].device());
/// let batch = Tensor::rand([2, 3], Key::new(1), &Device::cpu()).to_vec::<f32>()?;
/// assert_eq!(vmap(noisy, &[x.clone()])?.to_vec::<f32>()?, batch);
/// let same = Vmap::new().randomness(Randomness::Same).map(noisy, &[x])?.to_vec::<f32>()?;
/// assert_eq!(same, [&batch[..3], &batch[..3]].concat());
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Randomness {
    /// Each example has numbers of its own: those that the same key gives in a tensor with a batch axis, as if `f` had been
    /// written for a batch. Their values cannot be read inside.
    #[default]
    Different,
    /// All examples have the numbers that `f` draws for one.
    Same,
}

/// Options for [`vmap`].
///
/// ```
/// use gradus_autograd::{Randomness, Vmap};
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let (columns, shared) = (Tensor::ones([2, 5], &device), Tensor::new([1.0, 10.0], &device));
/// let noisy = |x: &[Tensor]| &x[0] * &x[1] + Tensor::rand([2], Key::new(1), x[0].device());
/// let map = Vmap::new().in_axes([Some(1), None]).out_axes([-1]).randomness(Randomness::Same);
/// assert_eq!(map.map(noisy, &[columns, shared])?.shape()[..], [2, 5]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Vmap {
    in_axes: Option<Vec<Option<isize>>>,
    out_axes: Option<Vec<isize>>,
    randomness: Randomness,
}

impl Vmap {
    /// Examples along the first axis of every input and output, with random numbers of their own.
    pub fn new() -> Vmap {
        Vmap::default()
    }

    /// The axis of each input along which its examples lie (negative ones count from the last), or `None` for what all
    /// examples share.
    pub fn in_axes(mut self, axes: impl IntoIterator<Item = Option<isize>>) -> Vmap {
        self.in_axes = Some(axes.into_iter().collect());
        self
    }

    /// The axis of each output along which results are to lie; negative ones count from the last.
    pub fn out_axes(mut self, axes: impl IntoIterator<Item = isize>) -> Vmap {
        self.out_axes = Some(axes.into_iter().collect());
        self
    }

    /// Whether random numbers differ between examples.
    pub fn randomness(mut self, randomness: Randomness) -> Vmap {
        self.randomness = randomness;
        self
    }

    /// `f` of all examples, as [`vmap`] does it. An output that does not depend on an example is repeated.
    ///
    /// # Errors
    /// As [`vmap`]; also if there is not one of `in_axes` for each input and of `out_axes` for each output, or the tensor
    /// does not have the axis.
    #[track_caller]
    pub fn map<R: Outputs>(&self, f: impl FnOnce(&[Tensor]) -> R, inputs: &[Tensor]) -> Result<R::Checked> {
        let here = Location::caller();
        let located = |kind| Error::located("vmap", kind, here);
        if let Some(error) = inputs.iter().find_map(Tensor::error) {
            return Err(error.clone());
        }
        let axes = self.input_axes(inputs).map_err(located)?;
        let count = example_count(inputs, &axes).map_err(located)?;
        let leading = |(input, axis): (&Tensor, &Option<usize>)| match axis {
            Some(axis) => move_axis(input, *axis, 0),
            None => input.clone(),
        };
        let inputs: Vec<Tensor> = recorded_at(here, || inputs.iter().zip(&axes).map(leading).collect());
        let is_batched: Vec<bool> = axes.iter().map(Option::is_some).collect();
        let own_draws_since = match self.randomness {
            Randomness::Different => graph::next_id(),
            Randomness::Same => u64::MAX,
        };
        let outputs = for_each_example(f, &inputs, &is_batched, Examples { count, own_draws_since })?;
        let Some(axes) = &self.out_axes else {
            return Ok(outputs);
        };
        let mut number = 0;
        let outputs = outputs.map_tensors(&mut |output| {
            number += 1;
            let axis = axes.get(number - 1).copied().unwrap_or(0);
            Tensor::build(output.device(), || {
                let axis = resolve(axis, output.shape()).map_err(located)?;
                Ok(recorded_at(here, || move_axis(&output, 0, axis)))
            })
        });
        if axes.len() != number {
            let (expected, found) = ("one for each output", format!("{axes:?} for {number} outputs"));
            return Err(located(ErrorKind::Argument { argument: "out_axes", expected, found }));
        }
        outputs.checked()
    }

    /// Where the examples of each input lie.
    fn input_axes(&self, inputs: &[Tensor]) -> Result<Vec<Option<usize>>, ErrorKind> {
        let Some(axes) = &self.in_axes else {
            return inputs.iter().map(|input| resolve(0, input.shape()).map(Some)).collect();
        };
        if axes.len() != inputs.len() {
            let (expected, found) = ("one for each input", format!("{axes:?} for {} inputs", inputs.len()));
            return Err(ErrorKind::Argument { argument: "in_axes", expected, found });
        }
        let resolved = axes.iter().zip(inputs);
        resolved.map(|(axis, input)| axis.map(|axis| resolve(axis, input.shape())).transpose()).collect()
    }
}

/// A possibly negative batch axis as a position.
fn resolve(axis: isize, shape: &Shape) -> Result<usize, ErrorKind> {
    if shape.is_empty() {
        let expected = "a batch axis, so at least rank 1".into();
        return Err(ErrorKind::Rank { expected, shape: shape.clone() });
    }
    let position = if axis < 0 { axis.saturating_add(shape.len() as isize) } else { axis };
    let position = usize::try_from(position).ok().filter(|&position| position < shape.len());
    position.ok_or_else(|| ErrorKind::Axis { axis, shape: shape.clone() })
}

/// The number of examples, which all inputs with a batch axis must have.
fn example_count(inputs: &[Tensor], axes: &[Option<usize>]) -> Result<usize, ErrorKind> {
    let extents = inputs.iter().zip(axes).map(|(input, axis)| axis.map(|axis| input.shape()[axis]));
    let mut extents = extents.enumerate().filter_map(|(input, extent)| Some((input, extent?)));
    let (first, expected) = extents.next().ok_or(ErrorKind::NoBatch)?;
    match extents.find(|&(_, found)| found != expected) {
        Some((input, found)) => Err(ErrorKind::Examples { first, expected, input, found }),
        None => Ok(expected),
    }
}

/// `f` of all examples, which lie along the first axis of the batched inputs, and then along that of every output.
pub(crate) fn for_each_example<R: Outputs>(
    f: impl FnOnce(&[Tensor]) -> R,
    inputs: &[Tensor],
    is_batched: &[bool],
    examples: Examples,
) -> Result<R::Checked> {
    let mut batcher = Batcher { examples, mapped: HashMap::new() };
    let mut arguments = Vec::with_capacity(inputs.len());
    for (input, &is_batched) in inputs.iter().zip(is_batched) {
        arguments.push(if is_batched { batcher.example_of(input)? } else { input.clone() });
    }
    let outputs = with_symbolic_draws(examples.own_draws_since, || f(&arguments)).checked()?;
    outputs.map_tensors(&mut |output| Tensor::build(output.device(), || batcher.batch(&output))).checked()
}

/// What nodes of one example became.
struct Batcher {
    examples: Examples,
    /// By id. A node that is not here does not depend on an example.
    mapped: HashMap<u64, Mapped>,
}

impl Batcher {
    /// A tensor that stands for one example of a batched input.
    fn example_of(&mut self, input: &Tensor) -> Result<Tensor> {
        let all = NodeRef::new(input)?;
        let ty = Type { shape: input.shape().without(&[0]), dtype: input.dtype() };
        let example = recorded_at(all.location(), || placeholder(ty, input.device()));
        self.mapped.insert(NodeRef::new(&example)?.id(), Mapped::Batched(all));
        Ok(example)
    }

    /// An output for all examples.
    fn batch(&mut self, output: &Tensor) -> Result<Tensor> {
        let root = NodeRef::new(output)?;
        let mut reached: BTreeMap<u64, (NodeRef, Vec<NodeRef>)> = BTreeMap::new();
        let mut stack = vec![root.clone()];
        while let Some(node) = stack.pop() {
            let id = node.id();
            // What has a value does not depend on an example.
            if node.is_symbolic() && !self.mapped.contains_key(&id) && !reached.contains_key(&id) {
                let operands = node.operands()?;
                stack.extend(operands.iter().cloned());
                reached.insert(id, (node, operands));
            }
        }
        // Ids grow along edges, so operands are settled before their readers.
        for (id, (node, operands)) in reached {
            let mapped: Vec<Mapped> = operands.iter().map(|operand| self.mapped(operand)).collect();
            let mapped = self.examples.batch(&node, &operands, &mapped)?;
            self.mapped.insert(id, mapped);
        }
        Ok(recorded_at(root.location(), || self.mapped(&root).batched(self.examples.count)))
    }

    fn mapped(&self, node: &NodeRef) -> Mapped {
        self.mapped.get(&node.id()).cloned().unwrap_or_else(|| Mapped::Shared(node.clone()))
    }
}
