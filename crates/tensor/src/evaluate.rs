//! Evaluation: from pending nodes to a graph, a cached plan, a run, and values.

use crate::cell::stale_cell;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::node::{Cut, Node, Value};
use gradus_ir::op::Op;
use gradus_ir::{Error as ErrorKind, Executable, Graph, NodeId, Number};
use lru::LruCache;
use std::cell::Cell as ThreadCell;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, MutexGuard};

/// Compiled plans kept per device.
const CACHED_PLANS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// What evaluations of a device share. Its lock is held while graphs are looked at or changed, not while they run: a run
/// may wait for other tasks on this very thread, which may evaluate too.
pub(crate) struct Planner {
    plans: LruCache<Graph, Arc<dyn Executable>>,
    /// Counts evaluations, so that marks of earlier ones are told apart.
    epoch: u64,
    /// Runs under way that overwrite buffers: what reads these is on its way too.
    overwriting: usize,
}

/// What the environment asks to be shown or done differently.
pub(crate) struct Debug {
    /// `GRADUS_DEBUG=plan`: print every new plan.
    plan: bool,
    /// `GRADUS_DEBUG=wgsl`: print every new kernel of a GPU.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    pub(crate) wgsl: bool,
    /// Unless `GRADUS_FUSE=0`: several ops may share a kernel.
    fuse: bool,
    /// `GRADUS_EAGER=1`: evaluate every op where it is called.
    pub(crate) eager: bool,
}

pub(crate) static DEBUG: LazyLock<Debug> = LazyLock::new(|| {
    let words = std::env::var("GRADUS_DEBUG").unwrap_or_default();
    Debug {
        plan: words.split(',').any(|w| w.trim() == "plan"),
        wgsl: words.split(',').any(|w| w.trim() == "wgsl"),
        fuse: std::env::var("GRADUS_FUSE").map_or(true, |v| v != "0"),
        eager: std::env::var("GRADUS_EAGER").is_ok_and(|v| v == "1"),
    }
});

impl Planner {
    pub(crate) fn new() -> Planner {
        Planner { plans: LruCache::new(CACHED_PLANS), epoch: 0, overwriting: 0 }
    }
}

/// The place of a node in the graph that is being made: epoch and node id in one mark.
const PLACE_BITS: u32 = 24;

struct Collector {
    epoch: u64,
    /// Pending nodes that are computed.
    nodes: Vec<Arc<Node>>,
}

impl Collector {
    fn is_marked(&self, node: &Node) -> bool {
        node.mark.load(Ordering::Relaxed) >> PLACE_BITS == self.epoch
    }

    /// Marks a node of this evaluation and notes its place in the graph.
    fn set_place(&self, node: &Node, place: NodeId) -> Result<()> {
        if place >> PLACE_BITS != 0 {
            let kind = ErrorKind::Backend(format!("{place} pending nodes are too many for one run: evaluate earlier"));
            return Err(Error::located(node.op.name(), kind, node.location));
        }
        node.mark.store(self.epoch << PLACE_BITS | place as u64, Ordering::Relaxed);
        Ok(())
    }

    fn place(&self, node: &Node) -> NodeId {
        (node.mark.load(Ordering::Relaxed) & ((1 << PLACE_BITS) - 1)) as NodeId
    }

    /// Adds a pending node and the pending nodes behind it.
    fn collect(&mut self, root: &Arc<Node>) {
        if self.is_marked(root) || !root.is_pending() {
            return;
        }
        let mut next = self.nodes.len();
        self.push(root);
        while next < self.nodes.len() {
            let node = self.nodes[next].clone();
            next += 1;
            for edge in &node.state().edges {
                if !self.is_marked(edge) && edge.is_pending() {
                    self.push(edge);
                }
            }
        }
    }

    fn push(&mut self, node: &Arc<Node>) {
        node.mark.store(self.epoch << PLACE_BITS, Ordering::Relaxed);
        self.nodes.push(node.clone());
    }
}

/// Computes `roots` and everything held on the way. `replaced` are leaves whose cells get new values: held tensors that
/// read them are computed too (no gradient can be taken through them any more), and their buffers may be overwritten if
/// no handle holds them.
pub(crate) fn run(roots: &[Arc<Node>], replaced: &[Arc<Node>]) -> Result<()> {
    have_values(roots)?;
    let mut devices: Vec<&Device> = Vec::new();
    for node in roots.iter().filter(|n| n.is_pending()).chain(replaced) {
        if !devices.contains(&&node.device) {
            devices.push(&node.device);
        }
    }
    // What one device has overwritten could not be restored if another then failed.
    let may_overwrite = devices.len() == 1;
    devices.iter().try_for_each(|device| run_on(device, roots, replaced, may_overwrite))
}

/// Nodes that stand for many values at once cannot be computed.
fn have_values(nodes: &[Arc<Node>]) -> Result<()> {
    match nodes.iter().find(|node| node.symbolic) {
        Some(node) => Err(Error::located(node.op.name(), ErrorKind::NoValue, node.location)),
        None => Ok(()),
    }
}

thread_local! {
    /// Whether this thread is inside of a run that overwrites buffers.
    static OVERWRITES: ThreadCell<bool> = const { ThreadCell::new(false) };
}

fn run_on(device: &Device, roots: &[Arc<Node>], replaced: &[Arc<Node>], may_overwrite: bool) -> Result<()> {
    let here = |nodes: &[Arc<Node>]| nodes.iter().filter(|n| n.device == *device).cloned().collect::<Vec<_>>();
    let (roots, replaced) = (here(roots), here(replaced));
    let mut planner = device.planner();
    let prepared = loop {
        match Prepared::new(&mut planner, device, &roots, &replaced, may_overwrite) {
            Err(error) if is_overwritten(&error) && planner.overwriting > 0 && !OVERWRITES.get() => {
                // Another thread's run will have computed what this one needs.
                planner = device.wait_for_runs(planner);
            }
            Err(error) => return Err(error),
            Ok(None) => return Ok(()),
            Ok(Some(prepared)) => break prepared,
        }
    };
    let Prepared { nodes, kept, traced: Traced { graph, leaves, scalars }, executable } = prepared;
    let mut inputs: Vec<_> = leaves
        .iter()
        .zip(&graph.donated)
        .map(|(leaf, &donated)| {
            let mut state = leaf.state();
            let value = if donated { std::mem::replace(&mut state.value, Value::Gone) } else { state.value.clone() };
            match value {
                Value::Ready(buffer) => Some(buffer),
                Value::Pending | Value::Gone => None,
            }
        })
        .collect();
    let overwrites = graph.donated.contains(&true);
    let mut run = Run::begin(device, planner, overwrites);
    let result = executable.run(&mut inputs, &scalars);
    run.lock();
    for ((leaf, &donated), buffer) in leaves.iter().zip(&graph.donated).zip(inputs) {
        // What the run did not take (all of it, if it failed early) still holds its value.
        if let (true, Some(buffer)) = (donated, buffer) {
            leaf.state().value = Value::Ready(buffer);
        }
    }
    let outputs = result.map_err(|kind| failed(&nodes, kind))?;
    let computed = nodes.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(node, _)| node);
    for (node, buffer) in computed.zip(outputs) {
        node.state().value = Value::Ready(buffer);
        settle_edges(node, device);
    }
    Ok(())
}

/// A run: while it goes on, the evaluation lock is free.
struct Run<'a> {
    device: &'a Device,
    overwrites: bool,
    /// Whether this thread was inside of an overwriting run before.
    outer: bool,
    /// The evaluation lock, once the values are there and are being stored.
    planner: Option<MutexGuard<'a, Planner>>,
}

impl<'a> Run<'a> {
    fn begin(device: &'a Device, mut planner: MutexGuard<'a, Planner>, overwrites: bool) -> Run<'a> {
        planner.overwriting += overwrites as usize;
        Run { device, overwrites, outer: OVERWRITES.replace(overwrites || OVERWRITES.get()), planner: None }
    }

    fn lock(&mut self) {
        self.planner = Some(self.device.planner());
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

/// Whether a graph could not be made because a buffer behind it has been, or is being, overwritten.
fn is_overwritten(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ParameterUpdated { .. })
}

/// A graph that is ready to run.
struct Prepared {
    /// The nodes that are computed, in topological order.
    nodes: Vec<Arc<Node>>,
    /// Which of them keep their values.
    kept: Vec<bool>,
    traced: Traced,
    executable: Arc<dyn Executable>,
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
        planner.epoch += 1;
        // This comes before the search for readers: once no handle holds a leaf, no reader can be added.
        let donated: HashSet<u64> =
            replaced.iter().filter(|leaf| may_overwrite && may_donate(leaf)).map(|leaf| leaf.id).collect();
        let mut asked = roots.to_vec();
        if !replaced.is_empty() {
            asked.extend(held_readers(device, replaced));
        }
        let mut collector = Collector { epoch: planner.epoch, nodes: Vec::new() };
        for node in &asked {
            collector.collect(node);
        }
        let mut nodes = std::mem::take(&mut collector.nodes);
        if nodes.is_empty() {
            return Ok(None);
        }
        nodes.sort_unstable_by_key(|node| node.id);

        let asked: HashSet<u64> = asked.iter().map(|node| node.id).collect();
        let kept: Vec<bool> = nodes
            .iter()
            .map(|node| asked.contains(&node.id) || (node.is_held() && !node.is_number() && !is_view_of_value(node)))
            .collect();
        let traced = extract(&collector, Traced::default(), &nodes, &kept, &donated)?;
        let computed = nodes.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(node, _)| &**node);
        let executable = compile(planner, device, &traced.graph, computed)?;
        Ok(Some(Prepared { nodes, kept, traced, executable }))
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
/// from, such as a sum of the losses of earlier steps.
fn held_readers(device: &Device, replaced: &[Arc<Node>]) -> Vec<Arc<Node>> {
    let mut reads: HashSet<u64> = replaced.iter().map(|leaf| leaf.id).collect();
    let mut pending = device.registry().pending.alive();
    pending.sort_unstable_by_key(|node| node.id);
    pending
        .into_iter()
        .filter(|node| {
            let state = node.state();
            let is_pending = matches!(state.value, Value::Pending);
            let reader = is_pending && state.edges.iter().any(|e| reads.contains(&e.id));
            if reader {
                reads.insert(node.id);
            }
            (reader || (is_pending && node.cells != 0 && !node.is_tracked())) && node.is_held()
        })
        .collect()
}

/// Whether a pending node only looks at values that are already there: recomputing it is free, so it is not stored.
fn is_view_of_value(node: &Arc<Node>) -> bool {
    let mut node = node.clone();
    loop {
        if !node.op.is_view() || node.cell.is_some() {
            return false;
        }
        let Some(edge) = node.state().edges.first().cloned() else {
            return false;
        };
        if !edge.is_pending() {
            return true;
        }
        node = edge;
    }
}

/// A graph and what its slots stand for.
#[derive(Default)]
pub(crate) struct Traced {
    pub(crate) graph: Graph,
    /// The nodes behind the input slots.
    pub(crate) leaves: Vec<Arc<Node>>,
    /// The numbers of the scalar slots.
    pub(crate) scalars: Vec<Number>,
}

/// Adds `nodes` (in topological order) to a graph, with the values that they read as inputs.
fn extract(
    collector: &Collector,
    traced: Traced,
    nodes: &[Arc<Node>],
    kept: &[bool],
    donated: &HashSet<u64>,
) -> Result<Traced> {
    let Traced { mut graph, mut leaves, mut scalars } = traced;
    for (node, &kept) in nodes.iter().zip(kept) {
        let edges = node.state().edges.clone();
        let mut operands = smallvec::SmallVec::new();
        for edge in &edges {
            if !collector.is_marked(edge) {
                if let Value::Gone = edge.state().value {
                    let name = edge.cell.as_ref().map_or(String::new(), |tag| tag.name());
                    return Err(Error::located(node.op.name(), ErrorKind::ParameterUpdated { name }, node.location));
                }
                let place = graph.input(edge.ty.shape.clone(), edge.ty.dtype, donated.contains(&edge.id));
                collector.set_place(edge, place)?;
                leaves.push(edge.clone());
            }
            operands.push(collector.place(edge));
        }
        let slot = scalars.len();
        let op = match node.op {
            Op::Scalar(_) => Op::Scalar(slot),
            Op::Random(_) => Op::Random(slot),
            ref op => op.clone(),
        };
        if !matches!(op, Op::Const(_)) {
            scalars.extend(node.number);
        }
        let place = graph.push(op, operands, node.ty.clone());
        collector.set_place(node, place)?;
        if kept {
            graph.outputs.push(place);
        }
    }
    Ok(Traced { graph, leaves, scalars })
}

/// The graph that computes `outputs` from `inputs`, without running it: input slot `i` is `inputs[i]`, and other values
/// on the way take the slots after them.
pub(crate) fn trace(outputs: &[Arc<Node>], inputs: &[Arc<Node>]) -> Result<Traced> {
    let Some(first) = outputs.first() else {
        return Ok(Traced::default());
    };
    have_values(outputs)?;
    let mut planner = first.device.planner();
    planner.epoch += 1;
    let collector = Collector { epoch: planner.epoch, nodes: Vec::new() };
    let mut traced = Traced::default();
    let as_input = |traced: &mut Traced, node: &Arc<Node>| {
        let place = traced.graph.input(node.ty.shape.clone(), node.ty.dtype, false);
        traced.leaves.push(node.clone());
        collector.set_place(node, place)
    };
    for input in inputs {
        as_input(&mut traced, input)?;
    }
    // Values count only where there are no edges; elsewhere the graph is followed.
    let mut nodes = Vec::new();
    let mut stack: Vec<Arc<Node>> = outputs.to_vec();
    while let Some(node) = stack.pop() {
        if collector.is_marked(&node) {
            continue;
        }
        let edges = node.state().edges.clone();
        if edges.is_empty() && !node.is_pending() {
            as_input(&mut traced, &node)?;
            continue;
        }
        collector.set_place(&node, 0)?;
        stack.extend(edges);
        nodes.push(node);
    }
    nodes.sort_unstable_by_key(|node| node.id);
    let kept = vec![false; nodes.len()];
    let mut traced = extract(&collector, traced, &nodes, &kept, &HashSet::new())?;
    traced.graph.outputs = outputs.iter().map(|output| collector.place(output)).collect();
    Ok(traced)
}

/// The executable of a graph, from the cache if it is there. `outputs` are the nodes that keep their values.
fn compile<'a>(
    planner: &mut Planner,
    device: &Device,
    graph: &Graph,
    outputs: impl Iterator<Item = &'a Node>,
) -> Result<Arc<dyn Executable>> {
    if let Some(executable) = planner.plans.get(graph) {
        return Ok(executable.clone());
    }
    let target = device.backend().target();
    let plan = if DEBUG.fuse { gradus_ir::plan(graph, target) } else { gradus_ir::plan_unfused(graph, target) };
    if DEBUG.plan {
        eprintln!("plan for {device}:\n{plan}");
        for (node, buffer) in outputs.zip(&plan.outputs) {
            let (op, shape, at) = (node.op.name(), &node.ty.shape, node.location);
            eprintln!("      keeps {} {op}{shape} of {}:{}", plan.buffer_name(*buffer), at.file(), at.line());
        }
    }
    let executable: Arc<dyn Executable> = Arc::from(device.backend().compile(plan)?);
    planner.plans.put(graph.clone(), executable.clone());
    Ok(executable)
}

/// A run's error, with the op that it most likely came from.
fn failed(nodes: &[Arc<Node>], kind: ErrorKind) -> Error {
    let indexes = |node: &&Arc<Node>| match (&node.op, &kind) {
        (Op::Gather(a) | Op::Scatter(_, a), ErrorKind::Index { axis, extent, .. }) => {
            let indexed = node.state().edges.first().map(|e| e.ty.shape.clone());
            a == axis && indexed.is_some_and(|shape| shape[*a] == *extent)
        }
        _ => false,
    };
    match nodes.iter().find(indexes).or(nodes.last()) {
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
