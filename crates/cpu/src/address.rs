//! Loads: filling a block of registers from a buffer through a view.

use gradus_ir::{Shape, View, ViewAxis};
use smallvec::SmallVec;

/// A view with neighbouring axes merged where one stride serves both.
#[derive(Clone, Debug)]
pub(crate) struct Strided {
    axes: SmallVec<[ViewAxis; 8]>,
    offset: isize,
    /// The part of the buffer from this element on, where the block index is the address.
    pub(crate) contiguous_from: Option<usize>,
}

impl Strided {
    /// Prepares a view.
    pub(crate) fn new(view: &View) -> Strided {
        let mut axes: SmallVec<[ViewAxis; 8]> = SmallVec::new();
        for &axis in view.axes.iter().filter(|a| a.extent != 1 || a.guard.is_some()) {
            match axes.last_mut() {
                Some(outer)
                    if outer.guard.is_none()
                        && axis.guard.is_none()
                        && outer.stride == axis.stride * axis.extent as isize =>
                {
                    *outer = ViewAxis { extent: outer.extent * axis.extent, ..axis };
                }
                _ => axes.push(axis),
            }
        }
        if axes.is_empty() {
            axes.push(ViewAxis { extent: 1, stride: 1, guard: None });
        }
        let plain = axes.len() == 1 && axes[0].guard.is_none() && (axes[0].stride == 1 || axes[0].extent == 1);
        Strided { contiguous_from: plain.then_some(view.offset as usize), axes, offset: view.offset }
    }

    /// Fills `out` with the elements at `start`, `start + 1`, … of the view, row-major.
    pub(crate) fn fill<T: Copy + Default>(&self, source: &[T], start: usize, out: &mut [T]) {
        if out.is_empty() {
            return; // The offset of an empty view may lie past its buffer.
        }
        if let Some(from) = self.contiguous_from {
            out.copy_from_slice(&source[from + start..][..out.len()]);
            return;
        }
        let inner = self.axes[self.axes.len() - 1];
        let mut filled = 0;
        for run in runs(self.axes.iter().map(|a| a.extent).collect(), start, out.len()) {
            let out = &mut out[filled..filled + run.len];
            filled += run.len;
            let outer =
                self.axes[..self.axes.len() - 1].iter().zip(&run.index).try_fold(self.offset, |sum, (axis, &i)| {
                    let i = axis.guard.map_or(Some(i), |guard| guard.element(i))?;
                    Some(sum + axis.stride * i as isize)
                });
            let Some(base) = outer else {
                out.fill(T::default());
                continue;
            };
            let first = run.index[run.index.len() - 1];
            match (inner.guard, inner.stride) {
                (None, 0) => out.fill(source[base as usize]),
                (None, 1) => {
                    let from = (base + first as isize) as usize;
                    out.copy_from_slice(&source[from..from + out.len()]);
                }
                (None, stride) => {
                    for (k, out) in out.iter_mut().enumerate() {
                        *out = source[(base + stride * (first + k) as isize) as usize];
                    }
                }
                (Some(guard), stride) => {
                    for (k, out) in out.iter_mut().enumerate() {
                        *out = guard
                            .element(first + k)
                            .map_or(T::default(), |i| source[(base + stride * i as isize) as usize]);
                    }
                }
            }
        }
    }
}

/// A stretch of neighbouring indices along the last axis.
pub(crate) struct Run {
    /// The index of its first element.
    pub(crate) index: SmallVec<[usize; 8]>,
    /// How many elements.
    pub(crate) len: usize,
}

/// The stretches along the last axis that make up `start..start + len` of a row-major space.
pub(crate) fn runs(extents: Shape, start: usize, len: usize) -> impl Iterator<Item = Run> {
    let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, extents.len());
    let mut rest = start;
    for axis in (0..extents.len()).rev() {
        index[axis] = rest % extents[axis].max(1);
        rest /= extents[axis].max(1);
    }
    let mut left = len;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let Some(last) = extents.len().checked_sub(1) else {
            left = 0;
            return Some(Run { index: SmallVec::new(), len: 1 });
        };
        let run = Run { index: index.clone(), len: left.min(extents[last] - index[last]) };
        left -= run.len;
        index[last] = 0;
        for axis in (0..last).rev() {
            index[axis] += 1;
            if index[axis] < extents[axis] {
                break;
            }
            index[axis] = 0;
        }
        Some(run)
    })
}
