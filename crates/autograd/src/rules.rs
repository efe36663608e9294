//! The derivative of each primitive, as recorded ops. Rows bring theirs as formulas; the others are here, by family.

use crate::windows::unwindow;
use crate::{attention, formula, scan};
use gradus_ir::op::formula::{Derivative, Formula};
use gradus_ir::op::{BinaryOp, Op, PadAxis, ReduceOp, ScatterMode, SliceAxis, UnaryOp};
use gradus_tensor::graph::{NodeRef, apply, recorded_at};
use gradus_tensor::{DType, ErrorKind, Shape, Tensor, cat};

/// The errors of rules; the walk says where gradients were asked for.
type Result<T> = std::result::Result<T, ErrorKind>;

/// The cotangents of a node's operands, for those that are wanted. `g` is the cotangent of the node.
pub(crate) fn backward(
    node: &NodeRef,
    operands: &[NodeRef],
    wanted: &[bool],
    g: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    if let Some(rule) = node.rule() {
        return custom(node, operands, wanted, g, rule.as_ref());
    }
    recorded_at(node.location(), || primitive(node, operands, wanted, g))
}

fn primitive(node: &NodeRef, operands: &[NodeRef], wanted: &[bool], g: &Tensor) -> Result<Vec<Option<Tensor>>> {
    let x = |i: usize| operands[i].tensor();
    let shape = |i: usize| &operands[i].ty().shape;
    let only = |gradient: Tensor| Ok(vec![Some(gradient)]);
    match node.op() {
        Op::Unary(op) => Ok(vec![unary(*op, node, &x(0), g)?]),
        Op::Binary(op) => binary(*op, node, &x(0), &x(1), wanted, g),
        Op::Select => {
            // The condition chooses; nothing flows through it.
            let (condition, zero) = (x(0), g.zeros_like());
            let then = wanted[1].then(|| apply(Op::Select, &[&condition, g, &zero]));
            let otherwise = wanted[2].then(|| apply(Op::Select, &[&condition, &zero, g]));
            Ok(vec![None, then, otherwise])
        }
        Op::Cast => match (operands[0].ty().dtype, node.ty().dtype) {
            (from, to) if from.is_float() && to.is_float() => only(g.to_dtype(from)),
            _ => Err(not_differentiable(node)),
        },
        Op::Reshape => only(g.reshape(shape(0))),
        Op::Permute(axes) => {
            let mut inverse = vec![0; axes.len()];
            for (i, &axis) in axes.iter().enumerate() {
                inverse[axis] = i;
            }
            only(g.permute_axes(&inverse))
        }
        Op::Expand => {
            let repeated: Vec<usize> =
                (0..shape(0).len()).filter(|&a| shape(0)[a] == 1 && node.ty().shape[a] != 1).collect();
            only(g.sum_keepdim(repeated))
        }
        Op::Slice(slices) => only(unslice(slices, shape(0), g)),
        Op::Pad(pads) => only(unpad(pads, shape(0), g)),
        Op::Window(windows) => only(unwindow(windows, shape(0), g)),
        Op::Reduce(op, axes) => match op {
            ReduceOp::Sum => only(g.broadcast_to(shape(0).clone())),
            ReduceOp::Prod => only(exclusive_products(&x(0), axes) * g),
            ReduceOp::Max | ReduceOp::Min => only(share_among_best(&x(0), &node.tensor(), axes, g)),
            ReduceOp::ArgMax | ReduceOp::ArgMin => Err(not_differentiable(node)),
        },
        Op::Contract { batch, contracted } => Ok(contract(*batch, *contracted, &x(0), &x(1), wanted, g)),
        Op::Gather(axis) => {
            no_flow_through_index(node, wanted[1])?;
            let zeros = Tensor::zeros(shape(0), &x(0));
            Ok(vec![Some(zeros.scatter_add(*axis as isize, &x(1), g)), None])
        }
        Op::Scatter(mode, axis) => {
            no_flow_through_index(node, wanted[1])?;
            Ok(scatter(*mode, *axis as isize, &x(1), wanted, g))
        }
        Op::Scan(op, axis) => Ok(scan::backward(*op, *axis as isize, &x, &node.tensor(), wanted, g)),
        Op::Attention { part, causal } => {
            let operands: Vec<Tensor> = operands.iter().map(NodeRef::tensor).collect();
            Ok(attention::backward(*part, *causal, &operands, node, wanted, g))
        }
        Op::Barrier => {
            let mut gradients = vec![None; operands.len()];
            gradients[0] = Some(g.clone());
            Ok(gradients)
        }
        Op::Compare(_) | Op::Index { .. } | Op::Argsort { .. } => Err(not_differentiable(node)),
        // One with a gradient has it as a rule.
        Op::Custom(_) => Err(not_differentiable(node)),
        Op::Input(_) | Op::Scalar(_) | Op::Const(_) | Op::Iota(_) | Op::Random(_) => Ok(Vec::new()),
    }
}

fn not_differentiable(node: &NodeRef) -> ErrorKind {
    let at = format!("{}:{}", node.location().file(), node.location().line());
    ErrorKind::NotDifferentiable { op: node.op().name().into(), at }
}

fn no_flow_through_index(node: &NodeRef, wanted: bool) -> Result<()> {
    if wanted { Err(not_differentiable(node)) } else { Ok(()) }
}

fn custom(
    node: &NodeRef,
    operands: &[NodeRef],
    wanted: &[bool],
    g: &Tensor,
    rule: &dyn gradus_tensor::GradientRule,
) -> Result<Vec<Option<Tensor>>> {
    // The first operand is the value; the rule stands in for how it was computed from the others.
    let inputs: Vec<Tensor> = operands[1..].iter().map(NodeRef::tensor).collect();
    let gradients = rule.backward(&inputs, &node.tensor(), g, &wanted[1..]);
    if gradients.len() != inputs.len() {
        let found = format!("{} for {} inputs of {}", gradients.len(), inputs.len(), rule.name());
        return Err(ErrorKind::Argument { argument: "gradients", expected: "one per input", found });
    }
    let mut all = vec![None];
    for ((gradient, input), &wanted) in gradients.into_iter().zip(&inputs).zip(&wanted[1..]) {
        if let Some(gradient) = gradient.as_ref().filter(|g| g.error().is_none()) {
            if gradient.shape() != input.shape() {
                let (expected, found) = (input.shape().clone(), gradient.shape().clone());
                return Err(ErrorKind::Shape { what: "a custom gradient", expected, found });
            }
            if gradient.dtype() != input.dtype() {
                return Err(ErrorKind::DTypes { left: input.dtype(), right: gradient.dtype() });
            }
        }
        all.push(gradient.filter(|_| wanted));
    }
    Ok(all)
}

fn unary(op: UnaryOp, node: &NodeRef, x: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
    match op.derivative() {
        Derivative::Zero => Ok(Some(x.zeros_like())),
        Derivative::NotDifferentiable => Err(not_differentiable(node)),
        Derivative::Rule(rule) => {
            let argument = Formula::argument;
            let formula = rule(argument(0, "x"), argument(1, "y"), argument(2, "g"));
            Ok(Some(formula::record(&formula, &[x, &node.tensor(), g])))
        }
    }
}

fn binary(
    op: BinaryOp,
    node: &NodeRef,
    a: &Tensor,
    b: &Tensor,
    wanted: &[bool],
    g: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let gradient = |(derivative, &wanted): (Derivative<_>, &bool)| match derivative {
        _ if !wanted => Ok(None),
        Derivative::Zero => Ok(Some(a.zeros_like())),
        Derivative::NotDifferentiable => Err(not_differentiable(node)),
        Derivative::Rule(rule) => {
            let rule: fn(Formula, Formula, Formula, Formula) -> Formula = rule;
            let argument = Formula::argument;
            let formula = rule(argument(0, "a"), argument(1, "b"), argument(2, "y"), argument(3, "g"));
            Ok(Some(formula::record(&formula, &[a, b, &node.tensor(), g])))
        }
    };
    op.derivatives().into_iter().zip(wanted).map(gradient).collect()
}

/// The adjoint of a slice: each element goes back to its place among zeros.
fn unslice(slices: &[SliceAxis], shape: &Shape, g: &Tensor) -> Tensor {
    // A backward slice is a forward slice of the flipped axis.
    let flipped = slices.iter().enumerate().filter(|(_, s)| s.step < 0);
    let g = flipped.fold(g.clone(), |g, (axis, _)| g.flip(axis as isize));
    let pads = slices.iter().zip(&**shape).map(|(s, &extent)| {
        if s.len == 0 {
            return PadAxis { low: 0, high: extent, interior: 0 };
        }
        let last = (s.start as isize + s.step * (s.len as isize - 1)) as usize;
        let (low, end) = (s.start.min(last), s.start.max(last));
        PadAxis { low, high: extent - 1 - end, interior: s.step.unsigned_abs() - 1 }
    });
    apply(Op::Pad(pads.collect()), &[&g])
}

/// The adjoint of padding: the elements that are not padding.
fn unpad(pads: &[PadAxis], shape: &Shape, g: &Tensor) -> Tensor {
    let slices = pads.iter().zip(&**shape);
    let slices = slices.map(|(p, &len)| SliceAxis { start: p.low, step: p.interior as isize + 1, len });
    // An axis without elements starts nowhere.
    let slices = slices.map(|s| if s.len == 0 { SliceAxis { start: 0, ..s } } else { s });
    apply(Op::Slice(slices.collect()), &[g])
}

/// For each element, the product of all others along `axes`: by pairs, so that zeros are right, and to any order.
fn exclusive_products(x: &Tensor, axes: &[usize]) -> Tensor {
    // Move the axes to the end and merge them.
    let rank = x.rank();
    let order: Vec<usize> = (0..rank).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect();
    let moved = x.permute_axes(&order);
    let rows: usize = order[..rank - axes.len()].iter().map(|&a| x.shape()[a]).product();
    let length: usize = axes.iter().map(|&a| x.shape()[a]).product();
    let products = exclusive_row_products(&moved.reshape([rows, length]));
    let mut inverse = vec![0; rank];
    for (i, &axis) in order.iter().enumerate() {
        inverse[axis] = i;
    }
    products.reshape(moved.shape()).permute_axes(&inverse)
}

fn exclusive_row_products(x: &Tensor) -> Tensor {
    let (rows, length) = (x.shape()[0], x.shape()[1]);
    if length <= 1 {
        return x.ones_like();
    }
    let even = if length % 2 == 0 { x.clone() } else { cat(&[x, &Tensor::ones([rows, 1], x)], 1) };
    let (left, right) = (even.slice_step(1, .., 2), even.slice(1, 1..).slice_step(1, .., 2));
    let others = exclusive_row_products(&(&left * &right));
    // The others of a left element are its right neighbour and the other pairs.
    let pairs = gradus_tensor::stack(&[&(&others * &right), &(&others * &left)], 2);
    let pair_count = length.div_ceil(2);
    pairs.reshape([rows, 2 * pair_count]).slice(1, ..length as isize)
}

/// The gradient of a maximum or minimum, shared evenly among equal elements.
fn share_among_best(x: &Tensor, best: &Tensor, axes: &[usize], g: &Tensor) -> Tensor {
    let is_best = x.eq(best.broadcast_to(x.shape()));
    let count = is_best.to_dtype(g.dtype()).detach().sum_keepdim(axes);
    let share = (g / count).broadcast_to(x.shape());
    apply(Op::Select, &[&is_best, &share, &share.zeros_like()])
}

/// `y [batch, m, n] = a [batch, m, k] · b [batch, n, k]`: a's gradient sums over n, b's over m.
fn contract(
    batch: usize,
    contracted: usize,
    a: &Tensor,
    b: &Tensor,
    wanted: &[bool],
    g: &Tensor,
) -> Vec<Option<Tensor>> {
    let (a_free, b_free) = (a.rank() - batch - contracted, b.rank() - batch - contracted);
    // Batch axes stay; the next `first` axes change places with the `second` after them.
    let swapped = |x: &Tensor, first: usize, second: usize| {
        let axes: Vec<usize> =
            (0..batch).chain(batch + first..batch + first + second).chain(batch..batch + first).collect();
        x.permute_axes(&axes)
    };
    let for_a = || {
        let b = swapped(b, b_free, contracted);
        apply(Op::Contract { batch, contracted: b_free }, &[g, &b])
    };
    let for_b = || {
        let (g, a) = (swapped(g, a_free, b_free), swapped(a, a_free, contracted));
        apply(Op::Contract { batch, contracted: a_free }, &[&g, &a])
    };
    vec![wanted[0].then(for_a), wanted[1].then(for_b)]
}

fn scatter(mode: ScatterMode, axis: isize, index: &Tensor, wanted: &[bool], g: &Tensor) -> Vec<Option<Tensor>> {
    let picked = || g.gather(axis, index);
    if mode == ScatterMode::Add {
        return vec![wanted[0].then(|| g.clone()), None, wanted[2].then(picked)];
    }
    let base = || g.scatter_set(axis, index, &Tensor::zeros(index.shape(), g));
    let updates = || {
        // Only the update that was written last had an effect: it finds its own number at its place.
        let number = Tensor::arange(index.numel(), g.device()).reshape(index.shape());
        let written = Tensor::zeros(g.shape(), (g.device(), DType::I32)).scatter_set(axis, index, &number);
        let won = written.gather(axis, index).eq(&number);
        let picked = picked();
        apply(Op::Select, &[&won, &picked, &picked.zeros_like()])
    };
    vec![wanted[0].then(base), None, wanted[2].then(updates)]
}
