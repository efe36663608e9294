//! Formulas of the op table, as recorded ops.

use gradus_ir::op::formula::{Formula, Term};
use gradus_ir::op::{BinaryOp, CompareOp, Op, UnaryOp};
use gradus_tensor::Tensor;
use gradus_tensor::graph::apply;
use std::collections::HashMap;

/// The tensor that a formula of `arguments` (tensors of one shape and dtype) stands for.
pub(crate) fn record(formula: &Formula, arguments: &[&Tensor]) -> Tensor {
    Recorder { arguments, done: HashMap::new() }.record(formula)
}

struct Recorder<'a> {
    arguments: &'a [&'a Tensor],
    /// Shared terms are recorded once.
    done: HashMap<usize, Tensor>,
}

impl Recorder<'_> {
    fn record(&mut self, formula: &Formula) -> Tensor {
        if let Some(tensor) = self.done.get(&formula.address()) {
            return tensor.clone();
        }
        let tensor = match formula.term() {
            Term::Argument(index, _) => self.arguments[*index].clone(),
            Term::Const(value) => gradus_tensor::graph::constant_like(self.arguments[0], *value),
            Term::Unary(op, x) => self.unary(*op, x),
            Term::Binary(op, a, b) => self.binary(*op, a, b),
            Term::Choose { compare, left, right, then, otherwise } => {
                let condition = self.compare(*compare, left, right);
                let (then, otherwise) = (self.record(then), self.record(otherwise));
                apply(Op::Select, &[&condition, &then, &otherwise])
            }
        };
        self.done.insert(formula.address(), tensor.clone());
        tensor
    }

    fn unary(&mut self, op: UnaryOp, x: &Formula) -> Tensor {
        let x = self.record(x);
        apply(Op::Unary(op), &[&x])
    }

    fn binary(&mut self, op: BinaryOp, a: &Formula, b: &Formula) -> Tensor {
        let (a, b) = (self.record(a), self.record(b));
        apply(Op::Binary(op), &[&a, &b])
    }

    fn compare(&mut self, op: CompareOp, a: &Formula, b: &Formula) -> Tensor {
        let (a, b) = (self.record(a), self.record(b));
        apply(Op::Compare(op), &[&a, &b])
    }
}
