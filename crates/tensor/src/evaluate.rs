//! Evaluation: from pending nodes to a graph, a cached plan, a run, and values.

use crate::cell::stale_cell;
use crate::debug::{check_for_nan, looks_for_nan};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::extract::{Extraction, Flag, Marks};
use crate::node::{Cut, Node, Value};
use crate::notes::{is_recording, note_unrepeatable};
use crate::plans::Plans;
use gradus_ir::op::Op;
use gradus_ir::{Buffer, Error as ErrorKind, Executable, Number};
use std::cell::Cell as ThreadCell;
use std::sync::{Arc, MutexGuard};

/// What evaluations of a device share. Its lock is held while graphs are looked at or changed, not while they run: a run
/// may wait for other tasks on this very thread, which may evaluate too.
pub(crate) struct Planner {
    pub(crate) plans: Plans,
    /// Those of the last evaluation.
    pub(crate) marks: Marks,
    /// Runs under way that overwrite buffers: what reads these is on its way too.
    overwriting: usize,
}

impl Planner {
    pub(crate) fn new() -> Planner {
        Planner { plans: Plans::new(), marks: Marks::none(), overwriting: 0 }
    }
}

/// Computes `roots` and everything held on the way. `replaced` are leaves whose cells get new values: held tensors that
/// read them are computed too (no gradient can be taken through them any more), and their buffers may be overwritten if
/// no handle holds them.
pub(crate) fn run(roots: &[Arc<Node>], replaced: &[Arc<Node>]) -> Result<()> {
    run_seen(roots, replaced, &mut |_, _| ())
}

/// As [`run`], but `see` is shown what is about to run on each device.
pub(crate) fn run_seen(roots: &[Arc<Node>], replaced: &[Arc<Node>], see: &mut See) -> Result<()> {
    have_values(roots)?;
    note_unrepeatable();
    if is_recording()
        && let Some(node) = roots.first()
    {
        return Err(Error::located(node.op.name(), ErrorKind::Recording, node.location));
    }
    let mut devices: Vec<&Device> = Vec::new();
    for node in roots.iter().filter(|n| n.is_pending()).chain(replaced) {
        if !devices.contains(&&node.device) {
            devices.push(&node.device);
        }
    }
    // What one device has overwritten could not be restored if another then failed.
    let may_overwrite = devices.len() == 1;
    devices.iter().try_for_each(|device| run_on(device, roots, replaced, may_overwrite, see))
}

/// What is shown a graph and its executable.
pub(crate) type See<'a> = dyn FnMut(&Extraction, &Arc<dyn Executable>) + 'a;

/// Nodes that stand for many values at once cannot be computed.
pub(crate) fn have_values(nodes: &[Arc<Node>]) -> Result<()> {
    match nodes.iter().find(|node| node.symbolic) {
        Some(node) => Err(Error::located(node.op.name(), ErrorKind::NoValue, node.location)),
        None => Ok(()),
    }
}

thread_local! {
    /// Whether this thread is inside of a run that overwrites buffers.
    static OVERWRITES: ThreadCell<bool> = const { ThreadCell::new(false) };
}

fn run_on(
    device: &Device,
    roots: &[Arc<Node>],
    replaced: &[Arc<Node>],
    may_overwrite: bool,
    see: &mut See,
) -> Result<()> {
    let here = |nodes: &[Arc<Node>]| nodes.iter().filter(|n| n.device == *device).cloned().collect::<Vec<_>>();
    let (roots, replaced) = (here(roots), here(replaced));
    if looks_for_nan() {
        check_for_nan(device, &roots)?;
    }
    loop {
        let mut planner = device.planner();
        let prepared = loop {
            match Prepared::new(&mut planner, device, &roots, &replaced, may_overwrite) {
                Err(error) if is_overwritten(&error) && planner.overwriting > 0 && !OVERWRITES.get() => {
                    // Another thread's run will have computed what this one needs.
                    planner = device.wait_for_runs(planner);
                }
                other => break other?,
            }
        };
        match prepared {
            None => return Ok(()),
            Some(prepared) => {
                let is_last = !prepared.comes_first;
                if is_last {
                    see(&prepared.extraction, &prepared.executable);
                }
                prepared.run(device, planner)?;
                if is_last {
                    return Ok(());
                }
            }
        }
    }
}

/// A run: while it goes on, the evaluation lock is free.
pub(crate) struct Run<'a> {
    device: &'a Device,
    leaves: Vec<(&'a Arc<Node>, bool)>,
    /// The leaves' values, which those that may be overwritten have given away.
    inputs: Vec<Option<Buffer>>,
    overwrites: bool,
    /// Whether this thread was inside of an overwriting run before.
    outer: bool,
    /// The evaluation lock, once the values are there and are being stored.
    planner: Option<MutexGuard<'a, Planner>>,
}

impl<'a> Run<'a> {
    /// Takes the values of leaves, some of which may be overwritten, and then frees the lock.
    pub(crate) fn begin(
        device: &'a Device,
        mut planner: MutexGuard<'a, Planner>,
        leaves: Vec<(&'a Arc<Node>, bool)>,
        overwrites: bool,
    ) -> Run<'a> {
        let take = |&(leaf, donated): &(&Arc<Node>, bool)| {
            let value = if donated { leaf.set_value(Value::Gone) } else { leaf.state().value.clone() };
            match value {
                Value::Ready(buffer) => Some(buffer),
                Value::Pending | Value::Gone => None,
            }
        };
        let inputs = leaves.iter().map(take).collect();
        planner.overwriting += overwrites as usize;
        let outer = OVERWRITES.replace(overwrites || OVERWRITES.get());
        Run { device, leaves, inputs, overwrites, outer, planner: None }
    }

    /// Computes the outputs of a graph from its leaves and its numbers.
    pub(crate) fn finish(mut self, executable: &dyn Executable, scalars: &[Number]) -> Result<Finished<'a>, ErrorKind> {
        let result = executable.run(&mut self.inputs, scalars);
        self.planner = Some(self.device.planner());
        for ((leaf, donated), buffer) in self.leaves.drain(..).zip(self.inputs.drain(..)) {
            // What the run did not take (all of it, if it failed early) still holds its value.
            if let (true, Some(buffer)) = (donated, buffer) {
                leaf.set_value(Value::Ready(buffer));
            }
        }
        Ok(Finished { outputs: result?, run: self })
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        OVERWRITES.set(self.outer);
        let mut planner = self.planner.take().unwrap_or_else(|| self.device.planner());
        planner.overwriting -= self.overwrites as usize;
        drop(planner);
        if self.overwrites {
            self.device.run_is_over();
        }
    }
}

/// A run that has values to store, and the evaluation lock.
pub(crate) struct Finished<'a> {
    outputs: Vec<Buffer>,
    run: Run<'a>,
}

impl Finished<'_> {
    /// Gives the nodes their values, in order.
    pub(crate) fn store<'n>(self, nodes: impl Iterator<Item = &'n Arc<Node>>) {
        for (node, buffer) in nodes.zip(self.outputs) {
            node.set_value(Value::Ready(buffer));
            settle_edges(node, self.run.device);
        }
    }
}

/// Whether a graph could not be made because a buffer behind it has been, or is being, overwritten.
fn is_overwritten(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ParameterUpdated { .. })
}

/// A graph that is ready to run.
struct Prepared {
    extraction: Extraction,
    executable: Arc<dyn Executable>,
    /// Whether it computes only what the run that was asked for reads.
    comes_first: bool,
}

impl Prepared {
    /// `None` if there is nothing to compute.
    fn new(
        planner: &mut Planner,
        device: &Device,
        roots: &[Arc<Node>],
        replaced: &[Arc<Node>],
        may_overwrite: bool,
    ) -> Result<Option<Prepared>> {
        let marks = planner.marks.next();
        for leaf in replaced {
            marks.set(leaf, Flag::Replaced);
            // This comes before the search for readers: once no handle holds a leaf, no reader can be added.
            if may_overwrite && may_donate(leaf) {
                marks.set(leaf, Flag::Donated);
            }
        }
        let mut nodes = marks.collect(roots);
        if !replaced.is_empty() {
            // What a cell starts from is often pending. Computed by itself, it makes the plan of the first update that of
            // all later ones.
            let first: Vec<Arc<Node>> = replaced.iter().filter(|leaf| marks.is(leaf, Flag::Taken)).cloned().collect();
            if !first.is_empty() {
                let prepared = Prepared::new(planner, device, &first, &[], false)?;
                return Ok(prepared.map(|prepared| Prepared { comes_first: true, ..prepared }));
            }
            let readers = held_readers(marks, device, replaced);
            readers.iter().for_each(|reader| marks.set(reader, Flag::Asked));
            if !readers.is_empty() {
                nodes.append(&mut marks.collect(&readers));
                nodes.sort_unstable_by_key(|node| node.id);
            }
        }
        roots.iter().for_each(|root| marks.set(root, Flag::Asked));
        if nodes.is_empty() {
            return Ok(None);
        }
        let mut extraction = Extraction::new(marks, nodes.len());
        for node in nodes {
            if node.is_placeholder() {
                return Err(Error::located(node.op.name(), ErrorKind::Recording, node.location));
            }
            let kept = is_kept(marks, &node);
            extraction.computed(node, kept)?;
        }
        let executable = planner.plans.executable(device, &extraction)?;
        Ok(Some(Prepared { extraction, executable, comes_first: false }))
    }

    /// Runs it, without the evaluation lock, and stores the values.
    fn run(self, device: &Device, planner: MutexGuard<'_, Planner>) -> Result<()> {
        let Prepared { extraction, executable, .. } = self;
        let run = Run::begin(device, planner, extraction.leaves().collect(), extraction.overwrites());
        let finished = run.finish(&*executable, &extraction.scalars);
        finished.map_err(|kind| failed(&extraction, kind))?.store(extraction.outputs());
        Ok(())
    }
}

/// Evaluates what is held and pending on a device, so that it need not be kept as a graph.
pub(crate) fn run_pending(device: &Device) {
    let pending = device.registry().pending.alive();
    let roots: Vec<Arc<Node>> =
        pending.into_iter().filter(|n| n.is_held() && !n.is_tracked() && !n.is_number() && n.is_pending()).collect();
    // An error will be reported to whoever reads the value; here nobody does, but it must not keep back the others.
    if run(&roots, &[]).is_err() {
        for root in roots {
            let _ = run(&[root], &[]);
        }
    }
}

/// Whether a leaf's buffer may be overwritten: no handle holds it, and nothing shares its buffer.
fn may_donate(leaf: &Arc<Node>) -> bool {
    !leaf.is_held() && matches!(&leaf.state().value, Value::Ready(buffer) if buffer.is_unique())
}

/// Held pending nodes that read a replaced leaf, at any distance, or that a cell leads to but no gradient can come back
/// from, such as a sum of the losses of earlier steps; but for those that are computed anyway.
pub(crate) fn held_readers(marks: Marks, device: &Device, replaced: &[Arc<Node>]) -> Vec<Arc<Node>> {
    if !device.registry().pending.any(|node| node.is_held() && !marks.is(node, Flag::Taken) && node.is_pending()) {
        return Vec::new();
    }
    let mut pending = device.registry().pending.alive();
    replaced.iter().for_each(|leaf| marks.set(leaf, Flag::Reads));
    pending.sort_unstable_by_key(|node| node.id);
    pending.retain(|node| {
        let reads = node.is_pending() && node.state().edges.iter().any(|edge| marks.is(edge, Flag::Reads));
        if reads {
            marks.set(node, Flag::Reads);
        }
        let is_due = reads || (node.is_pending() && node.cells != 0 && !node.is_tracked());
        is_due && node.is_held() && !marks.is(node, Flag::Taken)
    });
    pending
}

/// Whether the value of a node that is computed is kept.
pub(crate) fn is_kept(marks: Marks, node: &Arc<Node>) -> bool {
    marks.is(node, Flag::Asked) || (node.is_held() && !node.is_number() && !is_free(marks, node))
}

/// Whether a pending node only looks at values that are there and stay: recomputing it is free, so it is not stored.
fn is_free(marks: Marks, node: &Arc<Node>) -> bool {
    let mut node = node.clone();
    loop {
        if !node.op.is_view() || node.cell.is_some() {
            return false;
        }
        let Some(edge) = node.state().edges.first().cloned() else {
            return false;
        };
        if !edge.is_pending() {
            return !marks.is(&edge, Flag::Replaced);
        }
        node = edge;
    }
}

/// An error of making a plan or running it, with the op that it most likely came from.
pub(crate) fn failed(extraction: &Extraction, kind: ErrorKind) -> Error {
    let is_it = |node: &&Arc<Node>| match (&node.op, &kind) {
        (Op::Gather(a) | Op::Scatter(_, a), ErrorKind::Index { axis, extent, .. }) => {
            let indexed = node.state().edges.first().map(|e| e.ty.shape.clone());
            a == axis && indexed.is_some_and(|shape| shape[*a] == *extent)
        }
        (Op::Custom(custom), ErrorKind::Custom { op, .. }) => custom.name == *op,
        _ => false,
    };
    match extraction.nodes().find(is_it).or(extraction.nodes().next_back()) {
        Some(node) => Error::located(node.op.name(), kind.clone(), node.location),
        None => Error::from(kind),
    }
}

/// After its evaluation a node keeps its edges only if a gradient can still be taken through them.
fn settle_edges(node: &Arc<Node>, device: &Device) {
    if node.stops || !node.is_tracked() {
        node.cut(Cut::Evaluated);
    } else if let Some(name) = device.may_be_stale(node).then(|| stale_cell(node)).flatten() {
        node.cut(Cut::Updated(name));
    } else {
        device.registry().keeps_edges.push(node, Node::has_edges);
    }
}

/// Cuts the edges of evaluated nodes whose parameters have been assigned since.
pub(crate) fn cut_stale(device: &Device) {
    let listed = device.registry().keeps_edges.alive();
    for node in listed {
        if let Some(name) = device.may_be_stale(&node).then(|| stale_cell(&node)).flatten() {
            node.cut(Cut::Updated(name));
        }
    }
    device.registry().keeps_edges.sweep(Node::has_edges);
}
