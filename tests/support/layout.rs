//! Ways in which an operand may lie in memory.

use crate::support::Case;
use gradus_ir::op::{Op, PadAxis, SliceAxis};
use gradus_ir::{Data, NodeId, Shape};

/// How a test's operand is stored and seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Layout {
    Contiguous,
    /// The axes are stored in reverse order.
    Transposed,
    /// Every second element, from the second on.
    Stepped,
    /// Backwards along every axis; the last axis takes every second element.
    Reversed,
    /// Every other axis repeats one element.
    Broadcast,
    /// Zeros around, and between where the extent allows.
    Padded,
}

impl Layout {
    pub(crate) const ALL: [Layout; 6] =
        [Layout::Contiguous, Layout::Transposed, Layout::Stepped, Layout::Reversed, Layout::Broadcast, Layout::Padded];

    /// An operand of `shape`; `data` makes the stored array of a given length.
    pub(crate) fn operand(self, case: &mut Case, shape: &[usize], data: impl Fn(usize) -> Data) -> NodeId {
        let (stored, view): (Shape, Option<Op>) = match self {
            Layout::Contiguous => (shape.into(), None),
            Layout::Transposed => {
                let axes = (0..shape.len()).rev().collect();
                (shape.iter().rev().copied().collect(), Some(Op::Permute(axes)))
            }
            Layout::Stepped => {
                let axes = shape.iter().map(|&len| SliceAxis { start: 1, step: 2, len });
                (shape.iter().map(|&n| 2 * n + 1).collect(), Some(Op::Slice(axes.collect())))
            }
            Layout::Reversed => {
                let step = |axis: usize| if axis + 1 == shape.len() { 2 } else { 1 };
                let stored = shape.iter().enumerate().map(|(axis, &n)| step(axis) * n + 1);
                let axes = shape.iter().enumerate().map(|(axis, &len)| {
                    let step = step(axis);
                    SliceAxis { start: step * len, step: -(step as isize), len }
                });
                (stored.collect(), Some(Op::Slice(axes.collect())))
            }
            Layout::Broadcast => {
                let stored = shape.iter().enumerate().map(|(axis, &n)| if axis % 2 == 0 { 1 } else { n });
                (stored.collect(), Some(Op::Expand))
            }
            Layout::Padded => {
                let axes: Vec<(usize, PadAxis)> = shape.iter().map(|&n| padded(n)).collect();
                (axes.iter().map(|a| a.0).collect(), Some(Op::Pad(axes.iter().map(|a| a.1).collect())))
            }
        };
        let data = data(stored.numel());
        let dtype = data.dtype();
        let input = case.input(stored, data);
        view.map_or(input, |view| case.typed(view, &[input], shape, dtype))
    }
}

/// The stored extent and the padding that give an axis of extent `n`.
fn padded(n: usize) -> (usize, PadAxis) {
    if n >= 5 && n % 2 == 1 {
        return ((n - 1) / 2, PadAxis { low: 1, high: 1, interior: 1 });
    }
    let (low, high) = (n.min(1), (n >= 3) as usize);
    (n - low - high, PadAxis { low, high, interior: 0 })
}
