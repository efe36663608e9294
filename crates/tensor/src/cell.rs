//! Cells: parameters and running statistics. A cell holds a tensor and a version.

use crate::Tensor;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::extract::Extraction;
use crate::node::{Cut, Edges, Node, Reach, Value};
use crate::notes::{is_recording, note_read, note_unrepeatable};
use gradus_ir::op::Op;
use gradus_ir::{Error as ErrorKind, Executable, Shape};
use std::collections::HashSet;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A named place for a tensor that changes while a model trains. Cloning shares it (tied weights share one).
///
/// Reading gives the present tensor; what was computed from it keeps its value when the cell is assigned, but its
/// gradient can no longer be taken.
///
/// ```
/// use gradus_tensor::{Cell, Device, Tensor};
/// let weight = Cell::parameter(Tensor::new([1.0, 2.0], &Device::cpu()));
/// let doubled = weight.tensor() * 2.0;
/// weight.set(weight.tensor() + 10.0)?;
/// assert_eq!(weight.tensor().to_vec::<f32>()?, [11.0, 12.0]);
/// assert_eq!(doubled.to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone)]
pub struct Cell {
    identity: Arc<Identity>,
    tensor: Arc<Mutex<Tensor>>,
}

/// The leaves of a cell before and after an assignment.
pub(crate) struct Awaited {
    pub(crate) old: Arc<Node>,
    pub(crate) new: Arc<Node>,
}

/// What leaves know of their cell: not its tensor, which is a leaf itself.
struct Identity {
    id: u64,
    tracked: bool,
    name: Mutex<String>,
    version: AtomicU64,
}

impl Identity {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn name(&self) -> MutexGuard<'_, String> {
        self.name.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The cell and version that a leaf node stands for.
#[derive(Clone)]
pub(crate) struct CellTag {
    identity: Arc<Identity>,
    version: u64,
}

impl CellTag {
    /// Whether the cell has been assigned since.
    pub(crate) fn is_stale(&self) -> bool {
        self.identity.version() != self.version
    }

    pub(crate) fn name(&self) -> String {
        self.identity.name().clone()
    }

    pub(crate) fn cell_id(&self) -> u64 {
        self.identity.id
    }
}

impl Cell {
    /// A cell whose tensor is trained: gradients reach it, and the graphs behind what depends on it are kept.
    #[track_caller]
    pub fn parameter(tensor: Tensor) -> Cell {
        Cell::new(tensor, true)
    }

    /// A cell whose tensor is not trained, such as running statistics or an optimiser's moments.
    #[track_caller]
    pub fn buffer(tensor: Tensor) -> Cell {
        Cell::new(tensor, false)
    }

    #[track_caller]
    fn new(tensor: Tensor, tracked: bool) -> Cell {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let identity = Arc::new(Identity { id, tracked, name: Mutex::default(), version: AtomicU64::new(0) });
        let cell = Cell { identity, tensor: Arc::new(Mutex::new(tensor)) };
        let mut present = cell.lock();
        *present = cell.leaf(&present, 0, Location::caller());
        drop(present);
        cell
    }

    /// The leaf that stands for `tensor` as this cell's value.
    fn leaf(&self, tensor: &Tensor, version: u64, location: &'static Location<'static>) -> Tensor {
        let node = match tensor.node() {
            Ok(node) => node,
            Err(error) => return Tensor::failed(error.clone(), tensor.device()),
        };
        // A value that is already there is shared, not computed again.
        let (edges, value) = match &node.state().value {
            Value::Ready(buffer) if !is_recording() => (Edges::new(), Value::Ready(buffer.clone())),
            _ => (Edges::from_iter([node.clone()]), Value::Pending),
        };
        let op = if edges.is_empty() { Op::Input(0) } else { Op::Reshape };
        let mut leaf = Node::new(op, edges, value, node.ty.clone(), node.device.clone(), location);
        self.identify(&mut leaf, version);
        Tensor::share(leaf)
    }

    /// Puts a leaf for `tensor` in place of the present one, under a new version; gives both back.
    fn replace(&self, tensor: &Tensor, location: &'static Location<'static>) -> (Tensor, Tensor) {
        let mut present = self.lock();
        let version = self.identity.version.fetch_add(1, Ordering::AcqRel) + 1;
        let leaf = self.leaf(tensor, version, location);
        leaf.device().note_assignment(self.bit());
        let previous = std::mem::replace(&mut *present, leaf.clone());
        (leaf, previous)
    }

    /// Puts a leaf whose value a run under way will store in place of the present one, under a new version; gives both nodes
    /// back. Until then it reads `gone`, a value that was overwritten, so that whoever needs it waits for the run.
    pub(crate) fn await_value(
        &self,
        present: &mut Tensor,
        gone: &Arc<Node>,
        location: &'static Location<'static>,
    ) -> Result<Awaited> {
        let old = present.node()?.clone();
        let version = self.identity.version.fetch_add(1, Ordering::AcqRel) + 1;
        let edges = Edges::from_iter([gone.clone()]);
        let mut leaf = Node::new(Op::Reshape, edges, Value::Pending, old.ty.clone(), old.device.clone(), location);
        self.identify(&mut leaf, version);
        let new = Arc::new(leaf);
        old.device.note_assignment(self.bit());
        *present = Tensor::of(new.clone());
        Ok(Awaited { old, new })
    }

    /// Makes a node a leaf of this cell.
    fn identify(&self, leaf: &mut Node, version: u64) {
        leaf.cells = 1 << self.bit();
        leaf.set_reach(if self.identity.tracked { Reach::Parameter } else { Reach::Nothing });
        leaf.stops = true;
        leaf.first = leaf.id;
        leaf.cell = Some(CellTag { identity: self.identity.clone(), version });
    }

    /// Undoes [`await_value`](Cell::await_value).
    pub(crate) fn put_back_node(&self, old: &Arc<Node>) {
        let version = old.cell.as_ref().map_or(0, |tag| tag.version);
        self.put_back(Tensor::of(old.clone()), version);
    }

    /// Puts back a leaf that was replaced, as if it had never been: what was recorded on it keeps its gradient.
    fn put_back(&self, leaf: Tensor, version: u64) {
        let mut present = self.lock();
        self.identity.version.store(version, Ordering::Release);
        // What another thread has recorded on the replacement is to be looked at again.
        leaf.device().note_assignment(self.bit());
        *present = leaf;
    }

    pub(crate) fn id(&self) -> u64 {
        self.identity.id
    }

    fn bit(&self) -> u32 {
        (self.identity.id % 64) as u32
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.tensor.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The present tensor.
    pub fn tensor(&self) -> Tensor {
        let tensor = self.lock().clone();
        note_read(self, &tensor);
        tensor
    }

    /// The shape of the tensor.
    pub fn shape(&self) -> Shape {
        self.lock().shape().clone()
    }

    /// How often the cell has been assigned.
    pub fn version(&self) -> u64 {
        self.identity.version()
    }

    /// Whether gradients reach the cell.
    pub fn is_parameter(&self) -> bool {
        self.identity.tracked
    }

    /// The name in messages; empty until one is given.
    pub fn name(&self) -> String {
        self.identity.name().clone()
    }

    /// Gives the cell a name for messages.
    pub fn set_name(&self, name: &str) {
        *self.identity.name() = name.to_string();
    }

    /// Whether two handles share one cell.
    pub fn same(&self, other: &Cell) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
    }

    /// Assigns a tensor of the same shape, dtype and device. It is evaluated now.
    ///
    /// # Errors
    /// If shape, dtype or device differ, or the evaluation fails; the cell then keeps its tensor.
    #[track_caller]
    pub fn set(&self, tensor: Tensor) -> Result<()> {
        assign([(self.clone(), tensor)])
    }

    /// Assigns a tensor of the same shape, dtype and device that is computed later: in the run of the next assignment of other
    /// cells on this device (an optimiser's step), or when it is read. For running statistics, whose update must not make the
    /// forward pass run by itself. A value that cannot be computed then is an error of whatever reads the cell.
    ///
    /// ```
    /// use gradus_tensor::{Cell, Device, Tensor};
    /// let count = Cell::buffer(Tensor::zeros([1], &Device::cpu()));
    /// for _ in 0..3 {
    ///     count.set_lazily(count.tensor() + 1.0)?;
    /// }
    /// assert_eq!(count.tensor().item::<f32>()?, 3.0);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// If shape, dtype or device differ, in a function that is being compiled, and inside of `vmap`; the cell then keeps its
    /// tensor.
    #[track_caller]
    pub fn set_lazily(&self, tensor: Tensor) -> Result<()> {
        let location = Location::caller();
        if is_recording() {
            return Err(Error::located("assign", ErrorKind::Recording, location));
        }
        note_unrepeatable();
        check(&self.tensor(), &tensor, location)?;
        evaluate::have_values(std::slice::from_ref(tensor.node()?))?;
        self.replace(&tensor, location);
        Ok(())
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({:?}, version {}, {:?})", self.name(), self.version(), self.tensor())
    }
}

/// Assigns several cells at once: everything is computed in one run, and a cell's old buffer is updated in place where
/// nothing else owns it. Tensors that are held and read an old buffer are computed in the same run, so they never see new
/// values.
///
/// # Errors
/// If a shape, dtype or device differs from the cell's, a tensor carries an error, or the evaluation fails; all cells
/// then keep their tensors.
#[track_caller]
pub fn assign(updates: impl IntoIterator<Item = (Cell, Tensor)>) -> Result<()> {
    assign_seen(updates.into_iter().collect(), Location::caller(), &mut |_, _, _| ())
}

/// What is shown the leaves of the cells that are assigned, before and after, with the graph and its executable.
pub(crate) type SeeAssigned<'a> = dyn FnMut(&[(Cell, Awaited)], &Extraction, &Arc<dyn Executable>) + 'a;

/// As [`assign`], but `see` is shown what is about to run.
pub(crate) fn assign_seen(
    updates: Vec<(Cell, Tensor)>,
    location: &'static Location<'static>,
    see: &mut SeeAssigned,
) -> Result<()> {
    if is_recording() {
        return Err(Error::located("assign", ErrorKind::Recording, location));
    }
    for (cell, new) in &updates {
        check(&cell.tensor(), new, location)?;
    }
    let mut assigned = Vec::with_capacity(updates.len());
    for (cell, new) in updates {
        let (leaf, previous) = cell.replace(&new, location);
        let (old, new) = (previous.node()?.clone(), leaf.node()?.clone());
        assigned.push((cell, Awaited { old, new }));
    }
    let roots: Vec<Arc<Node>> = assigned.iter().map(|(_, awaited)| awaited.new.clone()).collect();
    let replaced: Vec<Arc<Node>> = assigned.iter().map(|(_, awaited)| awaited.old.clone()).collect();
    // A held tensor that reads an old value may fail where the update does not; without donation it can wait.
    let result =
        evaluate::run_seen(&roots, &replaced, &mut |extraction, executable| see(&assigned, extraction, executable))
            .or_else(|first| evaluate::run(&roots, &[]).map_err(|_| first));
    if result.is_err() {
        // A cell that was listed twice gets its first value back.
        for (cell, Awaited { old, .. }) in assigned.iter().rev() {
            cell.put_back_node(old);
        }
        return result;
    }
    let mut devices: Vec<&Device> = Vec::new();
    for node in &replaced {
        if !devices.contains(&&node.device) {
            devices.push(&node.device);
            evaluate::cut_stale(&node.device);
        }
    }
    Ok(())
}

fn check(old: &Tensor, new: &Tensor, at: &'static Location<'static>) -> Result<()> {
    let (old, new) = (old.node()?, new.node()?);
    let kind = if old.ty.shape != new.ty.shape {
        let (expected, found) = (old.ty.shape.clone(), new.ty.shape.clone());
        ErrorKind::Shape { what: "the new value", expected, found }
    } else if old.ty.dtype != new.ty.dtype {
        ErrorKind::DTypes { left: old.ty.dtype, right: new.ty.dtype }
    } else if old.device != new.device {
        ErrorKind::Devices { left: old.device.to_string(), right: new.device.to_string() }
    } else {
        return Ok(());
    };
    Err(Error::located("assign", kind, at))
}

/// Why a node's graph is out of date: the name of a parameter behind it that has been assigned since, if there is one.
pub(crate) fn stale_cell(node: &Arc<Node>) -> Option<String> {
    let mut seen = HashSet::with_hasher(foldhash::fast::FixedState::default());
    let mut stack = vec![node.clone()];
    while let Some(node) = stack.pop() {
        if !seen.insert(node.id) {
            continue;
        }
        if let Some(tag) = &node.cell {
            if tag.is_stale() {
                return Some(tag.name());
            }
            continue;
        }
        let state = node.state();
        if let Cut::Updated(name) = &state.cut {
            return Some(name.clone());
        }
        stack.extend(state.edges.iter().cloned());
    }
    None
}
