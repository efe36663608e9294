//! Assignments that are recorded once for each structure of the graph that they start from: an optimiser's step, whose backward
//! pass and update are the same at every step.

use crate::cell::{Awaited, assign_seen};
use crate::debug::{DEBUG, looks_for_nan};
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::{self, Run, held_readers, is_kept};
use crate::extract::{Entry, Extraction, Flag, Role};
use crate::node::{Edges, Node, Value};
use crate::notes::{Live, Notes, Slot, is_recording, noted};
use crate::random::{Key, Rng};
use crate::{Cell, Tensor, assign};
use gradus_ir::op::{Op, Type};
use gradus_ir::{Executable, NodeId};
use smallvec::SmallVec;
use std::panic::Location;
use std::sync::Arc;

/// The most graphs that a program is kept for, and whose hashes are known: those met last.
const KEPT: usize = 8;

/// Assigns cells what is computed from some tensors, as [`assign`](crate::assign) does, and remembers how: where the graph behind
/// the tensors has the structure of an earlier one, nothing is recorded but its numbers are put into the earlier plan. For steps
/// of training, of which recording the backward pass and the update would take the larger part of the host's time.
///
/// What is given to [`assign`](Routine::assign) should be a function of the tensors and the graph behind them, of cells, which it
/// reads anew each time, and of numbers that are given as [`Live`] ones; other tensors that it captures must be the same each time.
/// Keys that it draws from an [`Rng`] are drawn anew. Where it reads a value, it is recorded each time; so it is
/// where a [`GradientRule`](crate::GradientRule) is on the way, which may hold anything.
///
/// ```
/// use gradus_tensor::graph::Routine;
/// use gradus_tensor::{Cell, Device, Tensor};
///
/// let device = Device::cpu();
/// let weight = Cell::parameter(Tensor::new([1.0], &device));
/// let mut routine = Routine::default();
/// let mut recorded = 0;
/// for step in 0..5 {
///     let loss = (weight.tensor() * 3.0).sum(..);
///     routine.assign(vec![loss], &[f64::from(step)], |loss, numbers| {
///         recorded += 1;
///         Ok(vec![(weight.clone(), weight.tensor() + &loss[0] * numbers[0])])
///     })?;
/// }
/// // The first time and the second: from then on the graph is known.
/// assert_eq!(recorded, 2);
/// assert_eq!(weight.tensor().item::<f32>()?, 1.0 * 4.0 * 7.0 * 10.0 * 13.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Default)]
pub struct Routine {
    /// The last used first.
    programs: Vec<Program>,
    /// The hashes of graphs that were recorded, the last first. One that comes again is worth a program.
    met: Vec<u64>,
}

impl Routine {
    /// Assigns the cells that `body` lists what it lists for them, computed from `sources` and `numbers`. Sources that nobody else
    /// holds need not be stored.
    ///
    /// # Errors
    /// As [`assign`](crate::assign); or as `body`.
    #[track_caller]
    pub fn assign(
        &mut self,
        sources: Vec<Tensor>,
        numbers: &[f64],
        body: impl FnOnce(Vec<Tensor>, &[Live]) -> Result<Vec<(Cell, Tensor)>>,
    ) -> Result<()> {
        let location = Location::caller();
        let live: Vec<Live> = numbers.iter().enumerate().map(|(index, &value)| Live { index, value }).collect();
        if sources.is_empty() || is_recording() || DEBUG.eager || looks_for_nan() {
            return assign(body(sources, &live)?);
        }
        let handles = sources;
        let sources = handles.iter().map(|source| source.node().cloned()).collect::<Result<Sources>>()?;
        drop(handles);
        for at in 0..self.programs.len() {
            if self.programs[at].run(&sources, numbers, location)? {
                self.programs[..=at].rotate_right(1);
                return Ok(());
            }
        }
        let since = Node::next_id();
        let (updates, notes) = noted(|| body(sources.iter().cloned().map(Tensor::of).collect(), &live));
        let mut made = None;
        let met = &mut self.met;
        assign_seen(updates?, location, &mut |assigned, extraction, executable| {
            let hash = extraction.hash();
            match met.iter().position(|&earlier| earlier == hash) {
                Some(at) => {
                    met.remove(at);
                    made = Program::new(&sources, since, &notes, assigned, extraction, executable);
                }
                None => {
                    met.insert(0, hash);
                    met.truncate(KEPT);
                }
            }
        })?;
        if let Some(program) = made {
            self.programs.insert(0, program);
            self.programs.truncate(KEPT);
        }
        Ok(())
    }

    /// Forgets what it knows: what `body` captures, or does, is another from now on.
    pub fn forget(&mut self) {
        *self = Routine::default();
    }
}

/// What an assignment is computed from.
type Sources = SmallVec<[Arc<Node>; 1]>;

/// What is known of a graph and of what follows it.
struct Program {
    device: Device,
    sources: Vec<Source>,
    /// The graph behind the sources and what else is computed with it, up to where the recording began.
    beginning: Vec<Known>,
    /// The cells that the rest reads or assigns, in the order of their ids.
    cells: Vec<Cell>,
    /// The places of those that are assigned.
    assigned: Vec<usize>,
    /// What the rest reads that the beginning does not.
    leaves: Vec<Leaf>,
    /// The numbers of the rest.
    slots: Vec<Slot>,
    /// The sources of keys, in the order in which the rest draws from them.
    draws: Vec<Rng>,
    /// Which of the assigned cells the outputs of the rest are for.
    outputs: Vec<usize>,
    executable: Arc<dyn Executable>,
    /// Stands for a value that a run is still to give.
    gone: Arc<Node>,
}

/// What a node of the beginning must be again.
#[derive(PartialEq)]
struct Known {
    op: Op,
    ty: Type,
    role: Role,
    operands: SmallVec<[NodeId; 3]>,
    /// Whether gradients stop at it, and whether they reach a parameter through it.
    stops: bool,
    tracked: bool,
    /// The cell that it stands for, and whether that has been assigned since.
    cell: Option<(u64, bool)>,
}

/// What a source must be again.
#[derive(PartialEq)]
struct Source {
    /// The place of the first source that is the same tensor.
    first: usize,
    /// Of one whose value is there: its type, whether gradients stop at it, and whether they reach a parameter through it.
    given: Option<(Type, bool, bool)>,
}

impl Source {
    /// `None` where a value is there that still has a graph, or one that is gone.
    fn of(sources: &[Arc<Node>], at: usize) -> Option<Source> {
        let node = &sources[at];
        let first = sources[..at].iter().position(|earlier| Arc::ptr_eq(earlier, node)).unwrap_or(at);
        let given = match &node.state().value {
            Value::Pending => None,
            Value::Ready(_) => Some((node.ty.clone(), node.stops, node.is_tracked())),
            Value::Gone => return None,
        };
        (given.is_none() || !node.has_edges()).then_some(Source { first, given })
    }
}

/// Where a value that the rest reads comes from.
enum Leaf {
    /// A source, by its place, whose value is there.
    Source { place: usize, donated: bool },
    /// The present value of a cell, which may be overwritten.
    Cell { place: usize, donated: bool },
    /// A tensor that was captured.
    Captured(Arc<Node>),
}

impl Program {
    /// `None` if what was recorded could not be done again by its graph alone.
    fn new(
        sources: &[Arc<Node>],
        since: u64,
        notes: &Notes,
        assigned: &[(Cell, Awaited)],
        extraction: &Extraction,
        executable: &Arc<dyn Executable>,
    ) -> Option<Program> {
        let entries = &extraction.entries;
        let is_before = |entry: &Entry| !entry.role.is_leaf() && entry.node.id < since;
        let length = entries.iter().rposition(is_before).map_or(0, |last| last + 1);
        let (before, rest) = entries.split_at(length);
        let first = sources.first()?;
        let device = &first.device;
        let known = (0..sources.len()).map(|at| Source::of(sources, at)).collect::<Option<Vec<_>>>()?;
        let is_computed =
            |source: &Arc<Node>| before.iter().any(|entry| !entry.role.is_leaf() && Arc::ptr_eq(&entry.node, source));
        let fits = |(source, known): (&Arc<Node>, &Source)| match known.given {
            Some(_) => !notes.cells.contains_key(&source.id),
            None => is_computed(source),
        };
        if notes.is_unrepeatable
            || !sources.iter().zip(&known).all(fits)
            || before.iter().any(|entry| !is_plain(entry))
            || assigned.iter().any(|(_, awaited)| awaited.old.device != *device)
        {
            return None;
        }
        let mut cells: Vec<Cell> = assigned.iter().map(|(cell, _)| cell.clone()).collect();
        cells.extend(notes.cells.values().cloned());
        cells.sort_unstable_by_key(Cell::id);
        cells.dedup_by_key(|cell| cell.id());
        let place = |cell: &Cell| cells.binary_search_by_key(&cell.id(), Cell::id).ok();
        let places = assigned.iter().map(|(cell, _)| place(cell)).collect::<Option<Vec<_>>>()?;
        let leaf = |(node, donated): (&Arc<Node>, bool)| match notes.cells.get(&node.id) {
            Some(cell) => Some(Leaf::Cell { place: place(cell)?, donated }),
            None if let Some(place) = sources.iter().position(|source| Arc::ptr_eq(source, node)) => {
                Some(Leaf::Source { place, donated })
            }
            None => (node.cell.is_none() && !node.has_edges() && !donated).then(|| Leaf::Captured(node.clone())),
        };
        let output = |entry: &Entry| assigned.iter().position(|(_, awaited)| Arc::ptr_eq(&awaited.new, &entry.node));
        let leaves = rest.iter().filter(|entry| entry.role.is_leaf());
        let leaves = leaves.map(|entry| leaf((&entry.node, entry.role == Role::Donated)));
        let computed = || rest.iter().filter(|entry| !entry.role.is_leaf());
        let kept = rest.iter().filter(|entry| entry.role == Role::Kept);
        let outputs = kept.map(output).collect::<Option<Vec<usize>>>()?;
        if outputs.len() != assigned.len() || computed().any(|entry| entry.node.symbolic || entry.node.recorded) {
            return None;
        }
        // By now the cells stand for their new values.
        let is_present = |node: &Arc<Node>| assigned.iter().any(|(_, awaited)| Arc::ptr_eq(&awaited.old, node));
        let of_entry = |(entry, operands): (&Entry, &[NodeId])| {
            let cell = entry.node.cell.as_ref();
            let cell = cell.map(|tag| (tag.cell_id(), tag.is_stale() && !is_present(&entry.node)));
            Known::of(entry, operands, cell)
        };
        let mut gone =
            Node::new(Op::Input(0), Edges::new(), Value::Gone, first.ty.clone(), device.clone(), first.location);
        gone.stops = true;
        Some(Program {
            device: device.clone(),
            sources: known,
            beginning: extraction.with_operands().take(length).map(of_entry).collect(),
            leaves: leaves.collect::<Option<Vec<_>>>()?,
            slots: computed().filter_map(|entry| notes.slot(&entry.node)).collect(),
            draws: notes.draws.clone(),
            cells,
            assigned: places,
            outputs,
            executable: executable.clone(),
            gone: Arc::new(gone),
        })
    }

    /// Runs it, if the graph behind `sources` is the one that it is for. If the run fails, all is as before, and recording it
    /// anew will tell why.
    fn run(&self, sources: &[Arc<Node>], numbers: &[f64], location: &'static Location<'static>) -> Result<bool> {
        let is_like = |(at, known): (usize, &Source)| Source::of(sources, at).as_ref() == Some(known);
        if sources.len() != self.sources.len()
            || sources.iter().any(|source| source.device != self.device)
            || !self.sources.iter().enumerate().all(is_like)
        {
            return Ok(false);
        }
        // Locked until they stand for their new values, so that nobody gets to hold a value that is being overwritten.
        let mut present: Vec<_> = self.cells.iter().map(Cell::lock).collect();
        let mut planner = self.device.planner();
        if planner.plans.is_profiled() {
            return Ok(false);
        }
        let marks = planner.marks.next();
        let mut replaced = Vec::with_capacity(self.assigned.len());
        for &place in &self.assigned {
            let node = present[place].node()?;
            marks.set(node, Flag::Replaced);
            match &node.state().value {
                // The one handle is the cell's own.
                Value::Ready(buffer) if node.is_held_once() && buffer.is_unique() => marks.set(node, Flag::Donated),
                Value::Ready(_) => (),
                Value::Pending | Value::Gone => return Ok(false),
            }
            replaced.push(node.clone());
        }
        let mut nodes = marks.collect(sources);
        let readers = held_readers(marks, &self.device, &replaced);
        if !readers.is_empty() {
            readers.iter().for_each(|reader| marks.set(reader, Flag::Asked));
            nodes.append(&mut marks.collect(&readers));
            nodes.sort_unstable_by_key(|node| node.id);
        }
        let mut extraction = Extraction::new(marks, nodes.len());
        for node in nodes {
            let kept = is_kept(marks, &node);
            if extraction.computed(node, kept).is_err() {
                return Ok(false);
            }
        }
        if !self.is_for(&extraction) {
            return Ok(false);
        }
        let mut rest = Vec::with_capacity(self.leaves.len());
        for leaf in &self.leaves {
            let (node, donated) = match leaf {
                Leaf::Source { place, donated } => (&sources[*place], *donated),
                Leaf::Captured(node) => (node, false),
                Leaf::Cell { place, donated } => (present[*place].node()?, *donated),
            };
            if !matches!(node.state().value, Value::Ready(_)) || marks.is(node, Flag::Donated) != donated {
                return Ok(false);
            }
            rest.push((node.clone(), donated));
        }
        let mut awaited = Vec::with_capacity(self.assigned.len());
        for &place in &self.assigned {
            awaited.push(self.cells[place].await_value(&mut present[place], &self.gone, location)?);
        }
        drop((present, replaced));
        let before: Vec<_> = self.draws.iter().map(Rng::state).collect();
        let keys: Vec<Key> = self.draws.iter().map(Rng::key).collect();
        let mut scalars = std::mem::take(&mut extraction.scalars);
        scalars.extend(self.slots.iter().map(|slot| slot.number(&keys, numbers)));
        let leaves = extraction.leaves().chain(rest.iter().map(|(node, donated)| (node, *donated))).collect();
        let run = Run::begin(&self.device, planner, leaves, true);
        match run.finish(&*self.executable, &scalars) {
            Ok(finished) => {
                let assigned = self.outputs.iter().map(|&output| &awaited[output].new);
                finished.store(extraction.outputs().chain(assigned));
            }
            Err(_) => {
                for (&place, Awaited { old, .. }) in self.assigned.iter().zip(&awaited).rev() {
                    self.cells[place].put_back_node(old);
                }
                self.draws.iter().zip(before).for_each(|(rng, state)| rng.set_state(state));
                return Ok(false);
            }
        }
        evaluate::cut_stale(&self.device);
        Ok(true)
    }

    /// Whether it is for a graph that begins like this.
    fn is_for(&self, extraction: &Extraction) -> bool {
        extraction.entries.len() == self.beginning.len()
            && extraction
                .with_operands()
                .zip(&self.beginning)
                .all(|((entry, operands), known)| is_plain(entry) && known.is_like(entry, operands))
    }
}

/// Whether a node is known by what [`Known`] holds.
fn is_plain(Entry { node, role, .. }: &Entry) -> bool {
    let has_graph = role.is_leaf() && node.has_edges();
    !(node.rule.is_some() || node.symbolic || node.recorded || has_graph)
}

impl Known {
    fn of(entry: &Entry, operands: &[NodeId], cell: Option<(u64, bool)>) -> Known {
        let Entry { node, role, .. } = entry;
        Known {
            op: node.op.clone(),
            ty: node.ty.clone(),
            role: *role,
            operands: operands.into(),
            stops: node.stops,
            tracked: node.is_tracked(),
            cell,
        }
    }

    fn is_like(&self, Entry { node, role, .. }: &Entry, operands: &[NodeId]) -> bool {
        // The ops of leaves say how they came to be.
        (role.is_leaf() || self.op == node.op)
            && self.ty == node.ty
            && self.role == *role
            && self.operands.iter().eq(operands)
            && self.stops == node.stops
            && self.tracked == node.is_tracked()
            && self.cell == node.cell.as_ref().map(|tag| (tag.cell_id(), tag.is_stale()))
    }
}
