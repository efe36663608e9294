//! What indices look up: elements one by one, or, where an index is the same along a row, whole rows.

use crate::address::{fill_run, runs};
use crate::slice::{Slice, SliceMut, with_slice};
use crate::sources::position;
use gradus_ir::plan::{Instruction, Register};
use gradus_ir::{DType, Element, Result, Shape, View, ViewAxis};

/// Elements of an array that indices say.
pub(crate) struct Gather<'a> {
    /// How an index of the space finds its element, but for the axis that is indexed.
    pub(crate) view: &'a View,
    pub(crate) axis: usize,
    pub(crate) index: Index<'a>,
    pub(crate) space: &'a Shape,
}

/// Where indices lie.
pub(crate) enum Index<'a> {
    /// In a register.
    Register {
        values: Slice<'a>,
        /// Whether they are the same along the space's last axis.
        is_of_rows: bool,
    },
    /// In an array, one for each row. No axis of the view is padded.
    Array { values: Slice<'a>, view: &'a View },
}

/// Whether a gather through this view copies rows, or pieces of them, if its indices are the same along each.
fn copies_rows(view: &View, axis: usize) -> bool {
    view.axes.split_last().is_some_and(|(_, outer)| axis < outer.len() && is_plain(outer))
}

fn is_plain(axes: &[ViewAxis]) -> bool {
    axes.iter().all(|axis| axis.guard.is_none())
}

/// Which registers need not be filled, since nothing but gathers of rows reads them: loads of indices, of those that are the same
/// along rows and `may_pass`.
pub(crate) fn row_indices<'v>(
    instructions: &[(Instruction, DType)],
    view: impl Fn(usize) -> &'v View,
    may_pass: impl Fn(Register, usize) -> bool,
) -> Vec<bool> {
    let takes_rows = |reader: &Instruction, r: Register| match *reader {
        Instruction::Gather { load, axis, index } if index == r => copies_rows(view(load), axis),
        _ => !reader.operands().contains(&r),
    };
    let is_passed = |(r, (instruction, _)): (Register, &(Instruction, DType))| match *instruction {
        Instruction::Load(load) if may_pass(r, load) && is_plain(&view(load).axes) => {
            instructions.iter().all(|(reader, _)| takes_rows(reader, r))
        }
        _ => false,
    };
    instructions.iter().enumerate().map(is_passed).collect()
}

impl Gather<'_> {
    /// Fills `target` with the elements of the space from `start` on.
    pub(crate) fn fill(&self, source: Slice<'_>, start: usize, target: SliceMut<'_>) -> Result<()> {
        let is_of_rows = matches!(self.index, Index::Array { .. } | Index::Register { is_of_rows: true, .. });
        with_slice!(SliceMut, target, target => match source.typed() {
            _ if target.is_empty() => Ok(()),
            source if is_of_rows && copies_rows(self.view, self.axis) => self.rows(source, start, target),
            source => self.elements(source, start, target),
        })
    }

    /// Row by row: each index is looked at once.
    fn rows<T: Element>(&self, source: &[T], start: usize, target: &mut [T]) -> Result<()> {
        let View { axes, offset } = self.view;
        let last = axes.len() - 1;
        let (row, along) = (axes[last], last - 1);
        let (len, mut first) = (target.len(), start % row.extent);
        let count = (first + len).div_ceil(row.extent);
        let mut rest = target;
        for rows in runs(self.space[..last].into(), start / row.extent, count) {
            // Where the first row would lie, were its index 0, and how far it is to the next; and so for indices in an array.
            let kept = |axis: &usize| *axis != self.axis;
            let step = |axes: &[ViewAxis], axis: usize| axes[axis].stride * rows.index[axis] as isize;
            let base = offset + (0..last).filter(kept).map(|axis| step(axes, axis)).sum::<isize>();
            let between = if along == self.axis { 0 } else { axes[along].stride };
            let (first_index, next_index) = match self.index {
                Index::Array { view, .. } => {
                    let first = view.offset + (0..last).map(|axis| step(&view.axes, axis)).sum::<isize>();
                    (first, view.axes[along].stride)
                }
                Index::Register { .. } => (0, 0),
            };
            for number in 0..rows.len as isize {
                let index = match self.index {
                    Index::Register { values, .. } => index(values, len - rest.len()),
                    Index::Array { values, .. } => index(values, (first_index + next_index * number) as usize),
                };
                let position = position(index, self.axis, axes[self.axis].extent)?;
                let base = base + between * number + axes[self.axis].stride * position as isize;
                let (out, later) = rest.split_at_mut((row.extent - first).min(rest.len()));
                fill_run(source, base, row, first, out);
                (rest, first) = (later, 0);
            }
        }
        Ok(())
    }

    fn elements<T: Element>(&self, source: &[T], start: usize, target: &mut [T]) -> Result<()> {
        let (view, axis) = (self.view, self.axis);
        let Index::Register { values, .. } = self.index else { unreachable!("an index for each element") };
        let last = view.axes.len() - 1;
        let plain = view.axes.iter().all(|a| a.guard.is_none());
        let (len, mut rest) = (target.len(), target);
        for run in runs(self.space.clone(), start, len) {
            let mut at = run.index;
            let first = at[last];
            let row: isize = view.offset
                + (0..last).filter(|&a| a != axis).map(|a| view.axes[a].stride * at[a] as isize).sum::<isize>();
            let filled = len - rest.len();
            let (target, later) = rest.split_at_mut(run.len);
            rest = later;
            for (k, out) in target.iter_mut().enumerate() {
                let position = position(index(values, filled + k), axis, view.axes[axis].extent)?;
                *out = if plain {
                    let along = if axis == last { 0 } else { view.axes[last].stride * (first + k) as isize };
                    source[(row + along + view.axes[axis].stride * position as isize) as usize]
                } else {
                    at[last] = first + k;
                    let kept = at[axis];
                    at[axis] = position;
                    let value = view.address(&at).map_or(T::default(), |address| source[address]);
                    at[axis] = kept;
                    value
                };
            }
        }
        Ok(())
    }
}

/// An index (i32 or u32) as i64.
#[inline(always)]
fn index(values: Slice<'_>, place: usize) -> i64 {
    match values {
        Slice::I32(values) => values[place].into(),
        Slice::U32(values) => values[place].into(),
        _ => unreachable!("an index is i32 or u32"),
    }
}
