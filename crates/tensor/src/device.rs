//! Devices: where tensors live, and what is recorded and cached for each.

use crate::error::{Error, Result};
use crate::evaluate::Planner;
use crate::node::Node;
use gradus_ir::{Backend, Error as ErrorKind, MemoryStats};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, Weak};

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

/// Nodes that others own. The dropped ones, and those that no longer belong here, are swept out now and then.
#[derive(Default)]
pub(crate) struct WeakNodes {
    nodes: Vec<Weak<Node>>,
    swept: usize,
}

impl WeakNodes {
    pub(crate) fn push(&mut self, node: &Arc<Node>, belongs: fn(&Node) -> bool) {
        self.nodes.push(Arc::downgrade(node));
        if self.nodes.len() > 2 * self.swept + 1024 {
            self.sweep(belongs);
        }
    }

    pub(crate) fn sweep(&mut self, belongs: fn(&Node) -> bool) {
        self.nodes.retain(|weak| weak.upgrade().is_some_and(|node| belongs(&node)));
        self.swept = self.nodes.len();
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
        }))
    }

    /// The CPU with all its cores: the same device at every call. `GRADUS_MEMORY_LIMIT` (bytes, or with `K`, `M`, `G`)
    /// sets its memory budget.
    pub fn cpu() -> Device {
        static CPU: LazyLock<Device> = LazyLock::new(|| {
            let limit = std::env::var("GRADUS_MEMORY_LIMIT").ok().filter(|text| !text.is_empty()).and_then(|text| {
                let bytes = parse_bytes(&text);
                if bytes.is_none() {
                    eprintln!("gradus: GRADUS_MEMORY_LIMIT={text} is no number of bytes (as in 512M): no limit is set");
                }
                bytes
            });
            // Without threads of its own there is nothing that can fail.
            let backend = gradus_cpu::Cpu::new(None, limit).expect("the global thread pool needs no set-up");
            Device::from_backend("cpu", Box::new(backend))
        });
        CPU.clone()
    }

    /// A new CPU device with its own threads and, if given, its own memory budget in bytes.
    ///
    /// # Errors
    /// If the threads cannot be started.
    #[track_caller]
    pub fn cpu_with(threads: usize, memory_limit: Option<usize>) -> Result<Device> {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let backend = gradus_cpu::Cpu::new(Some(threads), memory_limit)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Device::from_backend(format!("cpu:{number}"), Box::new(backend)))
    }

    /// The device named by `GRADUS_DEVICE`, else the best there is.
    ///
    /// # Errors
    /// If `GRADUS_DEVICE` names a device that is not there.
    #[track_caller]
    pub fn best() -> Result<Device> {
        match std::env::var("GRADUS_DEVICE") {
            Ok(name) if !name.is_empty() && name != "best" => Device::named(&name),
            _ => Ok(Device::cpu()),
        }
    }

    /// The device of a name: `best`, or `cpu`.
    ///
    /// # Errors
    /// If there is none of this name.
    #[track_caller]
    pub fn named(name: &str) -> Result<Device> {
        match name {
            "best" => Device::best(),
            "cpu" => Ok(Device::cpu()),
            other => {
                let reason = "this build has the devices: cpu".to_string();
                Err(Error::new("device", ErrorKind::NoDevice { asked: other.into(), reason }))
            }
        }
    }

    /// The name, as in `cpu`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes in use now and at most.
    pub fn memory(&self) -> MemoryStats {
        self.0.backend.memory()
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

/// A number of bytes, with an optional unit.
fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        _ => (text, 0),
    };
    digits.trim().parse::<usize>().ok()?.checked_mul(1 << shift)
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

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes(" 2G "), Some(2 << 30));
        assert_eq!(parse_bytes("1 m"), Some(1 << 20));
        assert_eq!(parse_bytes("lots"), None);
    }
}
