//! Compiled functions: recorded once, then run without recording.

use crate::error::{Error, Result};
use crate::evaluate;
use crate::extract::{Extraction, Flag};
use crate::node::{Edges, Node, Value};
use crate::notes::{Slot, is_recording, note_unrepeatable, recorded};
use crate::random::{Key, Rng};
use crate::{Cell, Device, Tensor};
use gradus_ir::op::{Op, Type};
use gradus_ir::{Buffer, Error as ErrorKind, Executable, Number};
use std::collections::HashMap;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard};

/// The most signatures that a compiled function keeps a program for: those used last.
const KEPT: usize = 64;

/// A function of tensors that is recorded at its first call with inputs of some shapes, dtypes and devices; from then on
/// such calls only run its plan. For steps whose tensors are so small that recording them is what takes the time.
///
/// The function should be a pure one of its inputs and of what it captures:
/// - Parameters and other [cells](Cell) that it reads are read anew at each call. Other tensors that it captures stay what
///   they were when it was recorded.
/// - Keys that it draws from an [`Rng`] are drawn anew at each call, as they would be without `compile`. A [`Key`] that it
///   captures stays as it is.
/// - Rust numbers, and what the function decides by them (or by a layer's mode), stay as they were at the first call: pass
///   what changes as a tensor of shape `[]`.
/// - It may take gradients, but not read a value, nor assign a cell: these are errors. Return what is to be read, and
///   assign what was returned.
///
/// What it returns has the bits that [`eval`](crate::eval) of all results at once gives without `compile`; it is evaluated
/// (on a GPU: launched), and constant to `grad`: no gradient flows back into a compiled
/// function.
///
/// ```
/// use gradus_tensor::{Cell, Device, Tensor, compile};
/// let device = Device::cpu();
/// let weight = Cell::parameter(Tensor::new([1.0, 2.0], &device));
/// let scaled = compile(|x| Ok(vec![&x[0] * &weight.tensor(), x[0].sum(..)]));
///
/// let x = Tensor::new([10.0, 10.0], &device);
/// assert_eq!(scaled.call(&[x.clone()])?[0].to_vec::<f32>()?, [10.0, 20.0]);
/// weight.set(weight.tensor() + 1.0)?;
/// assert_eq!(scaled.call(&[x])?[0].to_vec::<f32>()?, [20.0, 30.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub fn compile<F: Fn(&[Tensor]) -> Result<Vec<Tensor>>>(function: F) -> Compiled<F> {
    Compiled { function, programs: Mutex::default() }
}

/// What [`compile`] gives.
pub struct Compiled<F> {
    function: F,
    /// The last used first.
    programs: Mutex<Vec<Arc<Program>>>,
}

impl<F: Fn(&[Tensor]) -> Result<Vec<Tensor>>> Compiled<F> {
    /// The function's results.
    ///
    /// # Errors
    /// What the function returns as an error, or what one of its tensors carries; `ErrorKind::Recording` if it reads a
    /// value or assigns a cell; `ErrorKind::Devices` if its results are on several devices; what the device could not do.
    #[track_caller]
    pub fn call(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let location = Location::caller();
        if is_recording() {
            return Err(Error::located("compile", ErrorKind::Recording, location));
        }
        note_unrepeatable();
        if let Some(program) = self.find(inputs)? {
            let scalars = program.draw();
            return program.run(inputs, &scalars, location);
        }
        let (program, scalars) = Program::record(&self.function, inputs)?;
        let program = Arc::new(program);
        let mut programs = self.programs();
        programs.insert(0, program.clone());
        programs.truncate(KEPT);
        drop(programs);
        program.run(inputs, &scalars, location)
    }

    /// The program for these inputs, which becomes the last used.
    fn find(&self, inputs: &[Tensor]) -> Result<Option<Arc<Program>>> {
        let mut programs = self.programs();
        for at in 0..programs.len() {
            if programs[at].is_for(inputs)? {
                programs[..=at].rotate_right(1);
                return Ok(Some(programs[0].clone()));
            }
        }
        Ok(None)
    }

    fn programs(&self) -> MutexGuard<'_, Vec<Arc<Program>>> {
        // A list that is whole after every statement, so a poisoned lock is still good.
        self.programs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A recorded function.
struct Program {
    signature: Vec<(Type, Device)>,
    /// Where the values of the input slots come from.
    inputs: Vec<Source>,
    scalars: Vec<Slot>,
    /// The sources of keys, in the order in which the function draws from them.
    draws: Vec<Rng>,
    outputs: Vec<Type>,
    /// None for a function without results.
    target: Option<(Device, Arc<dyn Executable>)>,
}

/// Where a value comes from.
enum Source {
    /// An input of the function.
    Input(usize),
    /// The present value of a cell.
    Cell(Cell),
    /// A tensor that the function captured or made of host values.
    Captured(Buffer),
}

impl Program {
    /// Records a function, with the numbers of the first call.
    fn record(
        function: &impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
        inputs: &[Tensor],
    ) -> Result<(Program, Vec<Number>)> {
        let nodes = inputs.iter().map(Tensor::node).collect::<Result<Vec<_>>>()?;
        let signature: Vec<(Type, Device)> = nodes.iter().map(|n| (n.ty.clone(), n.device.clone())).collect();
        let mut placeholders = HashMap::new();
        let (results, notes) = recorded(|| {
            let stand_ins: Vec<Tensor> = nodes
                .iter()
                .enumerate()
                .map(|(i, input)| {
                    let (ty, device) = (input.ty.clone(), input.device.clone());
                    let node = Node::new(Op::Input(0), Edges::new(), Value::Pending, ty, device, input.location);
                    placeholders.insert(node.id, i);
                    Tensor::share(node)
                })
                .collect();
            // A view of each makes outputs of inputs, captured tensors, and results that are returned twice.
            function(&stand_ins).map(|results| results.iter().map(Tensor::detach).collect::<Vec<_>>())
        });
        let results = results?;
        let roots = results.iter().map(|result| result.node().cloned()).collect::<Result<Vec<_>>>()?;
        let Some(first) = roots.first() else {
            let (inputs, scalars, outputs, draws) = (Vec::new(), Vec::new(), Vec::new(), notes.draws);
            return Ok((Program { signature, inputs, scalars, draws, outputs, target: None }, Vec::new()));
        };
        let device = first.device.clone();
        if let Some(other) = roots.iter().find(|root| root.device != device) {
            let kind = ErrorKind::Devices { left: device.to_string(), right: other.device.to_string() };
            return Err(Error::located("compile", kind, other.location));
        }
        evaluate::run(&captured(&device, &roots), &[])?;
        let mut planner = device.planner();
        let marks = planner.marks.next();
        let nodes = marks.collect(&roots);
        roots.iter().for_each(|root| marks.set(root, Flag::Asked));
        let mut extraction = Extraction::new(marks, nodes.len());
        for node in nodes {
            let kept = marks.is(&node, Flag::Asked);
            extraction.computed(node, kept)?;
        }
        let executable = planner.plans.executable_to_keep(&device, &extraction)?;
        drop(planner);
        let source = |(leaf, _): (&Arc<Node>, bool)| match (placeholders.get(&leaf.id), notes.cells.get(&leaf.id)) {
            (Some(&input), _) => Ok(Source::Input(input)),
            (None, Some(cell)) => Ok(Source::Cell(cell.clone())),
            (None, None) => Tensor::of(leaf.clone()).realised().map(Source::Captured),
        };
        let program = Program {
            signature,
            inputs: extraction.leaves().map(source).collect::<Result<_>>()?,
            scalars: extraction.nodes().filter_map(|node| notes.slot(node)).collect(),
            draws: notes.draws,
            outputs: roots.iter().map(|root| root.ty.clone()).collect(),
            target: Some((device, executable)),
        };
        Ok((program, extraction.scalars))
    }

    /// Whether it was recorded for inputs like these.
    fn is_for(&self, inputs: &[Tensor]) -> Result<bool> {
        if inputs.len() != self.signature.len() {
            return Ok(false);
        }
        for (input, (ty, device)) in inputs.iter().zip(&self.signature) {
            let node = input.node()?;
            if node.ty != *ty || node.device != *device {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The numbers of the next call.
    fn draw(&self) -> Vec<Number> {
        let keys: Vec<Key> = self.draws.iter().map(Rng::key).collect();
        self.scalars.iter().map(|slot| slot.number(&keys, &[])).collect()
    }

    fn run(&self, inputs: &[Tensor], scalars: &[Number], at: &'static Location<'static>) -> Result<Vec<Tensor>> {
        let Some((device, executable)) = &self.target else { return Ok(Vec::new()) };
        crate::eval(inputs)?;
        // Handles of cells' values keep them from being overwritten until the run has them.
        let held: Vec<Tensor> = self
            .inputs
            .iter()
            .filter_map(|source| if let Source::Cell(cell) = source { Some(cell.tensor()) } else { None })
            .collect();
        let mut cells = held.iter();
        let mut values = Vec::with_capacity(self.inputs.len());
        for source in &self.inputs {
            values.push(match source {
                Source::Input(input) => Some(inputs[*input].realised()?),
                Source::Cell(_) => cells.next().map(Tensor::realised).transpose()?,
                Source::Captured(buffer) => Some(buffer.clone()),
            });
        }
        let outputs = executable.run(&mut values, scalars).map_err(|kind| Error::located("compile", kind, at))?;
        let share = |(buffer, ty): (Buffer, &Type)| {
            Tensor::share(Node::new(Op::Input(0), Edges::new(), Value::Ready(buffer), ty.clone(), device.clone(), at))
        };
        Ok(outputs.into_iter().zip(&self.outputs).map(share).collect())
    }
}

/// Pending tensors from outside that what was recorded reads: they are evaluated once, and stay.
fn captured(device: &Device, roots: &[Arc<Node>]) -> Vec<Arc<Node>> {
    let marks = device.planner().marks.next();
    let mut found = Vec::new();
    for node in marks.collect(roots).iter().filter(|node| node.recorded) {
        let from_outside = |edge: &&Arc<Node>| !edge.recorded && edge.is_pending();
        found.extend(node.state().edges.iter().filter(from_outside).cloned());
    }
    found
}
