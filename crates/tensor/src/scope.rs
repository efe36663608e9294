//! Which modules recorded which nodes, for a profile. Nothing is noted unless one is made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

/// Profiles under way, of any device.
static PROFILES: AtomicUsize = AtomicUsize::new(0);

/// The paths of the modules of nodes, by the nodes' ids: of all that were recorded since there was no profile.
static PATHS: LazyLock<Mutex<HashMap<u64, Arc<str>>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// The path of the innermost scope of this thread.
    static INNERMOST: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

fn noted() -> MutexGuard<'static, HashMap<u64, Arc<str>>> {
    // Paths are added whole, so a poisoned lock is still good.
    PATHS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// While it lives, nodes that are recorded in scopes are noted.
pub(crate) struct Noting;

impl Noting {
    pub(crate) fn begin() -> Noting {
        PROFILES.fetch_add(1, Relaxed);
        Noting
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        let mut paths = noted();
        if PROFILES.fetch_sub(1, Relaxed) == 1 {
            *paths = HashMap::new();
        }
    }
}

/// Whether a profile is made, so that it pays to tell which module records.
#[inline]
pub fn is_profiled() -> bool {
    PROFILES.load(Relaxed) > 0
}

/// Notes that this thread records a node.
#[cold]
pub(crate) fn note(id: u64) {
    if let Some(path) = INNERMOST.with_borrow(Option::clone) {
        noted().insert(id, path);
    }
}

/// What is recorded by this thread until it is dropped belongs to a module, as far as a profile is concerned. Scopes may lie in each
/// other: the innermost counts.
///
/// ```
/// use gradus_tensor::graph::Scope;
/// use gradus_tensor::{Device, Key, Tensor};
///
/// let device = Device::cpu();
/// let x = Tensor::rand([64, 64], Key::new(0), &device);
/// let ((), profile) = device.profile(|| {
///     let scope = Scope::begin("encoder.0");
///     let y = x.matmul(&x);
///     drop(scope);
///     y.eval()
/// })?;
/// assert!(profile.runs.iter().any(|run| run.modules[..] == ["encoder.0"]));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Scope {
    outer: Option<Arc<str>>,
    /// It ends in the thread in which it began.
    _thread: PhantomData<*const ()>,
}

impl Scope {
    /// Begins the scope of a module with a path.
    pub fn begin(path: &str) -> Scope {
        Scope::of(path.into())
    }

    /// Begins a scope of the same module as that of a node, by its id: for its gradient. `None` if the node has none.
    pub fn of_node(id: u64) -> Option<Scope> {
        let path = noted().get(&id)?.clone();
        Some(Scope::of(path))
    }

    fn of(path: Arc<str>) -> Scope {
        Scope { outer: INNERMOST.replace(Some(path)), _thread: PhantomData }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        INNERMOST.set(self.outer.take());
    }
}

/// The paths of the innermost scopes around nodes.
pub(crate) fn paths(ids: impl Iterator<Item = u64>) -> Vec<Option<Arc<str>>> {
    let paths = noted();
    ids.map(|id| paths.get(&id).cloned()).collect()
}
