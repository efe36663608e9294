//! The derivatives of scans: scans from the other end.

use gradus_ir::op::{Op, ScanOp};
use gradus_tensor::Tensor;
use gradus_tensor::graph::{apply, constant_like};

/// The cotangents of a scan's operands, for those that are wanted; y is its result, g the cotangent of y.
pub(crate) fn backward(
    op: ScanOp,
    axis: isize,
    operand: &dyn Fn(usize) -> Tensor,
    y: &Tensor,
    wanted: &[bool],
    g: &Tensor,
) -> Vec<Option<Tensor>> {
    let scan = |op, operands: &[&Tensor]| apply(Op::Scan(op, axis as usize), operands);
    match op {
        ScanOp::Sum => vec![Some(scan(ScanOp::Sum, &[&g.flip(axis)]).flip(axis))],
        // What comes before an element times what it is followed by: right where elements are 0, as a quotient is not.
        ScanOp::Prod => {
            let is_first = Tensor::arange(y.shape()[axis as usize], y.device()).eq(0);
            let along: Vec<usize> = (0..y.rank()).map(|a| if a == axis as usize { y.shape()[a] } else { 1 }).collect();
            let is_first = is_first.reshape(along).broadcast_to(y.shape());
            let before = apply(Op::Select, &[&is_first, &constant_like(y, 1.0), &delayed(y, axis)]);
            vec![Some(before * after(&operand(0), axis, g))]
        }
        // Of y[i] = a[i] · y[i - 1] + b[i].
        ScanOp::Recurrence => {
            let total = after(&operand(0), axis, g);
            vec![wanted[0].then(|| &total * delayed(y, axis)), wanted[1].then(|| total.clone())]
        }
    }
}

/// `r[i] = g[i] + a[i + 1] · r[i + 1]`, from the last element on.
fn after(a: &Tensor, axis: isize, g: &Tensor) -> Tensor {
    let coefficients = delayed(&a.flip(axis), axis);
    apply(Op::Scan(ScanOp::Recurrence, axis as usize), &[&coefficients, &g.flip(axis)]).flip(axis)
}

/// Each element one place further along an axis; the first one is 0.
fn delayed(x: &Tensor, axis: isize) -> Tensor {
    let extent = x.shape()[axis as usize];
    x.pad(axis, 1, 0).slice(axis, ..extent as isize)
}
