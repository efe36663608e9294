//! Views: how a kernel's index becomes an address, without copying.

use crate::Shape;
use crate::op::{Op, PadAxis, SliceAxis, WindowAxis};
use smallvec::SmallVec;

/// Where a padded axis holds elements: at `low`, `low + step`, … (`count` of them). Elsewhere it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The index of the first element; negative where the view cut some off.
    pub low: isize,
    /// How many elements there are.
    pub count: usize,
    /// The distance between two elements.
    pub step: usize,
}

impl Guard {
    /// The element at `index`, if there is one.
    #[inline]
    pub fn element(&self, index: usize) -> Option<usize> {
        let from_low = usize::try_from(index as isize - self.low).ok()?;
        (from_low % self.step == 0 && from_low / self.step < self.count).then(|| from_low / self.step)
    }
}

/// One axis of a [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewAxis {
    /// How far the index runs.
    pub extent: usize,
    /// Elements of the buffer between two neighbours; 0 repeats, negative walks backwards.
    pub stride: isize,
    /// Padding, if there is any.
    pub guard: Option<Guard>,
}

impl ViewAxis {
    /// An axis along which the view stands still: one element, repeated.
    pub fn still(extent: usize) -> ViewAxis {
        ViewAxis { extent, stride: 0, guard: None }
    }
}

/// An affine map from an index to an element of a buffer, with zero padding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The axes, outermost first.
    pub axes: SmallVec<[ViewAxis; 4]>,
    /// The element at index 0 of every axis.
    pub offset: isize,
}

impl View {
    /// The whole of a row-major buffer.
    pub fn contiguous(shape: &Shape) -> View {
        let axes = shape.iter().zip(shape.strides()).map(|(&extent, stride)| ViewAxis { extent, stride, guard: None });
        View { axes: axes.collect(), offset: 0 }
    }

    /// One element, repeated over `shape`.
    pub fn splat(shape: &Shape) -> View {
        let axes = shape.iter().map(|&extent| ViewAxis::still(extent));
        View { axes: axes.collect(), offset: 0 }
    }

    /// The shape that the view shows.
    pub fn shape(&self) -> Shape {
        self.axes.iter().map(|a| a.extent).collect()
    }

    /// Whether it shows the elements of a buffer in order, each of them throughout the last `trailing` axes.
    pub fn repeats_each(&self, trailing: usize) -> bool {
        let (outer, row) = self.axes.split_at(self.axes.len() - trailing);
        row.iter().all(|axis| axis.guard.is_none() && axis.stride == 0)
            && View { axes: outer.into(), offset: self.offset }.is_contiguous()
    }

    /// Whether the view shows a buffer's elements from the first on, each once and in order.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        let empty = self.axes.iter().any(|a| a.extent == 0);
        let in_order = self.axes.iter().rev().all(|axis| {
            let fits = axis.guard.is_none() && (axis.extent == 1 || axis.stride == expected);
            expected *= axis.extent.max(1) as isize;
            fits
        });
        self.offset == 0 && (in_order || empty)
    }

    /// The address of an index, or `None` in the padding.
    pub fn address(&self, index: &[usize]) -> Option<usize> {
        let mut address = self.offset;
        for (axis, &i) in self.axes.iter().zip(index) {
            let i = match &axis.guard {
                None => i,
                Some(guard) => guard.element(i)?,
            };
            address += axis.stride * i as isize;
        }
        Some(address as usize)
    }

    /// The view of this view through a view op, where one view can say it; otherwise the operand must be copied
    /// first. `shape` is the op's result.
    pub fn through(&self, op: &Op, shape: &Shape) -> Option<View> {
        match op {
            Op::Reshape => self.reshape(shape),
            Op::Permute(axes) => Some(View { axes: axes.iter().map(|&a| self.axes[a]).collect(), offset: self.offset }),
            Op::Expand => self.expand(shape),
            Op::Slice(axes) => self.slice(axes),
            Op::Pad(axes) => self.pad(axes),
            Op::Window(windows) => self.window(windows),
            _ => None,
        }
    }

    fn expand(&self, shape: &Shape) -> Option<View> {
        let axes = self.axes.iter().zip(&**shape).map(|(axis, &extent)| match axis {
            axis if axis.extent == extent => Some(*axis),
            ViewAxis { guard: None, .. } => Some(ViewAxis::still(extent)),
            _ => None,
        });
        Some(View { axes: axes.collect::<Option<_>>()?, offset: self.offset })
    }

    fn slice(&self, slices: &[SliceAxis]) -> Option<View> {
        let mut view = self.clone();
        for (axis, slice) in view.axes.iter_mut().zip(slices) {
            match &mut axis.guard {
                None => {
                    if slice.len > 0 {
                        view.offset += axis.stride * slice.start as isize;
                    }
                    axis.stride *= slice.step;
                }
                Some(guard) if slice.step == 1 => guard.low -= slice.start as isize,
                Some(_) => return None,
            }
            axis.extent = slice.len;
        }
        Some(view)
    }

    fn pad(&self, pads: &[PadAxis]) -> Option<View> {
        let mut view = self.clone();
        for (axis, pad) in view.axes.iter_mut().zip(pads) {
            if *pad == PadAxis::default() {
                continue;
            }
            axis.guard = match axis.guard {
                None => Some(Guard { low: pad.low as isize, count: axis.extent, step: pad.interior + 1 }),
                Some(guard) if pad.interior == 0 => {
                    // What an earlier slice hid must stay hidden behind the new zeros.
                    let hidden_low = guard.low < 0;
                    let last = guard.low + (guard.count.max(1) as isize - 1) * guard.step as isize;
                    if hidden_low || last >= axis.extent as isize {
                        return None;
                    }
                    Some(Guard { low: guard.low + pad.low as isize, ..guard })
                }
                Some(_) => return None,
            };
            axis.extent = pad.extent(axis.extent);
        }
        Some(view)
    }

    fn window(&self, windows: &[WindowAxis]) -> Option<View> {
        let mut view = self.clone();
        for window in windows {
            // In a padded axis it would take both indices to say where the elements are.
            let ViewAxis { extent, stride, guard: None } = self.axes[window.axis] else { return None };
            let inner = ViewAxis { extent: window.size, stride: stride * window.dilation as isize, guard: None };
            let outer = ViewAxis { extent: window.count(extent), stride: stride * window.stride as isize, guard: None };
            view.axes[window.axis] = outer;
            view.axes.push(inner);
        }
        Some(view)
    }

    fn reshape(&self, shape: &Shape) -> Option<View> {
        if shape.numel() == 0 {
            return Some(View::contiguous(shape));
        }
        // Axes of extent 1 neither help nor hinder, unless they are guarded.
        let from: SmallVec<[ViewAxis; 4]> =
            self.axes.iter().filter(|a| a.extent != 1 || a.guard.is_some()).copied().collect();
        let mut axes: SmallVec<[ViewAxis; 4]> = SmallVec::new();
        let (mut source, mut target) = (0, 0);
        while target < shape.len() {
            if shape[target] == 1 && from.get(source).is_none_or(|a| a.extent != 1) {
                axes.push(ViewAxis::still(1));
                target += 1;
                continue;
            }
            // The smallest groups of source and target axes with equal products.
            let (first_source, first_target) = (source, target);
            let (mut have, mut want) = (from.get(source)?.extent, shape[target]);
            (source, target) = (source + 1, target + 1);
            while have != want {
                if have < want {
                    have *= from.get(source)?.extent;
                    source += 1;
                } else {
                    want *= shape.get(target)?;
                    target += 1;
                }
            }
            let group = &from[first_source..source];
            if group.len() == 1 && target - first_target == 1 {
                axes.push(group[0]);
                continue;
            }
            let merges = group.windows(2).all(|w| w[0].stride == w[1].stride * w[1].extent as isize);
            if !merges || group.iter().any(|a| a.guard.is_some()) {
                return None;
            }
            let start = axes.len();
            let mut stride = group.last()?.stride;
            for &extent in shape[first_target..target].iter().rev() {
                axes.insert(start, ViewAxis { extent, stride, guard: None });
                stride *= extent as isize;
            }
        }
        (source == from.len()).then_some(View { axes, offset: self.offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(view: &View) -> Vec<Option<usize>> {
        let shape = view.shape();
        let strides = shape.strides();
        (0..shape.numel())
            .map(|flat| {
                let index: Vec<usize> =
                    shape.iter().zip(&strides).map(|(&d, &s)| flat / s as usize % d.max(1)).collect();
                view.address(&index)
            })
            .collect()
    }

    #[test]
    fn transpose_then_reshape_needs_a_copy_but_splitting_does_not() {
        let view = View::contiguous(&Shape::new(&[4, 6]));
        let transposed = view.through(&Op::Permute([1, 0].as_slice().into()), &Shape::new(&[6, 4])).unwrap();
        assert_eq!(addresses(&transposed)[..5], [Some(0), Some(6), Some(12), Some(18), Some(1)]);
        assert!(transposed.through(&Op::Reshape, &Shape::new(&[24])).is_none());
        let split = transposed.through(&Op::Reshape, &Shape::new(&[2, 3, 1, 4])).unwrap();
        assert_eq!(addresses(&split), addresses(&transposed));
    }

    #[test]
    fn padding_reads_zero_and_slices_cut_it() {
        let view = View::contiguous(&Shape::new(&[3]));
        let pad = PadAxis { low: 1, high: 2, interior: 1 };
        let padded = view.through(&Op::Pad([pad].as_slice().into()), &Shape::new(&[8])).unwrap();
        assert_eq!(addresses(&padded), [None, Some(0), None, Some(1), None, Some(2), None, None]);
        let slice = SliceAxis { start: 2, step: 1, len: 4 };
        let cut = padded.through(&Op::Slice([slice].as_slice().into()), &Shape::new(&[4])).unwrap();
        assert_eq!(addresses(&cut), [None, Some(1), None, Some(2)]);
        // Padding a cut view again would bring back what was cut.
        let more = PadAxis { low: 1, high: 0, interior: 0 };
        assert!(cut.through(&Op::Pad([more].as_slice().into()), &Shape::new(&[5])).is_none());
    }
}
