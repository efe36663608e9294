//! What transformations of the recorded graph need: placeholders without a value, and ops that are recorded again.

use crate::graph::recorded_at;
use crate::node::{Edges, Node, Value};
use crate::notes::note_unrepeatable;
use crate::tensor::here;
use crate::{Device, GradientRule, Tensor, no_grad};
use gradus_ir::Number;
use gradus_ir::op::{Op, Type};
use std::cell::Cell as ThreadCell;
use std::panic::Location;
use std::sync::Arc;

thread_local! {
    static SYMBOLIC_SINCE: ThreadCell<u64> = const { ThreadCell::new(u64::MAX) };
}

/// A tensor that stands for many at once. What depends on it can be recorded, but has no value to read.
#[track_caller]
pub fn placeholder(ty: Type, device: &Device) -> Tensor {
    let mut node = Node::new(Op::Input(0), Edges::new(), Value::Pending, ty, device.clone(), here());
    node.symbolic = true;
    Tensor::share(node)
}

/// An id that every node recorded from now on reaches, and none before.
pub fn next_id() -> u64 {
    Node::next_id()
}

/// Runs `body`. Random numbers that it draws, or that were first drawn by a node of id `since` or later, stand for many
/// at once, as a [`placeholder`] does.
pub fn with_symbolic_draws<R>(since: u64, body: impl FnOnce() -> R) -> R {
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            SYMBOLIC_SINCE.set(self.0);
        }
    }
    let outer = SYMBOLIC_SINCE.get();
    let _restore = Restore(outer);
    SYMBOLIC_SINCE.set(since.min(outer));
    body()
}

/// Whether random numbers that were first drawn by a node stand for many at once.
pub(crate) fn is_symbolic_draw(drawn: u64) -> bool {
    drawn >= SYMBOLIC_SINCE.get()
}

/// What a node records, apart from its operands and its value: enough to record it again on others.
#[derive(Clone)]
pub struct Recipe {
    /// The primitive.
    pub op: Op,
    /// Shape and dtype.
    pub ty: Type,
    /// The gradient that replaces the op's own.
    pub rule: Option<Arc<dyn GradientRule>>,
    number: Option<Number>,
    drawn: u64,
    device: Device,
    location: &'static Location<'static>,
    stops: bool,
}

impl Recipe {
    pub(crate) fn of(node: &Node) -> Recipe {
        Recipe {
            op: node.op.clone(),
            ty: node.ty.clone(),
            rule: node.rule.clone(),
            number: node.number,
            drawn: node.drawn,
            device: node.device.clone(),
            location: node.location,
            stops: node.stops,
        }
    }

    /// Runs `body`, which records ops in place of the node: on its line, and without gradients if it has none.
    pub fn in_place<R>(&self, body: impl FnOnce() -> R) -> R {
        recorded_at(self.location, || if self.stops { no_grad(body) } else { body() })
    }

    /// Records the op on operands that fit it.
    pub fn record(&self, operands: &[&Tensor]) -> Tensor {
        if self.number.is_some() {
            note_unrepeatable();
        }
        self.in_place(|| match operands {
            [] => Tensor::draw(self.op.clone(), self.number, Some(self.drawn), self.ty.clone(), &self.device),
            _ => Tensor::record_node(self.op.clone(), operands, Some(self.ty.clone()), self.rule.clone()),
        })
    }
}
