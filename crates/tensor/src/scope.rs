//! Which modules recorded which nodes, for a profile. Nodes have ascending numbers, so those of a forward pass, or of the gradient
//! of one of its nodes, lie between two of them. Nothing is noted unless a profile is made.

use crate::graph::next_id;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Profiles under way, of any device.
static PROFILES: AtomicUsize = AtomicUsize::new(0);

static LOG: Mutex<Log> = Mutex::new(Log { number: 0, ranges: Vec::new() });

/// What was noted since there was no profile.
struct Log {
    /// Tells logs apart: a scope may outlive the profile in which it began.
    number: u64,
    /// In the order in which they began, so of growing `since`.
    ranges: Vec<Range>,
}

/// Nodes that a scope covers: from `since` to before `until`.
struct Range {
    since: u64,
    until: u64,
    path: Arc<str>,
    /// The scope of the same thread in which it began.
    outer: Option<usize>,
}

thread_local! {
    /// The log and the range of the innermost scope of this thread.
    static INNERMOST: Cell<Option<(u64, usize)>> = const { Cell::new(None) };
}

fn log() -> MutexGuard<'static, Log> {
    // Ranges are added whole, so a poisoned lock is still good.
    LOG.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// While it lives, scopes are noted.
pub(crate) struct Noting;

impl Noting {
    pub(crate) fn begin() -> Noting {
        PROFILES.fetch_add(1, Relaxed);
        Noting
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        let mut log = log();
        if PROFILES.fetch_sub(1, Relaxed) == 1 {
            log.number += 1;
            log.ranges = Vec::new();
        }
    }
}

/// Whether a profile is made, so that it pays to tell which module records.
pub fn is_profiled() -> bool {
    PROFILES.load(Relaxed) > 0
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
    /// The log and the place in it; nothing, if there is no profile.
    place: Option<(u64, usize)>,
    outer: Option<(u64, usize)>,
}

impl Scope {
    /// Begins the scope of a module with a path.
    pub fn begin(path: &str) -> Scope {
        Scope::of(&path.into())
    }

    /// Begins a scope of the same module as that of a node, by its id: for its gradient. `None` if the node has none.
    pub fn of_node(id: u64) -> Option<Scope> {
        let path = log().path(id)?;
        Some(Scope::of(&path))
    }

    fn of(path: &Arc<str>) -> Scope {
        let outer = INNERMOST.get();
        if !is_profiled() {
            return Scope { place: None, outer };
        }
        let mut log = log();
        let (since, number) = (next_id(), log.number);
        let within = outer.filter(|(of, _)| *of == number).map(|(_, range)| range);
        match log.ranges.last_mut() {
            // Goes on where the same module has stopped.
            Some(last) if last.until == since && last.path == *path && last.outer == within => last.until = u64::MAX,
            _ => log.ranges.push(Range { since, until: u64::MAX, path: path.clone(), outer: within }),
        }
        let place = Some((number, log.ranges.len() - 1));
        INNERMOST.set(place);
        Scope { place, outer }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let Some((number, range)) = self.place else { return };
        INNERMOST.set(self.outer);
        let mut log = log();
        if log.number == number
            && let Some(range) = log.ranges.get_mut(range)
        {
            range.until = next_id();
        }
    }
}

impl Log {
    /// The path of the innermost scope around a node.
    fn path(&self, id: u64) -> Option<Arc<str>> {
        let mut place = self.ranges.partition_point(|range| range.since <= id).checked_sub(1);
        while let Some(range) = place.map(|place| &self.ranges[place]) {
            if id < range.until {
                return Some(range.path.clone());
            }
            place = range.outer;
        }
        None
    }
}

/// The paths of the innermost scopes around nodes.
pub(crate) fn paths(ids: impl Iterator<Item = u64>) -> Vec<Option<Arc<str>>> {
    let log = log();
    ids.map(|id| log.path(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(log: &Log, id: u64) -> Option<String> {
        log.path(id).map(|path| path.to_string())
    }

    #[test]
    fn the_innermost_scope_counts() {
        let range = |path: &str, since, until, outer| Range { since, until, path: path.into(), outer };
        let ranges = vec![
            range("a", 10, 40, None),
            range("a.b", 12, 20, Some(0)),
            range("a.c", 20, 20, Some(0)),
            range("d", 50, 60, None),
        ];
        let log = Log { number: 0, ranges };
        assert_eq!([9, 45, 60].map(|id| path(&log, id)), [None, None, None]);
        let found = [10, 12, 19, 20, 39, 50].map(|id| path(&log, id).unwrap());
        assert_eq!(found, ["a", "a.b", "a.b", "a", "a", "d"]);
    }
}
