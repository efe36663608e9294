//! Loads: filling a block of registers from a buffer through a view.

use crate::loops::vectorised;
use gradus_ir::{Shape, View, ViewAxis};
use smallvec::SmallVec;

/// A view with neighbouring axes merged where one stride serves both.
#[derive(Clone, Debug)]
pub(crate) struct Strided {
    axes: SmallVec<[ViewAxis; 8]>,
    offset: isize,
    /// How often each element of the last axis is repeated: a short last axis of stride 0 that is no axis here.
    repeats: usize,
    /// The part of the buffer from this element on, where the block index is the address.
    pub(crate) contiguous_from: Option<usize>,
}

/// The longest last axis of stride 0 that counts as repeating: a longer one is a run of its own.
const MOST_REPEATS: usize = 16;

/// What some neighbouring indices show.
pub(crate) enum Shown {
    /// Neighbours in the buffer, from this address on.
    Stretch(usize),
    /// One element, repeated.
    One,
    /// Whole rows, each of neighbours or of one element, repeated.
    Rows(Rows),
    /// Anything else.
    Many,
}

/// Rows of a buffer.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// How many elements they stand for each.
    pub(crate) len: usize,
    /// Where the first one begins, and how far it is from one to the next.
    start: isize,
    between: isize,
    /// Whether a row is one element, repeated.
    pub(crate) is_one: bool,
}

impl Rows {
    /// The first element and the number of elements of a row: one, if it stands for all.
    #[inline(always)]
    pub(crate) fn row(&self, number: usize) -> (usize, usize) {
        (self.start(number), if self.is_one { 1 } else { self.len })
    }

    /// The first element of a row.
    #[inline(always)]
    pub(crate) fn start(&self, number: usize) -> usize {
        (self.start + self.between * number as isize) as usize
    }
}

/// Shorter rows are better copied together than used one by one.
const SHORTEST_ROW: usize = 256;

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
        let repeats = match axes[..] {
            [.., ViewAxis { guard: None, .. }, ViewAxis { extent: 2..=MOST_REPEATS, stride: 0, guard: None }] => {
                axes.pop().map_or(1, |axis| axis.extent)
            }
            _ => 1,
        };
        Strided { contiguous_from: plain.then_some(view.offset as usize), axes, offset: view.offset, repeats }
    }

    /// What the `len` elements from `start` on are, as far as it is cheap to know.
    pub(crate) fn shown(&self, start: usize, len: usize) -> Shown {
        if len == 0 {
            return Shown::Many;
        }
        if let Some(from) = self.contiguous_from {
            return Shown::Stretch(from + start);
        }
        let (outer, inner) = self.axes.split_at(self.axes.len() - 1);
        let inner = inner[0];
        let (first, row) = (start % inner.extent, start / inner.extent);
        if self.repeats > 1 || !matches!(inner.stride, 0 | 1) || self.axes.iter().any(|a| a.guard.is_some()) {
            return Shown::Many;
        }
        let is_one = inner.stride == 0;
        let address = || {
            let mut rest = row;
            outer.iter().rev().fold(self.offset, |address, axis| {
                let index = rest % axis.extent;
                rest /= axis.extent;
                address + axis.stride * index as isize
            })
        };
        if first + len <= inner.extent {
            return if is_one { Shown::One } else { Shown::Stretch(address() as usize + first) };
        }
        match outer.last() {
            Some(axis)
                if inner.extent >= SHORTEST_ROW
                    && first == 0
                    && len.is_multiple_of(inner.extent)
                    && row % axis.extent + len / inner.extent <= axis.extent =>
            {
                Shown::Rows(Rows { len: inner.extent, start: address(), between: axis.stride, is_one })
            }
            _ => Shown::Many,
        }
    }

    /// The length of its rows, if [`Shown::Rows`] may be of them.
    pub(crate) fn row(&self) -> Option<usize> {
        match self.axes[..] {
            [.., ViewAxis { extent: SHORTEST_ROW.., stride: 0 | 1, guard: None }]
                if self.repeats == 1 && self.contiguous_from.is_none() && self.axes.len() > 1 =>
            {
                self.axes.last().map(|axis| axis.extent)
            }
            _ => None,
        }
    }

    /// The same, if whole rows, however many, are always [`Shown::Rows`], or one of them a stretch or one element.
    pub(crate) fn rows(&self) -> Option<usize> {
        self.row().filter(|_| self.axes.len() == 2 && self.axes[0].guard.is_none())
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
        let run = inner.extent * self.repeats;
        let mut first = start % run;
        let mut rest = start / run;
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
            // Whole runs along the last outer axis are alike.
            let alike = match outer.last() {
                Some(axis) if is_plain && self.repeats == 1 && inner.guard.is_none() && first == 0 => {
                    (rest.len() / run).min(axis.extent - index[outer.len() - 1])
                }
                _ => 0,
            };
            let (filled, later) = rest.split_at_mut(if alike > 1 { alike * run } else { rest.len().min(run - first) });
            rest = later;
            match base {
                Some(base) if alike > 1 => fill_runs(source, base, outer[outer.len() - 1].stride, inner, filled),
                Some(base) if self.repeats > 1 => repeat_run(source, base, inner.stride, self.repeats, first, filled),
                Some(base) => fill_run(source, base, inner, first, filled),
                None => filled.fill(T::default()),
            }
            first = 0;
            // The next run; where nothing is padded its address follows from the last one's.
            let mut passed = alike.max(1);
            for (i, axis) in index.iter_mut().zip(outer).rev() {
                *i += passed;
                base = base.map(|base| base + axis.stride * passed as isize);
                if *i < axis.extent {
                    break;
                }
                *i = 0;
                base = base.map(|base| base - axis.stride * axis.extent as isize);
                passed = 1;
            }
            if !is_plain {
                base = address(&index);
            }
        }
    }
}

/// Fills `out` with whole runs of an axis; the first lies at `base`, every next one `between` further.
fn fill_runs<T: Copy + Default>(source: &[T], base: isize, between: isize, axis: ViewAxis, out: &mut [T]) {
    /// Runs by a way to fill one, whose elements lie in so many.
    #[inline(always)]
    fn each<T: Copy>(
        source: &[T],
        (base, between): (isize, isize),
        (run, reach): (usize, usize),
        out: &mut [T],
        fill: impl Fn(&[T], &mut [T]),
    ) {
        for (number, out) in out.chunks_exact_mut(run).enumerate() {
            let from = (base + between * number as isize) as usize;
            fill(&source[from..from + reach], out);
        }
    }
    let run = axis.extent;
    let at = (base, between);
    vectorised(
        #[inline(always)]
        || match axis.stride {
            1 if run < SHORT => each(source, at, (run, run), out, copy_short),
            1 => each(source, at, (run, run), out, |from, out| out.copy_from_slice(from)),
            2 => each(source, at, (run, 2 * run - 1), out, |from, out| {
                let (pairs, last) = from.as_chunks::<2>();
                out.iter_mut().zip(pairs).for_each(|(out, pair)| *out = pair[0]);
                out[run - 1] = last[0];
            }),
            0 => each(source, at, (run, 1), out, |from, out| out.fill(from[0])),
            stride @ 3.. => each(source, at, (run, stride as usize * (run - 1) + 1), out, |from, out| {
                out.iter_mut().zip(from.iter().step_by(stride as usize)).for_each(|(out, &x)| *out = x);
            }),
            -1 => each(source, (base + 1 - run as isize, between), (run, run), out, |from, out| {
                out.iter_mut().zip(from.iter().rev()).for_each(|(out, &x)| *out = x);
            }),
            _ => {
                for (number, out) in out.chunks_exact_mut(run).enumerate() {
                    fill_run(source, base + between * number as isize, axis, 0, out);
                }
            }
        },
    );
}

/// Copies of fewer elements are faster without the library's function for all sizes.
const SHORT: usize = 48;

/// Copies a few elements, of both slices as many.
#[inline(always)]
fn copy_short<T: Copy>(from: &[T], to: &mut [T]) {
    const PIECE: usize = 8;
    if let (Some(last), Some(from_last)) = (to.last_chunk_mut::<PIECE>(), from.last_chunk::<PIECE>()) {
        // The last piece may overlap the one before.
        *last = *from_last;
        let pieces = to.as_chunks_mut::<PIECE>().0.iter_mut().zip(from.as_chunks::<PIECE>().0);
        pieces.for_each(|(to, from)| *to = *from);
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// Fills `out` with the elements of an axis from the one at `first` on; that at 0 lies at `base`.
pub(crate) fn fill_run<T: Copy + Default>(source: &[T], base: isize, axis: ViewAxis, first: usize, out: &mut [T]) {
    match (axis.guard, axis.stride) {
        (None, 0) => out.fill(source[base as usize]),
        (None, 1) => {
            let from = (base + first as isize) as usize;
            out.copy_from_slice(&source[from..from + out.len()]);
        }
        (None, stride @ 1..) => {
            let from = (base + stride * first as isize) as usize;
            out.iter_mut().zip(source[from..].iter().step_by(stride as usize)).for_each(|(out, &x)| *out = x);
        }
        (None, stride) => {
            for (k, out) in out.iter_mut().enumerate() {
                *out = source[(base + stride * (first + k) as isize) as usize];
            }
        }
        (Some(guard), stride) => {
            out.fill(T::default());
            // The padded axis has elements at `low + step · element`; the first and the last that `out` shows.
            let (step, first) = (guard.step as isize, first as isize - guard.low);
            let from = (first + step - 1).div_euclid(step).max(0);
            let to = (first + out.len() as isize - 1).div_euclid(step).min(guard.count as isize - 1);
            let count = usize::try_from(to + 1 - from).unwrap_or(0);
            if count == 0 {
                return;
            }
            let at = (from * step - first) as usize;
            if (step, stride) == (1, 1) {
                let address = (base + from) as usize;
                out[at..at + count].copy_from_slice(&source[address..address + count]);
                return;
            }
            for (element, out) in (from..).zip(out[at..].iter_mut().step_by(guard.step)).take(count) {
                *out = source[(base + stride * element) as usize];
            }
        }
    }
}

/// Fills `out` from place `first` on of an axis whose elements are repeated; the first of them lies at `base`.
fn repeat_run<T: Copy>(source: &[T], base: isize, stride: isize, repeats: usize, first: usize, out: &mut [T]) {
    let element = |i: usize| source[(base + stride * i as isize) as usize];
    let mut next = first / repeats;
    // The rest of an element that the last block began.
    let (rest, out) = out.split_at_mut(((repeats - first % repeats) % repeats).min(out.len()));
    if !rest.is_empty() {
        rest.fill(element(next));
        next += 1;
    }
    match (repeats, stride) {
        (2, 1) => {
            let (pairs, last) = out.as_chunks_mut::<2>();
            let from = (base + next as isize) as usize;
            let source = &source[from..];
            pairs.iter_mut().zip(source).for_each(|(pair, &x)| *pair = [x; 2]);
            last.iter_mut().for_each(|last| *last = source[pairs.len()]);
        }
        _ => (next..).zip(out.chunks_mut(repeats)).for_each(|(i, out)| out.fill(element(i))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_ir::Guard;

    /// Every way in which one axis may walk.
    fn axes() -> Vec<ViewAxis> {
        let extents = [1, 2, 3, 5];
        let strides = [-2, -1, 0, 1, 3];
        let plain = strides
            .into_iter()
            .flat_map(|stride| extents.into_iter().map(move |extent| ViewAxis { extent, stride, guard: None }));
        let guards = [(-1, 1), (0, 1), (2, 1), (-3, 2), (0, 2), (1, 3)]
            .into_iter()
            .flat_map(|(low, step)| [1, 2, 4].map(|count| Some(Guard { low, count, step })));
        let padded = guards.flat_map(|guard| [-1, 0, 1, 2].map(|stride| ViewAxis { extent: 5, stride, guard }));
        plain.chain(padded).collect()
    }

    #[test]
    fn every_stretch_of_every_view_is_filled_as_its_addresses_say() {
        let source: Vec<i32> = (1..200).collect();
        let (last, rest) = (axes(), axes());
        for (number, &inner) in last.iter().enumerate() {
            for (other, &outer) in rest.iter().enumerate() {
                // A third axis in turn, so that all meet but not every three of them.
                let third = rest[(number * 7 + other * 3) % rest.len()];
                let view = View { axes: [third, outer, inner].into_iter().collect(), offset: 100 };
                let shape = view.shape();
                let at = |i: usize| {
                    let index = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
                    view.address(&index)
                };
                let addresses: Vec<Option<usize>> = (0..shape.numel()).map(at).collect();
                let strided = Strided::new(&view);
                for start in 0..addresses.len() {
                    for len in [1, 2, 7, addresses.len() - start] {
                        let len = len.min(addresses.len() - start);
                        let expected = &addresses[start..start + len];
                        let mut filled = vec![-1; len];
                        strided.fill(&source, start, &mut filled);
                        let values: Vec<i32> = expected.iter().map(|a| a.map_or(0, |a| source[a])).collect();
                        assert_eq!(filled, values, "{view:?} from {start}");
                        match strided.shown(start, len) {
                            Shown::Stretch(from) => {
                                assert!(
                                    (from..).zip(expected).all(|(at, found)| *found == Some(at)),
                                    "{view:?} {start}"
                                );
                            }
                            Shown::One => assert!(expected.iter().all(|a| a.is_some() && *a == expected[0])),
                            Shown::Rows(_) => panic!("short rows"),
                            Shown::Many => {}
                        }
                    }
                }
            }
        }
    }
    #[test]
    fn whole_rows_are_shown_where_they_lie() {
        let axis = |extent, stride| ViewAxis { extent, stride, guard: None };
        for (between, inner) in [(0, 1), (300, 1), (-300, 1), (1, 0), (-2, 0)] {
            let view = View {
                axes: [axis(2, 7), axis(3, between), axis(SHORTEST_ROW, inner)].into_iter().collect(),
                offset: 600,
            };
            let strided = Strided::new(&view);
            let address = |i: usize| view.address(&[i / SHORTEST_ROW / 3, i / SHORTEST_ROW % 3, i % SHORTEST_ROW]);
            let rows = |first: usize, count: usize| strided.shown(first * SHORTEST_ROW, count * SHORTEST_ROW);
            for (first, count) in [(0, 2), (0, 3), (1, 2), (3, 3), (4, 2)] {
                let Shown::Rows(rows) = rows(first, count) else { panic!("{between} {inner}: {first} {count}") };
                for place in 0..count * SHORTEST_ROW {
                    let (start, len) = rows.row(place / SHORTEST_ROW);
                    let at = start + if len == 1 { 0 } else { place % SHORTEST_ROW };
                    assert_eq!(Some(at), address(first * SHORTEST_ROW + place), "{between} {inner}: {first} {count}");
                }
            }
            // Rows of which some are in the next one of an outer axis, or not whole.
            assert!(matches!(rows(2, 2), Shown::Many));
            assert!(matches!(strided.shown(1, 2 * SHORTEST_ROW), Shown::Many));
            assert!(matches!(strided.shown(0, 2 * SHORTEST_ROW - 1), Shown::Many));
        }
    }
}
