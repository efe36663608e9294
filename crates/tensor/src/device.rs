//! Devices: where tensors live, and what is recorded and cached for each.

use crate::ceilings::Ceilings;
use crate::error::Result;
use crate::evaluate::Planner;
use crate::node::Node;
use gradus_ir::{Backend, MemoryStats, Stats};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};

/// A device on which tensors live and ops run. Cloning is cheap; two clones are the same device.
///
/// ```
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let x = Tensor::new([1.0, 2.0], &device);
/// assert_eq!((x * 2.0).to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    name: String,
    backend: Box<dyn Backend>,
    registry: Mutex<Registry>,
    planner: Mutex<Planner>,
    /// Told when a run that overwrites buffers is over.
    run_over: Condvar,
    /// For each cell bit, the next node id at its last assignment.
    assigned: [AtomicU64; 64],
    ceilings: OnceLock<Ceilings>,
}

/// The nodes of a device that may need attention.
#[derive(Default)]
pub(crate) struct Registry {
    /// Nodes that were pending when they were last looked at, in order of recording.
    pub(crate) pending: WeakNodes,
    /// Evaluated nodes that keep their edges for `grad`.
    pub(crate) keeps_edges: WeakNodes,
    /// At least as many untracked nodes are pending as this.
    untracked: usize,
}

/// So many nodes are not worth a sweep. Their memory is not free before it.
const FEW: usize = 128;

/// Nodes that others own. The dropped ones, and those that no longer belong here, are swept out now and then.
#[derive(Default)]
pub(crate) struct WeakNodes {
    nodes: Vec<Weak<Node>>,
    swept: usize,
}

impl WeakNodes {
    pub(crate) fn push(&mut self, node: &Arc<Node>, belongs: fn(&Node) -> bool) {
        self.nodes.push(Arc::downgrade(node));
        if self.nodes.len() > 2 * self.swept + FEW {
            self.sweep(belongs);
        }
    }

    pub(crate) fn sweep(&mut self, belongs: fn(&Node) -> bool) {
        self.nodes.retain(|weak| weak.upgrade().is_some_and(|node| belongs(&node)));
        self.swept = self.nodes.len();
    }

    /// Whether there is one like this.
    pub(crate) fn any(&self, like: impl Fn(&Node) -> bool) -> bool {
        self.nodes.iter().filter_map(Weak::upgrade).any(|node| like(&node))
    }

    pub(crate) fn alive(&self) -> Vec<Arc<Node>> {
        self.nodes.iter().filter_map(Weak::upgrade).collect()
    }
}

/// At most this many untracked nodes are pending: then they evaluate themselves, so that unread results stay flat in memory.
pub(crate) const PENDING_LIMIT: usize = 4096;

impl Device {
    /// A device of one's own, from any backend.
    pub fn from_backend(name: impl Into<String>, backend: Box<dyn Backend>) -> Device {
        Device(Arc::new(Inner {
            name: name.into(),
            backend,
            registry: Mutex::default(),
            planner: Mutex::new(Planner::new()),
            run_over: Condvar::new(),
            assigned: [const { AtomicU64::new(0) }; 64],
            ceilings: OnceLock::new(),
        }))
    }

    /// What it can do at most, once that was measured.
    pub(crate) fn known_ceilings(&self) -> &OnceLock<Ceilings> {
        &self.0.ceilings
    }

    /// The name, as in `cpu` or `gpu:0`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the device is, in words: the adapter and its driver, or the processor.
    pub fn description(&self) -> String {
        self.0.backend.description()
    }

    /// Why the device is gone, if it is: its driver was reset, or it was unplugged. Its tensors are gone with it; open it
    /// again (the same name gives a new device then) and go on from host copies.
    pub fn lost(&self) -> Option<String> {
        self.0.backend.lost()
    }

    /// Bytes in use now and at most.
    pub fn memory(&self) -> MemoryStats {
        self.0.backend.memory()
    }

    /// What the device has done so far: plans, pipelines, bind groups and buffers made, kernels launched.
    ///
    /// ```
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu_with(1, None)?;
    /// let mut x = Tensor::ones([4], &device);
    /// for _ in 0..3 {
    ///     x = (x * 2.0).sin();
    ///     x.eval()?;
    /// }
    /// // One step like the other: the ones are a number, what follows is read from memory.
    /// assert_eq!(device.stats().plans, 2);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    pub fn stats(&self) -> Stats {
        Stats { plans: self.planner().plans.made(), ..self.0.backend.stats() }
    }

    /// Waits until everything submitted has run.
    ///
    /// # Errors
    /// What the device could not do.
    pub fn synchronise(&self) -> Result<()> {
        Ok(self.0.backend.synchronise()?)
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    /// How many nodes and handles share the device.
    pub(crate) fn owners(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        // Lists of weak references: right after every statement, so a poisoned lock is still good.
        self.0.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The evaluation lock.
    pub(crate) fn planner(&self) -> MutexGuard<'_, Planner> {
        self.0.planner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits, without the evaluation lock, until a run that overwrites buffers is over.
    pub(crate) fn wait_for_runs<'a>(&self, planner: MutexGuard<'a, Planner>) -> MutexGuard<'a, Planner> {
        self.0.run_over.wait(planner).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tells those who wait that a run that overwrites buffers is over.
    pub(crate) fn run_is_over(&self) {
        self.0.run_over.notify_all();
    }

    /// Notes a new pending node; says whether it is time to evaluate what is pending.
    pub(crate) fn register(&self, node: &Arc<Node>) -> bool {
        let mut registry = self.registry();
        registry.pending.push(node, Node::is_pending);
        registry.untracked += !node.is_tracked() as usize;
        if registry.untracked <= PENDING_LIMIT {
            return false;
        }
        // Most of those counted were evaluated or dropped since.
        registry.pending.sweep(Node::is_pending);
        let untracked = registry.pending.alive().iter().filter(|node| !node.is_tracked()).count();
        let is_time = untracked > PENDING_LIMIT / 2;
        registry.untracked = if is_time { 0 } else { untracked };
        is_time
    }

    /// Notes that a cell with this bit is assigned now.
    pub(crate) fn note_assignment(&self, bit: u32) {
        self.0.assigned[bit as usize].store(Node::next_id(), Ordering::Release);
    }

    /// Whether a cell with a bit of the node's may have been assigned since the node was recorded.
    pub(crate) fn may_be_stale(&self, node: &Node) -> bool {
        (0..64).any(|bit| node.cells >> bit & 1 == 1 && self.0.assigned[bit].load(Ordering::Acquire) > node.id)
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.0.name)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}
