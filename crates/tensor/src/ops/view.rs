//! Views: other looks at the same elements, and joining and cutting.

use crate::operand::Positions;
use crate::tensor::first_failed;
use crate::{Axes, Dims, Tensor};
use gradus_ir::op::{Op, PadAxis, SliceAxis, Type};
use gradus_ir::{Error as ErrorKind, Shape};
use smallvec::SmallVec;
use std::ops::{Bound, RangeBounds};

impl Tensor {
    /// The same elements, row-major, in another shape; one extent may be −1 and is worked out.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::arange(6, &Device::cpu());
    /// assert_eq!(x.reshape([2, -1]).shape()[..], [2, 3]);
    /// let error = x.reshape([4, 2]).error().unwrap().to_string();
    /// assert!(error.contains("cannot reshape [6] (6 elements) to [4, 2] (8 elements)"));
    /// ```
    #[track_caller]
    pub fn reshape(&self, dims: impl Into<Dims>) -> Tensor {
        let Dims(dims) = dims.into();
        let unknown = dims.iter().filter(|&&d| d < 0).count();
        let known: usize = dims.iter().filter(|&&d| d >= 0).fold(1, |n, &d| n.saturating_mul(d as usize));
        // Next to an extent of 0 any number would do for -1.
        if unknown > 1 || dims.iter().any(|&d| d < -1) || (unknown == 1 && known == 0) {
            let (expected, found) = ("extents of which at most one is -1, and then none is 0", format!("{dims:?}"));
            return self.fail("reshape", ErrorKind::Argument { argument: "dims", expected, found });
        }
        let rest = self.numel().checked_div(known).unwrap_or(0);
        let shape: Shape = dims.iter().map(|&d| if d < 0 { rest } else { d as usize }).collect();
        if &shape == self.shape() {
            return self.clone();
        }
        if shape.checked_numel().is_none() {
            return self.fail("reshape", ErrorKind::TooLarge { shape });
        }
        Tensor::record(Op::Reshape, &[self], Some(Type { shape, dtype: self.dtype() }))
    }

    /// All elements along one axis.
    #[track_caller]
    pub fn flatten(&self) -> Tensor {
        self.reshape([self.numel()])
    }

    /// Axes `start ..= end` merged to one; negative axes count from the last.
    #[track_caller]
    pub fn flatten_range(&self, start: isize, end: isize) -> Tensor {
        let (start, end) = match (self.axis(start), self.axis(end)) {
            (Ok(start), Ok(end)) if start <= end => (start, end),
            (Err(kind), _) | (_, Err(kind)) => return self.fail("flatten_range", kind),
            _ => {
                let found = format!("{start}..={end}");
                let kind = ErrorKind::Argument { argument: "range", expected: "start before end", found };
                return self.fail("flatten_range", kind);
            }
        };
        let shape = self.shape();
        let merged = shape[start..=end].iter().fold(1, |n: usize, &extent| n.saturating_mul(extent));
        let dims: Vec<usize> =
            shape[..start].iter().copied().chain([merged]).chain(shape[end + 1..].iter().copied()).collect();
        self.reshape(dims)
    }

    /// Axes in another order: axis `i` of the result is axis `axes[i]` of this tensor.
    #[track_caller]
    pub fn permute<const N: usize>(&self, axes: [isize; N]) -> Tensor {
        match axes.iter().map(|&a| self.axis(a)).collect::<Result<Positions, _>>() {
            Ok(axes) => self.permute_axes(&axes),
            Err(kind) => self.fail("permute", kind),
        }
    }

    /// [`permute`](Tensor::permute) with a run-time number of axes.
    #[track_caller]
    pub fn permute_axes(&self, axes: &[usize]) -> Tensor {
        if axes.iter().enumerate().all(|(i, &a)| i == a) && axes.len() == self.rank() {
            return self.clone();
        }
        Tensor::record(Op::Permute(SmallVec::from_slice(axes)), &[self], None)
    }

    /// Two axes swapped.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        match (self.axis(a), self.axis(b)) {
            (Ok(a), Ok(b)) => {
                let mut axes: Positions = (0..self.rank()).collect();
                axes.swap(a, b);
                self.permute_axes(&axes)
            }
            (Err(kind), _) | (_, Err(kind)) => self.fail("transpose", kind),
        }
    }

    /// The matrix transpose: the last two axes swapped.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        if self.error().is_none() && self.rank() < 2 {
            let kind = ErrorKind::Rank { expected: "at least rank 2".into(), shape: self.shape().clone() };
            return self.fail("t", kind);
        }
        self.transpose(-2, -1)
    }

    /// A new axis of extent 1 before `axis` (−1: after the last).
    #[track_caller]
    pub fn unsqueeze(&self, axis: isize) -> Tensor {
        let rank = self.rank() as isize;
        let position = if axis < 0 { axis + rank + 1 } else { axis };
        if !(0..=rank).contains(&position) {
            return self.fail("unsqueeze", ErrorKind::Axis { axis, shape: self.shape().clone() });
        }
        self.reshape(self.shape().with_inserted(position as usize, 1))
    }

    /// The axes removed, which must have extent 1; `..` removes all that have.
    #[track_caller]
    pub fn squeeze(&self, axes: impl Into<Axes>) -> Tensor {
        let axes = axes.into();
        let positions = match self.axes(&axes) {
            Ok(all) if axes == Axes::All => all.into_iter().filter(|&a| self.shape()[a] == 1).collect(),
            Ok(positions) => positions,
            Err(kind) => return self.fail("squeeze", kind),
        };
        if let Some(&axis) = positions.iter().find(|&&a| self.shape()[a] != 1) {
            let found = format!("{} for axis {axis} of shape {}", self.shape()[axis], self.shape());
            return self.fail("squeeze", ErrorKind::Argument { argument: "extent", expected: "1", found });
        }
        self.reshape(self.shape().without(&positions))
    }

    /// Repeated to a shape by NumPy's broadcasting rule, without a copy.
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if self.error().is_none() && self.shape().broadcast(&shape).as_ref() != Some(&shape) {
            return self.fail("broadcast_to", ErrorKind::Expand { from: self.shape().clone(), to: shape });
        }
        self.expand_to(&shape)
    }

    /// The part `range` of an axis. Negative ends count from the axis' end, as in Python, but a range that leaves the
    /// axis is an error.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::arange(6, &Device::cpu());
    /// assert_eq!(x.slice(0, 1..3).to_vec::<i32>()?, [1, 2]);
    /// assert_eq!(x.slice(0, -2..).to_vec::<i32>()?, [4, 5]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn slice(&self, axis: isize, range: impl RangeBounds<isize>) -> Tensor {
        self.slice_step(axis, range, 1)
    }

    /// Every `step`-th element of a range of an axis; a negative step starts at the range's last element.
    #[track_caller]
    pub fn slice_step(&self, axis: isize, range: impl RangeBounds<isize>, step: isize) -> Tensor {
        let (axis, start, end) = match self.resolve(axis, &range) {
            Ok(resolved) => resolved,
            Err(kind) => return self.fail("slice", kind),
        };
        if step == 0 {
            let kind = ErrorKind::Argument { argument: "step", expected: "not 0", found: "0".into() };
            return self.fail("slice", kind);
        }
        let len = (end - start).div_ceil(step.unsigned_abs());
        let start = if step > 0 || len == 0 { start } else { end - 1 };
        // A step that is never made may be as long as it likes.
        let step = if len > 1 { step } else { 1 };
        self.slice_axis(axis, SliceAxis { start, step, len })
    }

    #[track_caller]
    fn slice_axis(&self, axis: usize, slice: SliceAxis) -> Tensor {
        let mut slices: Box<[SliceAxis]> =
            self.shape().iter().map(|&len| SliceAxis { start: 0, step: 1, len }).collect();
        if slices[axis] == slice {
            return self.clone();
        }
        slices[axis] = slice;
        Tensor::record(Op::Slice(slices), &[self], None)
    }

    /// An axis and a range of it as positions.
    fn resolve(&self, axis: isize, range: &impl RangeBounds<isize>) -> Result<(usize, usize, usize), ErrorKind> {
        if let Some(error) = self.error() {
            return Err(error.kind().clone());
        }
        let position = self.axis(axis)?;
        let extent = self.shape()[position] as isize;
        let from_end = |i: isize| if i < 0 { i + extent } else { i };
        let start = match range.start_bound() {
            Bound::Included(&i) => from_end(i),
            Bound::Excluded(&i) => from_end(i).saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&i) => from_end(i).saturating_add(1),
            Bound::Excluded(&i) => from_end(i),
            Bound::Unbounded => extent,
        };
        if start < 0 || end > extent || start > end {
            return Err(ErrorKind::Range { start, end, axis: position, shape: self.shape().clone() });
        }
        Ok((position, start as usize, end as usize))
    }

    /// Position `index` of an axis; the axis is gone in the result.
    #[track_caller]
    pub fn select_index(&self, axis: isize, index: isize) -> Tensor {
        let end =
            if index == -1 { self.axis(axis).map_or(0, |a| self.shape()[a] as isize) } else { index.saturating_add(1) };
        self.slice(axis, index..end).squeeze(axis)
    }

    /// An axis in reverse order.
    #[track_caller]
    pub fn flip(&self, axis: isize) -> Tensor {
        self.slice_step(axis, .., -1)
    }

    /// Zeros (or false) before and after an axis.
    #[track_caller]
    pub fn pad(&self, axis: isize, low: usize, high: usize) -> Tensor {
        match self.axis(axis) {
            Ok(axis) => self.pad_axis(axis, PadAxis { low, high, interior: 0 }),
            Err(kind) => self.fail("pad", kind),
        }
    }

    #[track_caller]
    pub(crate) fn pad_axis(&self, axis: usize, pad: PadAxis) -> Tensor {
        let mut pads = vec![PadAxis::default(); self.rank()].into_boxed_slice();
        pads[axis] = pad;
        Tensor::record(Op::Pad(pads), &[self], None)
    }

    /// The tensor repeated `times` along an axis.
    #[track_caller]
    pub fn repeat(&self, axis: isize, times: usize) -> Tensor {
        match self.axis(axis) {
            Err(kind) => self.fail("repeat", kind),
            Ok(axis) => {
                let shape = self.shape();
                let spread = shape.with_inserted(axis, times);
                let repeated = self.reshape(shape.with_inserted(axis, 1)).expand_to(&spread);
                repeated.reshape(shape.with(axis, shape[axis].saturating_mul(times)))
            }
        }
    }

    /// Pieces of the given sizes along an axis; the sizes must sum to its extent.
    #[track_caller]
    pub fn split(&self, axis: isize, sizes: &[usize]) -> Vec<Tensor> {
        let extent = self.axis(axis).map(|a| self.shape()[a]);
        let kind = match extent {
            Ok(extent) if sizes.iter().try_fold(0, |sum: usize, &size| sum.checked_add(size)) == Some(extent) => {
                let mut start = 0;
                let mut pieces = Vec::with_capacity(sizes.len());
                for &size in sizes {
                    pieces.push(self.slice(axis, start..start + size as isize));
                    start += size as isize;
                }
                return pieces;
            }
            Ok(extent) => {
                let found = format!("{sizes:?} for extent {extent}");
                ErrorKind::Argument { argument: "sizes", expected: "sizes that sum to the extent", found }
            }
            Err(kind) => kind,
        };
        vec![self.fail("split", kind); sizes.len()]
    }

    /// The axis in `count` pieces of equal size, the last one smaller where it does not divide.
    #[track_caller]
    pub fn chunk(&self, axis: isize, count: usize) -> Vec<Tensor> {
        match self.axis(axis) {
            Ok(position) if count > 0 => {
                let extent = self.shape()[position];
                let size = extent.div_ceil(count).max(1);
                let sizes: Vec<usize> = (0..extent).step_by(size).map(|start| size.min(extent - start)).collect();
                self.split(axis, &sizes)
            }
            Ok(_) => {
                let kind = ErrorKind::Argument { argument: "count", expected: "at least 1", found: "0".into() };
                vec![self.fail("chunk", kind)]
            }
            Err(kind) => vec![self.fail("chunk", kind); count],
        }
    }

    /// A copy with `range` of an axis replaced by `value` (broadcast).
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::arange(5, &Device::cpu());
    /// let y = x.slice_assign(0, 1..3, &Tensor::new([-1], &Device::cpu()));
    /// assert_eq!(y.to_vec::<i32>()?, [0, -1, -1, 3, 4]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn slice_assign(&self, axis: isize, range: impl RangeBounds<isize>, value: &Tensor) -> Tensor {
        let (position, start, end) = match self.resolve(axis, &range) {
            Ok(resolved) => resolved,
            Err(kind) => return self.fail("slice_assign", kind),
        };
        let extent = self.shape()[position];
        let value = value.broadcast_to(self.shape().with(position, end - start));
        let value = value.pad_axis_checked(position, start, extent - end);
        let index = Tensor::iota(self.shape().clone(), position, self.device());
        let (from, to) = (index.constant(start as f64), index.constant(end as f64));
        let inside = index.ge(from).logical_and(index.lt(to));
        Tensor::select(&inside, &value, self)
    }

    #[track_caller]
    fn pad_axis_checked(&self, axis: usize, low: usize, high: usize) -> Tensor {
        if self.error().is_some() { self.clone() } else { self.pad_axis(axis, PadAxis { low, high, interior: 0 }) }
    }
}

/// So many tensors are joined at once.
const MOST_JOINED: usize = 16;

/// Tensors joined along an axis that they have; other extents must be equal.
///
/// ```
/// # use gradus_tensor::{Device, Tensor, cat};
/// let x = Tensor::new([[1, 2]], &Device::cpu());
/// assert_eq!(cat(&[&x, &x], 0).shape()[..], [2, 2]);
/// assert_eq!(cat(&[&x, &x], 1).shape()[..], [1, 4]);
/// ```
///
/// An empty list gives a tensor that carries an error.
#[track_caller]
pub fn cat(tensors: &[&Tensor], axis: isize) -> Tensor {
    let Some(first) = tensors.first() else {
        let kind = ErrorKind::Argument { argument: "tensors", expected: "at least one", found: "none".into() };
        return Tensor::failed(crate::Error::new("cat", kind), &crate::Device::cpu());
    };
    if let Some(failed) = first_failed(tensors.iter().copied()) {
        return failed;
    }
    let position = match first.axis(axis) {
        Ok(position) => position,
        Err(kind) => return first.fail("cat", kind),
    };
    for tensor in tensors {
        let expected = first.shape().with(position, tensor.shape().get(position).copied().unwrap_or(0));
        if *tensor.shape() != expected {
            let kind = ErrorKind::Shape { what: "a tensor", expected, found: tensor.shape().clone() };
            return first.fail("cat", kind);
        }
        if tensor.dtype() != first.dtype() {
            return first.fail("cat", ErrorKind::DTypes { left: first.dtype(), right: tensor.dtype() });
        }
        if tensor.device() != first.device() {
            let (left, right) = (first.device().to_string(), tensor.device().to_string());
            return first.fail("cat", ErrorKind::Devices { left, right });
        }
    }
    // Each element is chosen among all that are joined: of many, groups are joined first, and stored.
    if tensors.len() > MOST_JOINED {
        let group = tensors.len().div_ceil(tensors.len().div_ceil(MOST_JOINED));
        let mut groups = Vec::with_capacity(MOST_JOINED);
        for group in tensors.chunks(group) {
            groups.push(Tensor::record(Op::Barrier, &[&cat(group, axis)], None));
        }
        return cat(&groups.iter().collect::<Vec<_>>(), axis);
    }
    // Each tensor is padded to the whole and chosen where it lies.
    let total: usize = tensors.iter().map(|t| t.shape()[position]).sum();
    let index = Tensor::iota(first.shape().with(position, total), position, first.device());
    let mut end = total;
    let mut result: Option<Tensor> = None;
    for tensor in tensors.iter().rev() {
        let extent = tensor.shape()[position];
        let start = end - extent;
        let padded = tensor.pad_axis(position, PadAxis { low: start, high: total - end, interior: 0 });
        result = Some(match result {
            None => padded,
            Some(later) => Tensor::select(&index.lt(index.constant(end as f64)), &padded, &later),
        });
        end = start;
    }
    result.unwrap_or_else(|| (*first).clone())
}

/// Tensors of one shape, joined along a new axis.
#[track_caller]
pub fn stack(tensors: &[&Tensor], axis: isize) -> Tensor {
    let mut raised = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        raised.push(tensor.unsqueeze(axis));
    }
    cat(&raised.iter().collect::<Vec<_>>(), axis)
}
