//! The largest or smallest elements of rows of f32 that lie one after the other.

use crate::loops::simd;
use pulp::{Simd, WithSimd};

/// Vectors that are compared side by side, so that none waits for another.
const VECTORS: usize = 4;

/// The lanes of the widest vector that there is.
pub(crate) const WIDEST: usize = 16;

/// Folds rows of so many elements each, at least [`WIDEST`]: what a row has come to stays, unless an element is better or NaN.
pub(crate) type OfRows<T> = fn(&mut [T], &[T], usize);

/// The largest elements.
pub(crate) fn largest(rows: &mut [f32], values: &[f32], per_row: usize) {
    simd(Rows { end: End::Largest, rows, values, per_row });
}

/// The smallest elements.
pub(crate) fn smallest(rows: &mut [f32], values: &[f32], per_row: usize) {
    simd(Rows { end: End::Smallest, rows, values, per_row });
}

/// Which elements are best.
#[derive(Clone, Copy)]
enum End {
    Largest,
    Smallest,
}

struct Rows<'l> {
    end: End,
    rows: &'l mut [f32],
    values: &'l [f32],
    per_row: usize,
}

impl WithSimd for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.end {
            End::Largest => self.fold::<S>(
                simd,
                f32::NEG_INFINITY,
                #[inline(always)]
                |x, best| simd.max_f32s(x, best),
                #[inline(always)]
                |best| simd.reduce_max_f32s(best),
                f32::gt,
            ),
            End::Smallest => self.fold::<S>(
                simd,
                f32::INFINITY,
                #[inline(always)]
                |x, best| simd.min_f32s(x, best),
                #[inline(always)]
                |best| simd.reduce_min_f32s(best),
                f32::lt,
            ),
        }
    }
}

impl Rows<'_> {
    /// `better` gives the better of two vectors, and `joined` the best lane, whatever they make of NaN, which is looked for apart.
    #[inline(always)]
    fn fold<S: Simd>(
        self,
        simd: S,
        worst: f32,
        better: impl Fn(S::f32s, S::f32s) -> S::f32s,
        joined: impl Fn(S::f32s) -> f32,
        beats: impl Fn(&f32, &f32) -> bool,
    ) {
        let worst = simd.splat_f32s(worst);
        for (row, values) in self.rows.iter_mut().zip(self.values.chunks_exact(self.per_row)) {
            let (vectors, rest) = S::as_simd_f32s(values);
            let (groups, single) = vectors.as_chunks::<VECTORS>();
            let mut best = [worst; VECTORS];
            let mut are_numbers = [simd.equal_f32s(worst, worst); VECTORS];
            for group in groups {
                for i in 0..VECTORS {
                    best[i] = better(group[i], best[i]);
                    are_numbers[i] = simd.and_m32s(are_numbers[i], simd.equal_f32s(group[i], group[i]));
                }
            }
            // The last vector overlaps with the one before: what is best stays so.
            let last = &values[values.len() - S::F32_LANES..];
            let last = if rest.is_empty() { &[][..] } else { S::as_simd_f32s(last).0 };
            for &vector in single.iter().chain(last) {
                best[0] = better(vector, best[0]);
                are_numbers[0] = simd.and_m32s(are_numbers[0], simd.equal_f32s(vector, vector));
            }
            let [a, b, c, d] = best;
            let best = joined(better(better(a, b), better(c, d)));
            let [a, b, c, d] = are_numbers;
            let are_numbers = simd.and_m32s(simd.and_m32s(a, b), simd.and_m32s(c, d));
            let is_nan = simd.first_true_m32s(simd.not_m32s(are_numbers)) < S::F32_LANES;
            if is_nan {
                *row = f32::NAN;
            } else if beats(&best, row) {
                *row = best;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_to_their_best_element_or_nan() {
        for per_row in [WIDEST, 17, 31, 63, 64, 65, 100, 128, 200] {
            let number = |i: usize| ((i * 7919) % 1021) as f32 - 500.0;
            let numbers: Vec<f32> = (0..3 * per_row).map(number).collect();
            let places = (0..per_row).map(Some).chain([None]);
            type Better = fn(f32, f32) -> f32;
            let largest: (OfRows<f32>, Better, f32) = (largest, f32::max, f32::NEG_INFINITY);
            let ends = [largest, (smallest, f32::min, f32::INFINITY)];
            for (nan, (of_rows, better, worst)) in places.flat_map(|nan| ends.map(|end| (nan, end))) {
                let mut values = numbers.clone();
                nan.into_iter().for_each(|place| values[per_row + place] = f32::NAN);
                // What was seen before: nothing, something better than all, NaN.
                for before in [worst, -10.0 * worst.clamp(-100.0, 100.0), f32::NAN] {
                    let mut rows = [before; 3];
                    of_rows(&mut rows, &values, per_row);
                    for (row, got) in rows.into_iter().enumerate() {
                        let values = &numbers[row * per_row..][..per_row];
                        let expected = match nan {
                            _ if before.is_nan() => f32::NAN,
                            Some(_) if row == 1 => f32::NAN,
                            _ => values.iter().copied().fold(before, better),
                        };
                        assert!(
                            got == expected || got.is_nan() && expected.is_nan(),
                            "from {worst} of {per_row}, NaN at {nan:?}, {before} before: row {row} is {got}, not {expected}"
                        );
                    }
                }
            }
        }
    }
}
