//! The adjoint of windows: each element gets the sum of what all windows that show it send back.

use gradus_ir::op::{Op, PadAxis, SliceAxis, WindowAxis};
use gradus_tensor::graph::{NodeRef, apply};
use gradus_tensor::{Shape, Tensor};

/// The cotangent of what windows were taken of, in its shape, from the cotangent of the windows.
pub(crate) fn unwindow(windows: &[WindowAxis], shape: &Shape, g: &Tensor) -> Tensor {
    let product = NodeRef::new(g).ok().and_then(|node| Product::behind(&node, windows, shape.len()));
    match product {
        Some(product) => product.through(windows, shape),
        None => sum_of_taps(windows, shape, g),
    }
}

/// For each place in a window the cotangents of all windows, where they belong among zeros.
fn sum_of_taps(windows: &[WindowAxis], shape: &Shape, g: &Tensor) -> Tensor {
    let rank = shape.len();
    let counts = &g.shape()[..rank];
    let taps: usize = windows.iter().map(|window| window.size).product();
    let tap = |tap: usize| {
        let mut slices: Vec<SliceAxis> = counts.iter().map(|&len| SliceAxis { start: 0, step: 1, len }).collect();
        let mut pads = vec![PadAxis::default(); rank];
        let mut rest = tap;
        for window in windows.iter().rev() {
            let start = rest % window.size;
            rest /= window.size;
            slices.insert(rank, SliceAxis { start, step: 1, len: 1 });
            let (low, interior) = (start * window.dilation, window.stride - 1);
            let high = shape[window.axis] - 1 - low - (counts[window.axis] - 1) * window.stride;
            pads[window.axis] = PadAxis { low, high, interior };
        }
        let one = apply(Op::Slice(slices.into()), &[g]).reshape(counts);
        apply(Op::Pad(pads.into()), &[&one])
    };
    (1..taps).fold(tap(0), |sum, next| sum + tap(next))
}

/// A cotangent of windows that is a matrix product: that of a convolution. Its windows need not be written out, as the sum
/// over them is itself a product: with windows of the cotangent, and the kernel backwards.
struct Product {
    batch: usize,
    contracted: usize,
    /// The side whose free axes count windows, and the one whose free axes lie in a window.
    positions: Side,
    kernel: Side,
    /// For each axis of the windows' cotangent, the axis of the product that it is.
    axes: Vec<usize>,
}

/// An operand of a product.
struct Side {
    tensor: Tensor,
    /// The product's axis that is the first free one of this side, and how many there are.
    first: usize,
    free: usize,
}

impl Side {
    fn has(&self, axis: usize) -> bool {
        (self.first..self.first + self.free).contains(&axis)
    }
}

impl Product {
    /// The product behind a cotangent, if it has the form of a convolution's.
    fn behind(g: &NodeRef, windows: &[WindowAxis], rank: usize) -> Option<Product> {
        let mut axes: Vec<usize> = (0..g.ty().shape.len()).collect();
        let mut node = g.clone();
        while let Op::Permute(order) = node.op().clone() {
            axes.iter_mut().for_each(|axis| *axis = order[*axis]);
            node = node.operands().ok()?.into_iter().next()?;
        }
        let Op::Contract { batch, contracted } = *node.op() else { return None };
        let operands = node.operands().ok()?;
        let free = |side: usize| operands[side].ty().shape.len() - batch - contracted;
        let a = Side { tensor: operands[0].tensor(), first: batch, free: free(0) };
        let b = Side { tensor: operands[1].tensor(), first: batch + a.free, free: free(1) };
        let counts = |side: &Side| windows.iter().all(|window| side.has(axes[window.axis]));
        let (positions, kernel) = if counts(&a) { (a, b) } else { (b, a) };
        let fits = counts(&positions) && axes[rank..].iter().all(|&axis| kernel.has(axis));
        fits.then_some(Product { batch, contracted, positions, kernel, axes })
    }

    /// The sum over windows, in the shape that the windows were taken of.
    fn through(self, windows: &[WindowAxis], shape: &Shape) -> Tensor {
        let Product { batch, contracted, positions, kernel, axes } = self;
        let rank = shape.len();
        // Windows that end where the first ones began, over cotangents that stand where their windows began. Positions are
        // the last axes meanwhile, as they are in the cotangent itself: what is written out then reads along them.
        let free = batch..batch + positions.free;
        let turned: Vec<usize> = (0..batch).chain(free.end..positions.tensor.rank()).chain(free).collect();
        let turned = positions.tensor.permute_axes(&turned);
        let mut pads = vec![PadAxis::default(); turned.rank()];
        let mut over = Vec::new();
        for window in windows {
            let axis = batch + contracted + axes[window.axis] - positions.first;
            let (reach, count) = ((window.size - 1) * window.dilation, turned.shape()[axis]);
            let high = shape[window.axis] - 1 - (count - 1) * window.stride;
            pads[axis] = PadAxis { low: reach, high, interior: window.stride - 1 };
            over.push(WindowAxis { axis, stride: 1, ..*window });
        }
        let spread = apply(Op::Pad(pads.into()), &[&turned]);
        let spread = apply(Op::Window(over.into()), &[&spread]);
        let back: Vec<usize> = (0..batch)
            .chain(batch + contracted..turned.rank())
            .chain(batch..batch + contracted)
            .chain(turned.rank()..spread.rank())
            .collect();
        let spread = spread.permute_axes(&back);
        // The kernel backwards, with the axes of a window among those that are summed.
        let inside: Vec<usize> = axes[rank..].iter().map(|&axis| batch + axis - kernel.first).collect();
        let whole = kernel.tensor.shape().iter().enumerate().map(|(axis, &len)| match inside.contains(&axis) {
            true => SliceAxis { start: len - 1, step: -1, len },
            false => SliceAxis { start: 0, step: 1, len },
        });
        let backwards = apply(Op::Slice(whole.collect()), &[&kernel.tensor]);
        let others: Vec<usize> = (batch..batch + kernel.free).filter(|axis| !inside.contains(axis)).collect();
        let summed = batch + kernel.free..kernel.tensor.rank();
        let order: Vec<usize> =
            (0..batch).chain(others.iter().copied()).chain(summed).chain(inside.iter().copied()).collect();
        let backwards = backwards.permute_axes(&order);
        // Whose free axes come first in the result comes first in the product, so that nothing need be moved.
        let first = axes[..rank].iter().find(|&&axis| axis >= batch);
        let kernel_first = first.is_some_and(|&axis| kernel.has(axis));
        let op = Op::Contract { batch, contracted: contracted + windows.len() };
        let (left, right) = if kernel_first { (&backwards, &spread) } else { (&spread, &backwards) };
        let place = |&axis: &usize| match axis {
            axis if axis < batch => axis,
            axis if positions.has(axis) => batch + axis - positions.first + if kernel_first { others.len() } else { 0 },
            axis => {
                let other = others.iter().filter(|&&other| other < batch + axis - kernel.first).count();
                batch + other + if kernel_first { 0 } else { positions.free }
            }
        };
        apply(op, &[left, right]).permute_axes(&axes[..rank].iter().map(place).collect::<Vec<_>>())
    }
}
