//! What registers are filled with that is not computed from others element by element: a number, indices, random numbers.

use crate::slice::{Slice, SliceMut, with_slice};
use gradus_ir::{Element, Error, Number, Result, Shape, philox};

/// A number, repeated.
pub(crate) fn fill(target: SliceMut<'_>, number: Number) {
    fn typed<T: Element>(target: &mut [T], number: Number) {
        target.fill(T::from_number(number));
    }
    with_slice!(SliceMut, target, t => typed(t, number));
}

/// Indices along an axis, from the element `start` of the space on.
pub(crate) fn iota(space: &Shape, axis: usize, start: usize, target: SliceMut<'_>) {
    fn typed<T: Element>(extent: usize, inner: usize, start: usize, target: &mut [T]) {
        // What comes once all indices have been counted is a copy.
        let len = target.len();
        let (counted, _) = target.split_at_mut(len.min(extent * inner));
        let number = |index: usize| T::from_number(Number::Int(index as i64));
        let first = start / inner % extent;
        if inner == 1 {
            let (rising, again) = counted.split_at_mut(len.min(extent - first));
            rising.iter_mut().zip(first..).for_each(|(x, index)| *x = number(index));
            again.iter_mut().zip(0..).for_each(|(x, index)| *x = number(index));
        } else {
            // Each index stands for `inner` neighbours.
            let (mut index, mut left, mut rest) = (first, inner - start % inner, counted);
            while !rest.is_empty() {
                let (run, later) = rest.split_at_mut(left.min(rest.len()));
                run.fill(number(index));
                (rest, left) = (later, inner);
                index = if index + 1 == extent { 0 } else { index + 1 };
            }
        }
        let mut filled = extent * inner;
        while filled < len {
            let more = filled.min(len - filled);
            target.copy_within(..more, filled);
            filled += more;
        }
    }
    if target.len() > 0 {
        let (extent, inner) = (space[axis], space[axis + 1..].iter().product());
        with_slice!(SliceMut, target, t => typed(extent, inner, start, t));
    }
}

/// Random numbers, from the element `start` of the space on.
pub(crate) fn random(key: u64, start: usize, target: SliceMut<'_>) {
    /// Fills `target` with `PER_BLOCK` numbers of each Philox block.
    fn fill<T, const PER_BLOCK: usize>(
        key: u64,
        start: usize,
        target: &mut [T],
        numbers: impl Fn([u32; 4]) -> [T; PER_BLOCK],
    ) where
        T: Copy,
    {
        let mut index = start;
        let mut rest = target;
        while !rest.is_empty() {
            let skip = index % PER_BLOCK;
            let taken = (PER_BLOCK - skip).min(rest.len());
            let values = numbers(philox::block(key, (index / PER_BLOCK) as u64));
            let (head, tail) = rest.split_at_mut(taken);
            head.copy_from_slice(&values[skip..skip + taken]);
            (rest, index) = (tail, index + taken);
        }
    }
    match target {
        SliceMut::U32(t) => fill(key, start, t, |w| w),
        SliceMut::F32(t) => fill(key, start, t, |w| w.map(philox::uniform_f32)),
        SliceMut::F64(t) => {
            fill(key, start, t, |w| [philox::uniform_f64(w[0], w[1]), philox::uniform_f64(w[2], w[3])]);
        }
        SliceMut::Bool(_) | SliceMut::I32(_) | SliceMut::F16(_) => unreachable!("random numbers are u32, f32 or f64"),
    }
}

/// An index as a position on its axis.
pub(crate) fn position(index: i64, axis: usize, extent: usize) -> Result<usize> {
    usize::try_from(index).ok().filter(|&i| i < extent).ok_or_else(|| Error::Index { index, axis, extent })
}

/// An index slice (i32 or u32) as i64.
pub(crate) fn indices(index: Slice<'_>) -> Vec<i64> {
    match index {
        Slice::I32(v) => v.iter().map(|&i| i as i64).collect(),
        Slice::U32(v) => v.iter().map(|&i| i as i64).collect(),
        _ => unreachable!("an index is i32 or u32"),
    }
}
