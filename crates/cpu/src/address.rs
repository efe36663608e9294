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
        let (outer, inner) = self.axes.split_at(self.axes.len() - 1);
        let inner = inner[0];
        let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, outer.len());
        let mut first = start % inner.extent;
        let mut rest = start / inner.extent;
        for (i, axis) in index.iter_mut().zip(outer).rev() {
            *i = rest % axis.extent;
            rest /= axis.extent;
        }
        let is_plain = outer.iter().all(|axis| axis.guard.is_none());
        let address = |index: &[usize]| {
            outer.iter().zip(index).try_fold(self.offset, |sum, (axis, &i)| {
                let i = axis.guard.map_or(Some(i), |guard| guard.element(i))?;
                Some(sum + axis.stride * i as isize)
            })
        };
        let mut base = address(&index);
        let mut rest = out;
        while !rest.is_empty() {
            let len = rest.len().min(inner.extent - first);
            let (run, later) = rest.split_at_mut(len);
            rest = later;
            match base {
                Some(base) => fill_run(source, base, inner, first, run),
                None => run.fill(T::default()),
            }
            first = 0;
            // The next run; where nothing is padded its address follows from the last one's.
            for (i, axis) in index.iter_mut().zip(outer).rev() {
                *i += 1;
                base = base.map(|base| base + axis.stride);
                if *i < axis.extent {
                    break;
                }
                *i = 0;
                base = base.map(|base| base - axis.stride * axis.extent as isize);
            }
            if !is_plain {
                base = address(&index);
            }
        }
    }
}

/// Fills `out` with the elements of an axis from the one at `first` on; that at 0 lies at `base`.
fn fill_run<T: Copy + Default>(source: &[T], base: isize, axis: ViewAxis, first: usize, out: &mut [T]) {
    match (axis.guard, axis.stride) {
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
                *out = guard.element(first + k).map_or(T::default(), |i| source[(base + stride * i as isize) as usize]);
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
