//! Compiled functions: recorded once, then run without recording.

use crate::error::{Error, Result};
use crate::evaluate;
use crate::extract::{Extraction, Flag};
use crate::node::{Edges, Node, Value};
use crate::random::{Key, Rng};
use crate::{Cell, Device, Tensor};
use foldhash::fast::FixedState;
use gradus_ir::op::{Op, Type};
use gradus_ir::{Buffer, Error as ErrorKind, Executable, Number};
use smallvec::SmallVec;
use std::cell::{Cell as ThreadCell, RefCell};
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

/// Where a number comes from.
enum Slot {
    Number(Number),
    /// A key that the function drew, or one that such a key leads to.
    Drawn(Drawn),
}

/// Which key of a call it is: a draw, and the indices that were folded into its key one after the other.
#[derive(Clone)]
struct Drawn {
    draw: usize,
    folded: SmallVec<[u64; 2]>,
}

/// What is noted while a function is recorded.
#[derive(Default)]
struct Recording {
    draws: Vec<Rng>,
    /// The keys that were drawn, and those that they led to.
    keys: HashMap<u64, Drawn, FixedState>,
    /// The cells that were read, by the ids of the leaves that were got.
    cells: HashMap<u64, Cell, FixedState>,
}

thread_local! {
    /// Whether this thread records a compiled function.
    static IS_RECORDING: ThreadCell<bool> = const { ThreadCell::new(false) };
    static RECORDING: RefCell<Recording> = RefCell::default();
}

/// Whether this thread records a compiled function.
pub(crate) fn is_recording() -> bool {
    IS_RECORDING.get()
}

/// Notes that a cell was read.
pub(crate) fn note_read(cell: &Cell, value: &Tensor) {
    if let Ok(node) = value.node() {
        RECORDING.with_borrow_mut(|recording| recording.cells.insert(node.id, cell.clone()));
    }
}

/// Notes that a key was drawn.
pub(crate) fn note_draw(rng: &Rng, key: Key) {
    RECORDING.with_borrow_mut(|recording| {
        // A source that was split off while recording draws from a key that is known.
        if !recording.keys.contains_key(&key.value()) {
            let drawn = Drawn { draw: recording.draws.len(), folded: SmallVec::new() };
            recording.draws.push(rng.clone());
            recording.keys.insert(key.value(), drawn);
        }
    });
}

/// Notes that a key led to another.
pub(crate) fn note_fold(key: Key, index: u64, folded: Key) {
    RECORDING.with_borrow_mut(|recording| {
        if let Some(mut drawn) = recording.keys.get(&key.value()).cloned() {
            drawn.folded.push(index);
            recording.keys.insert(folded.value(), drawn);
        }
    });
}

/// Whether a key will be another one at the next call.
pub(crate) fn is_drawn(key: Key) -> bool {
    is_recording() && RECORDING.with_borrow(|recording| recording.keys.contains_key(&key.value()))
}

/// Does `body` while noting what it reads and draws.
fn recorded<R>(body: impl FnOnce() -> R) -> (R, Recording) {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            IS_RECORDING.set(false);
        }
    }
    RECORDING.take();
    IS_RECORDING.set(true);
    let end = End;
    let result = body();
    drop(end);
    (result, RECORDING.take())
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
        let (results, recording) = recorded(|| {
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
            let (inputs, scalars, outputs, draws) = (Vec::new(), Vec::new(), Vec::new(), recording.draws);
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
        let source = |(leaf, _): (&Arc<Node>, bool)| match (placeholders.get(&leaf.id), recording.cells.get(&leaf.id)) {
            (Some(&input), _) => Ok(Source::Input(input)),
            (None, Some(cell)) => Ok(Source::Cell(cell.clone())),
            (None, None) => Tensor::of(leaf.clone()).realised().map(Source::Captured),
        };
        let slot = |node: &Arc<Node>| match (&node.op, node.number) {
            (Op::Const(_), _) | (_, None) => None,
            (Op::Random(_), Some(key)) => {
                let drawn = recording.keys.get(&(key.to_i64() as u64)).cloned();
                Some(drawn.map_or(Slot::Number(key), Slot::Drawn))
            }
            (_, Some(number)) => Some(Slot::Number(number)),
        };
        let program = Program {
            signature,
            inputs: extraction.leaves().map(source).collect::<Result<_>>()?,
            scalars: extraction.nodes().filter_map(slot).collect(),
            draws: recording.draws,
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
        let number = |slot: &Slot| match slot {
            Slot::Number(number) => *number,
            Slot::Drawn(Drawn { draw, folded }) => {
                let key = folded.iter().fold(keys[*draw], |key, &index| key.fold_in(index));
                Number::Int(key.value() as i64)
            }
        };
        self.scalars.iter().map(number).collect()
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
