//! Nodes: what an op records. A node is immutable but for its state (edges and value).

use crate::cell::CellTag;
use crate::device::Device;
use crate::notes::is_recording;
use crate::rule::GradientRule;
use crate::scope::{is_profiled, note};
use gradus_ir::op::{Op, Type};
use gradus_ir::{Buffer, Number};
use smallvec::SmallVec;
use std::cell::Cell;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The earlier nodes that a node reads.
pub(crate) type Edges = SmallVec<[Arc<Node>; 3]>;

/// One recorded op.
pub(crate) struct Node {
    /// Grows with every node: sorting by it is a topological order.
    pub(crate) id: u64,
    /// The smallest id among this node and those that a gradient reaches through it.
    pub(crate) first: u64,
    /// The primitive; slots in it are filled when a graph is made.
    pub(crate) op: Op,
    /// The number of a `Scalar`, the key of a `Random`.
    pub(crate) number: Option<Number>,
    /// The node that first drew these random numbers: this one, unless it was recorded from a recipe.
    pub(crate) drawn: u64,
    pub(crate) ty: Type,
    pub(crate) device: Device,
    pub(crate) location: &'static Location<'static>,
    /// Which cells the node depends on: bit `cell id % 64`.
    pub(crate) cells: u64,
    /// A [`Reach`] as a number.
    reach: AtomicU64,
    /// Whether gradients stop here: detached, or recorded under `no_grad`.
    pub(crate) stops: bool,
    /// Whether it stands for many values at once, as a transformation's placeholder does and what depends on one: it is
    /// never computed.
    pub(crate) symbolic: bool,
    /// Set on the leaf that stands for a cell's value.
    pub(crate) cell: Option<CellTag>,
    /// Whether it was recorded for a compiled function, which runs without it: it is not evaluated.
    pub(crate) recorded: bool,
    /// Replaces the derivative of the op.
    pub(crate) rule: Option<Arc<dyn GradientRule>>,
    /// Live `Tensor` handles, counted apart from graph edges.
    pub(crate) held: AtomicUsize,
    /// Scratch of evaluations, guarded by the device's evaluation lock.
    pub(crate) mark: AtomicU64,
    /// Whether there is no value yet; it changes with the state locked.
    pending: AtomicBool,
    state: Mutex<State>,
}

/// Whether a node leads to a parameter, as far as gradients go. What several nodes lead to together is the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reach {
    /// It does not.
    Nothing,
    /// It did, until a parameter was assigned and the graph was cut behind some nodes; this is the greatest id of them.
    Lost(u64),
    /// It does: its edges are kept for `grad`.
    Parameter,
}

impl Reach {
    /// A number that grows with it; ids begin with 1.
    fn to_bits(self) -> u64 {
        match self {
            Reach::Nothing => 0,
            Reach::Lost(id) => id,
            Reach::Parameter => u64::MAX,
        }
    }

    fn from_bits(bits: u64) -> Reach {
        match bits {
            0 => Reach::Nothing,
            u64::MAX => Reach::Parameter,
            id => Reach::Lost(id),
        }
    }
}

/// What changes about a node.
// With the edges at the end: copies of a new node run over the lock's padding and what comes first, in pieces that do not match how
// that was written, and a processor waits where it loads what it has just stored in other pieces.
#[derive(Default)]
#[repr(C)]
pub(crate) struct State {
    /// Why the edges are gone.
    pub(crate) cut: Cut,
    /// Set by [`Node::set_value`].
    pub(crate) value: Value,
    pub(crate) edges: Edges,
}

/// Why a node has no edges.
#[derive(Clone, Default, Debug, PartialEq)]
pub(crate) enum Cut {
    /// It has them, or never had any.
    #[default]
    No,
    /// It was evaluated and nothing that it depends on is tracked.
    Evaluated,
    /// This parameter was updated.
    Updated(String),
}

/// A node's value.
#[derive(Clone, Default)]
pub(crate) enum Value {
    /// Not computed.
    #[default]
    Pending,
    /// Computed.
    Ready(Buffer),
    /// Overwritten by an update in place.
    Gone,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Node {
    /// The smallest id that no node has yet.
    pub(crate) fn next_id() -> u64 {
        NEXT_ID.load(Ordering::Relaxed)
    }

    /// A node without number, cell and rule; callers fill these in before sharing it.
    // Inlined, it is copied once less on its way to where it stays.
    #[inline(always)]
    pub(crate) fn new(
        op: Op,
        edges: Edges,
        value: Value,
        ty: Type,
        device: Device,
        location: &'static Location<'static>,
    ) -> Node {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        if is_profiled() {
            note(id);
        }
        Node {
            id,
            first: edges.iter().map(|e| e.first).min().unwrap_or(id),
            op,
            number: None,
            drawn: id,
            ty,
            device,
            location,
            cells: edges.iter().fold(0, |mask, e| mask | e.cells),
            reach: AtomicU64::new(edges.iter().map(|e| e.passes_on()).max().unwrap_or(Reach::Nothing).to_bits()),
            stops: false,
            symbolic: edges.iter().any(|e| e.symbolic),
            cell: None,
            recorded: is_recording(),
            rule: None,
            held: AtomicUsize::new(0),
            mark: AtomicU64::new(0),
            pending: AtomicBool::new(matches!(value, Value::Pending)),
            state: Mutex::new(State { edges, value, cut: Cut::No }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // State is replaced whole, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
    }

    pub(crate) fn is_held_once(&self) -> bool {
        self.held.load(Ordering::Acquire) == 1
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Changes the value and gives the old one back.
    pub(crate) fn set_value(&self, value: Value) -> Value {
        let mut state = self.state();
        self.pending.store(matches!(value, Value::Pending), Ordering::Release);
        std::mem::replace(&mut state.value, value)
    }

    /// Whether a parameter can be reached from it.
    pub(crate) fn is_tracked(&self) -> bool {
        self.reach() == Reach::Parameter
    }

    pub(crate) fn reach(&self) -> Reach {
        Reach::from_bits(self.reach.load(Ordering::Relaxed))
    }

    /// Changes what it leads to.
    pub(crate) fn set_reach(&self, reach: Reach) {
        self.reach.store(reach.to_bits(), Ordering::Relaxed);
    }

    /// What its readers lead to through it.
    fn passes_on(&self) -> Reach {
        match self.reach() {
            Reach::Parameter if self.is_stale_leaf() => Reach::Nothing,
            reach => reach,
        }
    }

    pub(crate) fn has_edges(&self) -> bool {
        !self.state().edges.is_empty()
    }

    /// Whether it stands for a value that its cell no longer has.
    pub(crate) fn is_stale_leaf(&self) -> bool {
        self.cell.as_ref().is_some_and(CellTag::is_stale)
    }

    /// Whether it stands for an input of a compiled function.
    pub(crate) fn is_placeholder(&self) -> bool {
        matches!(self.op, Op::Input(_)) && self.is_pending()
    }

    /// A number of the user or the library: free to recompute, so never kept.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self.op, Op::Scalar(_) | Op::Const(_))
    }

    /// Removes the edges and says why. What is computed from the node later has no way to a parameter through it.
    pub(crate) fn cut(&self, why: Cut) {
        if self.cell.is_none() && self.is_tracked() {
            self.set_reach(Reach::Lost(self.id));
        }
        let mut state = self.state();
        let edges = std::mem::take(&mut state.edges);
        state.cut = why;
        drop(state);
        drop(edges);
    }
}

thread_local! {
    /// How many nodes are being dropped, each by the one before.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// How many nodes may be dropped within each other.
const DEEPEST: usize = 64;

impl Drop for Node {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.edges.is_empty() {
            return;
        }
        let depth = DEPTH.get();
        if depth == DEEPEST {
            return drop_chain(std::mem::take(&mut state.edges));
        }
        DEPTH.set(depth + 1);
        state.edges.clear();
        DEPTH.set(depth);
    }
}

/// Drops edges without recursion: a chain of a million nodes must not overflow the stack.
fn drop_chain(edges: Edges) {
    let mut stack = edges;
    while let Some(node) = stack.pop() {
        // The last owner takes the edges out, so that the node's own drop finds none.
        if Arc::strong_count(&node) == 1 {
            stack.extend(std::mem::take(&mut node.state().edges));
        }
    }
}
