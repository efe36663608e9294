//! The order of rows, or the beginning of it. An element becomes an integer that compares as it does, with its index below: equal ones
//! keep their order, and no two are equal.

use crate::address::Strided;
use crate::loops::vectorised;
use crate::parallel;
use crate::select::{Key, select};
use crate::slice::{Slice, SliceMut, Typed, with_slice};
use gradus_ir::plan::Kernel;
use gradus_ir::{Data, Result, f16, math};

/// Elements per task, where rows are short.
const TASK: usize = 1 << 14;

/// Elements of a long row that a thread sorts, or merges.
const PIECE: usize = 1 << 17;

/// A sort made ready.
#[derive(Debug)]
pub(crate) struct Sort {
    descending: bool,
    operand: Strided,
    /// How many elements a row has, and how many indices of it are stored.
    row: usize,
    kept: usize,
}

/// An element that can be put into order.
trait Ordered: Typed {
    /// An integer that compares as elements do.
    type Key: Key;
    /// The element as one.
    fn key(self) -> Self::Key;
}

macro_rules! ordered {
    ($($t:ident as $key:ident: |$x:ident| $value:expr;)*) => {
        $(impl Ordered for $t {
            type Key = $key;
            #[inline(always)]
            fn key(self) -> $key {
                let $x = self;
                $value
            }
        })*
    };
}

ordered! {
    bool as u32: |x| x as u32;
    u32 as u32: |x| x;
    i32 as u32: |x| (x as u32) ^ (1 << 31);
    f16 as u32: |x| key_of_f32(math::from_f16(x));
    f32 as u32: |x| key_of_f32(x);
    f64 as u64: |x| {
        let bits = (x + 0.0).to_bits() as i64;
        let key = (bits ^ (bits >> 63 | i64::MIN)) as u64;
        if x.is_nan() { u64::MAX } else { key }
    };
}

/// Of negative numbers every bit is turned, of others the sign, without a branch on it.
#[inline(always)]
fn key_of_f32(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits() as i32;
    let key = (bits ^ (bits >> 31 | i32::MIN)) as u32;
    if x.is_nan() { u32::MAX } else { key }
}

/// Sorts a long row with several threads: pieces, and then pairs of what is sorted.
fn sort_long<T: Ord + Copy + Send + Sync>(row: &mut Vec<T>) -> Result<()> {
    let len = row.len();
    parallel::each_chunk(row, PIECE, len, |(_, piece)| {
        piece.sort_unstable();
        Ok(())
    })?;
    let (mut merged, mut sorted) = (row.clone(), PIECE);
    while sorted < len {
        parallel::each_chunk(&mut merged, PIECE, len, |(number, out)| {
            let first = number * PIECE;
            let begin = first / (2 * sorted) * (2 * sorted);
            let (middle, end) = ((begin + sorted).min(len), (begin + 2 * sorted).min(len));
            merge(&row[begin..middle], &row[middle..end], first - begin, out);
            Ok(())
        })?;
        std::mem::swap(row, &mut merged);
        sorted *= 2;
    }
    Ok(())
}

/// Some of the elements that two sorted slices hold together, from the one on that comes after so many.
fn merge<T: Ord + Copy>(left: &[T], right: &[T], before: usize, out: &mut [T]) {
    // How many of those before are on the left: the least number with which none of them is greater than what is left over there.
    let (mut low, mut high) = (before.saturating_sub(right.len()), before.min(left.len()));
    while low < high {
        let middle = (low + high) / 2;
        if left[middle] < right[before - middle - 1] { low = middle + 1 } else { high = middle }
    }
    let (mut i, mut j) = (low, before - low);
    for place in 0..out.len() {
        let (Some(&first), Some(&second)) = (left.get(i), right.get(j)) else {
            let rest = if i < left.len() { &left[i..] } else { &right[j..] };
            let len = out.len();
            return out[place..].copy_from_slice(&rest[..len - place]);
        };
        // Without branches on the elements, whose order nobody can foresee.
        out[place] = first.min(second);
        i += (first < second) as usize;
        j += (first >= second) as usize;
    }
}

impl Sort {
    /// Prepares a kernel.
    pub(crate) fn new(kernel: &Kernel, descending: bool, kept: usize) -> Sort {
        let row = kernel.space.last().copied().unwrap_or(1);
        Sort { descending, operand: Strided::new(&kernel.loads[0].view), row, kept }
    }

    /// Runs it.
    pub(crate) fn run(&self, load: Slice<'_>, out: &mut Data) -> Result<()> {
        let out: &mut [i32] = SliceMut::of(out).typed();
        with_slice!(Slice, load, source => self.rows(source, out))
    }

    fn rows<T: Ordered>(&self, source: &[T], out: &mut [i32]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let (rows, elements) = ((TASK / self.row).max(1), out.len() / self.kept * self.row);
        parallel::each_chunk(out, rows * self.kept, elements, |(task, out)| {
            let mut loaded = vec![T::default(); self.row];
            let (mut keys, mut first) = (Vec::new(), Vec::new());
            for (number, out) in (task * rows..).zip(out.chunks_mut(self.kept)) {
                self.operand.fill(source, number * self.row, &mut loaded);
                let order = loaded.iter().map(|x| self.key(x));
                keys.clear();
                first.clear();
                vectorised(
                    #[inline(always)]
                    || match self.kept < self.row {
                        true => keys.extend(order),
                        false => first.extend(order.enumerate().map(|(index, key)| key.numbered(index))),
                    },
                );
                if self.kept < self.row {
                    select(&keys, self.kept, &mut first);
                }
                // No two are equal, so that every way of sorting gives the same.
                if first.len() > PIECE {
                    sort_long(&mut first)?;
                } else {
                    first.sort_unstable();
                }
                out.iter_mut().zip(&first).for_each(|(out, &numbered)| *out = T::Key::index(numbered));
            }
            Ok(())
        })
    }

    /// What puts an element into the order that is asked for.
    #[inline(always)]
    fn key<T: Ordered>(&self, x: &T) -> T::Key {
        if self.descending { !x.key() } else { x.key() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;

    #[test]
    #[cfg_attr(miri, ignore = "it takes too long")]
    fn long_rows_are_sorted_as_short_ones_are() {
        for len in [PIECE - 1, PIECE + 1, 2 * PIECE, 5 * PIECE + 17] {
            let mut row: Vec<u64> =
                (0..len as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)).collect();
            let mut expected = row.clone();
            expected.sort_unstable();
            Team::new(3).unwrap().enter(|| sort_long(&mut row)).unwrap();
            assert!(row == expected, "{len} elements");
        }
    }

    #[test]
    fn any_part_of_two_slices_is_merged() {
        let (left, right) = ([1, 2, 3, 8, 9], [0, 4, 5, 6, 7, 10, 11]);
        for (left, right) in [(&left[..], &right[..]), (&right, &left), (&left, &[]), (&[], &left)] {
            let mut expected = [left, right].concat();
            expected.sort_unstable();
            for (first, end) in (0..=expected.len()).flat_map(|end| (0..=end).map(move |first| (first, end))) {
                let mut out = vec![0; end - first];
                merge(left, right, first, &mut out);
                assert_eq!(out, expected[first..end], "{left:?} {right:?}");
            }
        }
    }
}
