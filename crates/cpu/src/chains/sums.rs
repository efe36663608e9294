//! The loops that sum up rows of chains.

use super::loops::{Nothing, Op, VECTORS, Values, Visitor, dispatch};
use super::piece::{Piece, Reads};
use crate::ahead::Ahead;
use crate::best::WIDEST;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Groups of [`VECTORS`] that are summed up as f32 before their sums become f64.
const GROUPS: usize = 16;

/// Sums up rows of a chain.
pub(crate) struct Sum<'l, 'a> {
    reads: &'l Reads<'l, 'a>,
    piece: Piece<'a>,
    /// A row is some pieces, or a piece some rows.
    piece_len: usize,
    /// The elements of a row, and of all.
    row: usize,
    len: usize,
    /// One for each row.
    sums: &'l mut [f64],
    /// What is asked for meanwhile.
    ahead: &'l Ahead,
}

impl<'l, 'a> Sum<'l, 'a> {
    /// Sums of rows of so many elements.
    pub(crate) fn new(reads: &'l Reads<'l, 'a>, row: usize, sums: &'l mut [f64], ahead: &'l Ahead) -> Sum<'l, 'a> {
        let len = row * sums.len();
        let piece_len = reads.piece_len(len);
        Sum { reads, piece: Piece::NOTHING, piece_len, row, len, sums, ahead }
    }
}

impl<S: Simd> Values<'_, S> {
    /// The sum of some elements, at least a vector.
    #[inline(always)]
    fn sum<A: Op, B: Op, C: Op, D: Op>(&self, simd: S, first: usize, len: usize, ask: &mut impl FnMut()) -> f64 {
        let (group, end) = (VECTORS * S::F32_LANES, first + len);
        let zero = simd.splat_f32s(0.0);
        let (mut total, mut begin) = (0.0, first);
        while begin + group <= end {
            let mut sums = [zero; VECTORS];
            for _ in 0..GROUPS.min((end - begin) / group) {
                ask();
                let values = self.vectors::<VECTORS, A, B, C, D>(simd, begin);
                for i in 0..VECTORS {
                    sums[i] = simd.add_f32s(sums[i], values[i]);
                }
                begin += group;
            }
            let [a, b, c, d] = sums;
            total += sum(simd, simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        }
        if begin == end {
            return total;
        }
        let mut last = zero;
        while begin + S::F32_LANES <= end {
            let [values] = self.vectors::<1, A, B, C, D>(simd, begin);
            last = simd.add_f32s(last, values);
            begin += S::F32_LANES;
        }
        if begin < end {
            // The last vector, of which the first lanes were summed up before.
            let mut values = self.vectors::<1, A, B, C, D>(simd, end - S::F32_LANES);
            bytemuck::cast_slice_mut::<_, f32>(&mut values)[..S::F32_LANES - (end - begin)].fill(0.0);
            last = simd.add_f32s(last, values[0]);
        }
        total + sum(simd, last)
    }
}

impl WithSimd for &mut Sum<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.reads.go_to(&mut self.piece, 0, 0, self.piece_len.min(self.len));
        match self.piece.all {
            Some(_) => self.multiply(),
            None if self.part() < S::F32_LANES => self.add_one_by_one(),
            // Where nothing is computed nor asked for, rows take no longer than it takes to read them.
            None if self.piece.count == 0 && self.ahead.is_empty() => {
                self.add_up::<S, Nothing, Nothing, Nothing, Nothing>(simd, &mut || {});
            }
            None => dispatch(simd, self.piece.kinds(), self),
        }
    }
}

impl Sum<'_, '_> {
    /// The elements of a row in a piece.
    fn part(&self) -> usize {
        self.piece_len.min(self.row)
    }

    /// Goes through pieces, of which `add` adds up the elements, so many at a time.
    #[inline(always)]
    fn each_piece(&mut self, mut add: impl FnMut(&Piece<'_>, Range<usize>, usize, &mut Totals<'_>)) {
        let part = self.part();
        let mut totals = Totals { sums: self.sums.iter_mut(), row: self.row, total: 0.0, left: self.row };
        for (number, place) in (0..self.len).step_by(self.piece_len).enumerate() {
            let len = self.piece_len.min(self.len - place);
            if number > 0 {
                self.reads.go_to(&mut self.piece, number, place, len);
            }
            add(&self.piece, 0..len, part, &mut totals);
        }
    }

    /// Sums of rows that are shorter than a vector.
    fn add_one_by_one(&mut self) {
        self.each_piece(|piece, places, part, totals| {
            for first in places.step_by(part) {
                totals.add((first..first + part).map(|place| f64::from(piece.element(place))).sum(), part);
            }
        });
    }

    /// Sums of pieces that are one number each.
    fn multiply(&mut self) {
        self.each_piece(|piece, places, part, totals| {
            let sum = f64::from(piece.all.unwrap_or_default()) * part as f64;
            places.step_by(part).for_each(|_| totals.add(sum, part));
        });
    }
}

/// Sums of rows, whose elements come part by part.
struct Totals<'l> {
    sums: std::slice::IterMut<'l, f64>,
    /// The elements of a row.
    row: usize,
    /// What the present row has come to, and how many of its elements are left.
    total: f64,
    left: usize,
}

impl Totals<'_> {
    /// Adds the sum of so many elements.
    #[inline(always)]
    fn add(&mut self, sum: f64, elements: usize) {
        self.total += sum;
        self.left -= elements;
        if self.left == 0 {
            self.sums.next().into_iter().for_each(|row| *row = self.total);
            (self.total, self.left) = (0.0, self.row);
        }
    }
}

impl<S: Simd> Visitor<S> for &mut Sum<'_, '_> {
    #[inline(always)]
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S) {
        let mut ahead = self.ahead.parts(self.len / (VECTORS * S::F32_LANES));
        self.add_up::<S, A, B, C, D>(simd, &mut || ahead.ask());
    }
}

impl Sum<'_, '_> {
    /// Sums up vectors, and asks for what is used next meanwhile.
    #[inline(always)]
    fn add_up<S: Simd, A: Op, B: Op, C: Op, D: Op>(&mut self, simd: S, ask: &mut impl FnMut()) {
        self.each_piece(
            #[inline(always)]
            |piece, places, part, totals| {
                let values = piece.loaded(simd, places.end);
                for first in places.step_by(part) {
                    totals.add(values.sum::<A, B, C, D>(simd, first, part, ask), part);
                }
            },
        );
    }
}

/// The sum of the lanes of a vector. With vectors of f64 the compiler keeps to them; of single numbers it makes shorter ones.
#[inline(always)]
fn sum<S: Simd>(simd: S, vector: S::f32s) -> f64 {
    let mut lanes = [0.0; WIDEST];
    for (lane, &x) in lanes.iter_mut().zip(bytemuck::cast_slice::<_, f32>(&[vector])) {
        *lane = f64::from(x);
    }
    match S::as_simd_f64s(&lanes[..S::F32_LANES]).0 {
        &[a, b] => simd.reduce_sum_f64s(simd.add_f64s(a, b)),
        vectors => vectors.iter().map(|&vector| simd.reduce_sum_f64s(vector)).sum(),
    }
}
