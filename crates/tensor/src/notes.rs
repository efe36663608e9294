//! What is noted while something is recorded that will later run without being recorded: which cells it read, which keys it
//! drew, and which numbers it was given.

use crate::node::Node;
use crate::random::{Key, Rng};
use crate::{Cell, Tensor};
use foldhash::fast::FixedState;
use gradus_ir::Number;
use smallvec::SmallVec;
use std::cell::{Cell as ThreadCell, RefCell};
use std::collections::HashMap;

/// A number of a recording that is another one each time: see [`Routine`](crate::graph::Routine). Ops take it as they take a
/// Rust number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Live {
    pub(crate) index: usize,
    pub(crate) value: f64,
}

impl Live {
    /// Number `index` of those that change, with the value that it has now.
    pub fn new(index: usize, value: f64) -> Live {
        Live { index, value }
    }
}

/// Where a number of a recording comes from.
#[derive(Clone)]
pub(crate) enum Slot {
    /// It stays.
    Number(Number),
    /// A key that was drawn, or one that such a key leads to.
    Drawn(Drawn),
    /// One of the numbers that change.
    Live(usize),
}

/// Which key it is: a draw, and the indices that were folded into its key one after the other.
#[derive(Clone)]
pub(crate) struct Drawn {
    draw: usize,
    folded: SmallVec<[u64; 2]>,
}

impl Slot {
    /// The number, given the keys that were drawn anew and the numbers that change.
    pub(crate) fn number(&self, keys: &[Key], live: &[f64]) -> Number {
        match self {
            Slot::Number(number) => *number,
            Slot::Drawn(Drawn { draw, folded }) => {
                let key = folded.iter().fold(keys[*draw], |key, &index| key.fold_in(index));
                Number::Int(key.value() as i64)
            }
            Slot::Live(index) => Number::Float(live[*index]),
        }
    }
}

/// What was noted.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) draws: Vec<Rng>,
    /// The keys that were drawn, and those that they led to.
    keys: HashMap<u64, Drawn, FixedState>,
    /// The cells that were read, by the ids of the leaves that were got.
    pub(crate) cells: HashMap<u64, Cell, FixedState>,
    /// Which numbers that change were used, by the ids of the nodes that hold them.
    live: HashMap<u64, usize, FixedState>,
    /// Whether something was done that a run of what was recorded would not do: a value was read, or a number copied.
    pub(crate) is_unrepeatable: bool,
}

impl Notes {
    /// Where the number of a node comes from, if it has one.
    pub(crate) fn slot(&self, node: &Node) -> Option<Slot> {
        use gradus_ir::op::Op;
        let number = node.number?;
        match &node.op {
            Op::Const(_) => None,
            Op::Random(_) => {
                let drawn = self.keys.get(&(number.to_i64() as u64)).cloned();
                Some(drawn.map_or(Slot::Number(number), Slot::Drawn))
            }
            _ => Some(self.live.get(&node.id).map_or(Slot::Number(number), |&index| Slot::Live(index))),
        }
    }
}

/// What this thread records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recording {
    Nothing,
    /// A function that is only recorded: what it records is not evaluated.
    Function,
    /// Something that is evaluated too.
    Update,
}

thread_local! {
    static RECORDING: ThreadCell<Recording> = const { ThreadCell::new(Recording::Nothing) };
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// Whether this thread records a compiled function.
pub(crate) fn is_recording() -> bool {
    RECORDING.get() == Recording::Function
}

/// Whether this thread takes notes.
fn is_noting() -> bool {
    RECORDING.get() != Recording::Nothing
}

/// Notes that a cell was read.
pub(crate) fn note_read(cell: &Cell, value: &Tensor) {
    if is_noting()
        && let Ok(node) = value.node()
    {
        NOTES.with_borrow_mut(|notes| notes.cells.insert(node.id, cell.clone()));
    }
}

/// Notes that a key was drawn.
pub(crate) fn note_draw(rng: &Rng, key: Key) {
    if !is_noting() {
        return;
    }
    NOTES.with_borrow_mut(|notes| {
        // A source that was split off while recording draws from a key that is known.
        if !notes.keys.contains_key(&key.value()) {
            let drawn = Drawn { draw: notes.draws.len(), folded: SmallVec::new() };
            notes.draws.push(rng.clone());
            notes.keys.insert(key.value(), drawn);
        }
    });
}

/// Notes that a key led to another.
pub(crate) fn note_fold(key: Key, index: u64, folded: Key) {
    if !is_noting() {
        return;
    }
    NOTES.with_borrow_mut(|notes| {
        if let Some(mut drawn) = notes.keys.get(&key.value()).cloned() {
            drawn.folded.push(index);
            notes.keys.insert(folded.value(), drawn);
        }
    });
}

/// Notes that a tensor holds a number that changes.
pub(crate) fn note_live(tensor: &Tensor, live: Live) {
    if is_noting()
        && let Ok(node) = tensor.node()
    {
        NOTES.with_borrow_mut(|notes| notes.live.insert(node.id, live.index));
    }
}

/// Notes that something was done which a run of what is recorded would not do.
pub(crate) fn note_unrepeatable() {
    if is_noting() {
        NOTES.with_borrow_mut(|notes| notes.is_unrepeatable = true);
    }
}

/// Whether a key will be another one next time, where it cannot be drawn on the host.
pub(crate) fn is_drawn(key: Key) -> bool {
    let is_known = is_noting() && NOTES.with_borrow(|notes| notes.keys.contains_key(&key.value()));
    if is_known {
        note_unrepeatable();
    }
    is_known && is_recording()
}

/// Does `body`, which is only recorded, while noting what it reads and draws.
pub(crate) fn recorded<R>(body: impl FnOnce() -> R) -> (R, Notes) {
    noting(Recording::Function, body)
}

/// Does `body`, whose tensors are evaluated later, while noting what it reads and draws.
pub(crate) fn noted<R>(body: impl FnOnce() -> R) -> (R, Notes) {
    noting(Recording::Update, body)
}

fn noting<R>(what: Recording, body: impl FnOnce() -> R) -> (R, Notes) {
    struct End(Recording, Notes);
    impl Drop for End {
        fn drop(&mut self) {
            RECORDING.set(self.0);
            NOTES.set(std::mem::take(&mut self.1));
        }
    }
    let end = End(RECORDING.replace(what), NOTES.take());
    let result = body();
    let notes = NOTES.take();
    drop(end);
    (result, notes)
}
