//! Products of a few rows with many, where what is summed up lies side by side in both: a linear layer of a few examples. It is
//! bound by how fast the many rows are read, so these are read once, where they lie.

use crate::loops::simd;
use crate::matrix::{Matrix, Mode, is_along_sums, rows_meet};
use crate::parallel;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// So many rows are few, and fewer where the others meet in few sets of a cache: of more, it pays to pack the others.
const MOST_ROWS: usize = 48;
const MOST_OF_MEETING: usize = 15;

/// The terms of each sum for each of the few rows: to join the lanes of a vector takes as long as some terms.
const TERMS_PER_ROW: usize = 20;

/// Few rows that are multiplied at once.
const FEW: usize = 4;

/// Multiply-adds of a task.
const TASK: usize = 1 << 20;

/// Whether a product of f32 with so many rows on both sides, and terms of each sum, is found so; of operands with these row and
/// column strides.
pub(crate) fn is_by_dots([m, n]: [usize; 2], terms: usize, [a, b]: [[isize; 2]; 2]) -> bool {
    let most = if rows_meet(b, size_of::<f32>()) { MOST_OF_MEETING } else { MOST_ROWS };
    let few = m.min(n);
    (2..=most).contains(&few) && terms >= TERMS_PER_ROW * few && is_along_sums(a) && is_along_sums(b)
}

/// `out [m, n] = a [m, k] · b [n, k]ᵀ`, where the elements of each row lie side by side, and one of them has few rows.
pub(crate) fn dot_product(a: &Matrix<'_, f32>, b: &Matrix<'_, f32>, out: &mut [f32], mode: Mode) {
    let (n, terms) = (b.rows, a.columns);
    assert!(out.len() == a.rows * n && b.columns == terms);
    let is_left_few = a.rows <= n;
    let (few, many) = if is_left_few { (a, b) } else { (b, a) };
    let few: Vec<&[f32]> = (0..few.rows).map(|i| row(few, i)).collect();
    let len = (TASK / (few.len() * terms).max(1)).max(FEW).next_multiple_of(FEW);
    let tasks: Vec<Range<usize>> = (0..many.rows).step_by(len).map(|first| first..many.rows.min(first + len)).collect();
    let elements = if mode.parallel { parallel::product(few.len(), many.rows, terms) } else { 0 };
    let dots = |rows: Range<usize>| {
        let many: Vec<&[f32]> = rows.clone().map(|i| row(many, i)).collect();
        // As the result has them: those of a row of the left operand side by side.
        let strides = if is_left_few { [many.len(), 1] } else { [1, few.len()] };
        let mut sums = vec![0.0; few.len() * many.len()];
        simd(Dots { few: &few, many: &many, strides, sums: &mut sums });
        Ok((rows, sums))
    };
    let parts = parallel::map(tasks, elements, dots).expect("no part fails");
    for (rows, sums) in parts {
        let width = if is_left_few { rows.len() } else { sums.len() };
        for (i, sums) in sums.chunks(width).enumerate() {
            let first = if is_left_few { i * n + rows.start } else { rows.start * n };
            let out = &mut out[first..first + width];
            match mode.adds {
                true => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                false => out.copy_from_slice(sums),
            }
        }
    }
}

/// A row whose elements lie side by side.
fn row<'a>(matrix: &Matrix<'a, f32>, number: usize) -> &'a [f32] {
    &matrix.source[(matrix.offset + matrix.row * number as isize) as usize..][..matrix.columns]
}

/// The sums of products of each of a few rows with each of many, all of one length.
struct Dots<'l, 'a> {
    few: &'l [&'a [f32]],
    many: &'l [&'a [f32]],
    /// How far it is from the result of a row to that of the next one, of the few and of the many.
    strides: [usize; 2],
    sums: &'l mut [f32],
}

impl WithSimd for Dots<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // As many sums as there are registers for, beside those for what is read.
        match S::REGISTER_COUNT {
            32.. => self.in_tiles::<S, 4>(simd),
            _ => self.in_tiles::<S, 2>(simd),
        }
    }
}

impl Dots<'_, '_> {
    #[inline(always)]
    fn in_tiles<S: Simd, const M: usize>(&mut self, simd: S) {
        let (tiles, rest) = self.many.as_chunks::<M>();
        for (number, tile) in tiles.iter().enumerate() {
            self.with_few::<S, M>(simd, tile, number * M);
        }
        for (number, row) in rest.iter().enumerate() {
            self.with_few::<S, 1>(simd, &[*row], tiles.len() * M + number);
        }
    }

    /// All that some of the many rows are multiplied with.
    #[inline(always)]
    fn with_few<S: Simd, const M: usize>(&mut self, simd: S, many: &[&[f32]; M], first: usize) {
        let (tiles, rest) = self.few.as_chunks::<FEW>();
        for (number, few) in tiles.iter().enumerate() {
            self.put(&dots(simd, many, few), number * FEW, first);
        }
        let done = tiles.len() * FEW;
        match *rest {
            [a, b, c] => self.put(&dots(simd, many, &[a, b, c]), done, first),
            [a, b] => self.put(&dots(simd, many, &[a, b]), done, first),
            [a] => self.put(&dots(simd, many, &[a]), done, first),
            _ => {}
        }
    }

    /// Puts the results of some of the many rows with some of the few, from these two on, where they belong.
    #[inline(always)]
    fn put<const M: usize, const F: usize>(&mut self, results: &[[f32; F]; M], few: usize, many: usize) {
        for (i, results) in results.iter().enumerate() {
            for (j, &result) in results.iter().enumerate() {
                self.sums[(few + j) * self.strides[0] + (many + i) * self.strides[1]] = result;
            }
        }
    }
}

/// The sums of products of each of some rows with each of others.
#[inline(always)]
fn dots<S: Simd, const M: usize, const F: usize>(simd: S, many: &[&[f32]; M], few: &[&[f32]; F]) -> [[f32; F]; M] {
    let (many, few) = (many.map(S::as_simd_f32s), few.map(S::as_simd_f32s));
    let len = few.iter().chain(&many).map(|(vectors, _)| vectors.len()).min().unwrap_or(0);
    let vectors = (many.map(|(vectors, _)| &vectors[..len]), few.map(|(vectors, _)| &vectors[..len]));
    let mut sums = [[simd.splat_f32s(0.0); F]; M];
    for place in 0..len {
        add(simd, &mut sums, vectors.0.map(|row| row[place]), vectors.1.map(|row| row[place]));
    }
    if !few[0].1.is_empty() {
        let last = |(_, rest): (_, &[f32])| simd.partial_load_f32s(rest);
        add(simd, &mut sums, many.map(last), few.map(last));
    }
    let mut results = [[0.0; F]; M];
    for (results, sums) in results.iter_mut().zip(&sums) {
        for (result, sum) in results.iter_mut().zip(sums) {
            *result = simd.reduce_sum_f32s(*sum);
        }
    }
    results
}

#[inline(always)]
fn add<S: Simd, const M: usize, const F: usize>(
    simd: S,
    sums: &mut [[S::f32s; F]; M],
    many: [S::f32s; M],
    few: [S::f32s; F],
) {
    for (sums, x) in sums.iter_mut().zip(many) {
        for (sum, y) in sums.iter_mut().zip(few) {
            *sum = simd.mul_add_e_f32s(x, y, *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;

    #[test]
    fn sums_are_those_of_the_rows() {
        let sizes: &[(usize, usize, usize)] = match cfg!(miri) {
            true => &[(3, 6, 20)],
            false => {
                &[(1, 1, 1), (2, 3, 64), (3, 2, 100), (5, 9, 67), (9, 5, 15), (4, 700, 256), (700, 7, 131), (8, 8, 0)]
            }
        };
        for (&(m, n, k), gap) in sizes.iter().flat_map(|size| [(size, 0), (size, 5), (size, -3)]) {
            let row = if gap < 0 { gap - k as isize } else { gap + k as isize };
            let source = |rows: usize| -> Vec<f32> {
                let len = 3 + row.unsigned_abs() * (rows - 1) + k;
                (0..len).map(|i| (i * 7 % 11) as f32 - 4.0).collect()
            };
            let matrix = |source, rows: usize| {
                let offset = 3 + if row < 0 { -row * (rows as isize - 1) } else { 0 };
                Matrix { source, offset, rows, columns: k, row, column: 1 }
            };
            let (left, right) = (source(m), source(n));
            let (a, b) = (matrix(&left[..], m), matrix(&right[..], n));
            for adds in [false, true] {
                let product = |parallel| {
                    let mut out = vec![0.5; m * n];
                    dot_product(&a, &b, &mut out, Mode { adds, parallel });
                    out
                };
                let found = product(false);
                assert_eq!(Team::new(3).unwrap().enter(|| product(true)), found, "{m} {n} {k} {row}");
                for (place, &found) in found.iter().enumerate() {
                    let at = |matrix: &Matrix<'_, f32>, i: usize, term: usize| {
                        matrix.source[(matrix.offset + row * i as isize) as usize + term]
                    };
                    // Sums of small integers are exact.
                    let sum: f32 = (0..k).map(|term| at(&a, place / n, term) * at(&b, place % n, term)).sum();
                    assert_eq!(found, sum + if adds { 0.5 } else { 0.0 }, "{m} {n} {k} {row} {place}");
                }
            }
        }
    }

    #[test]
    fn what_leaves_its_buffer_is_refused() {
        let matrix = |source| Matrix { source, offset: 0, rows: 2, columns: 30, row: 30, column: 1 };
        let (short, whole) = (vec![0.0; 59], vec![0.0; 60]);
        let multiply =
            || dot_product(&matrix(&short), &matrix(&whole), &mut [0.0; 4], Mode { adds: false, parallel: false });
        assert!(std::panic::catch_unwind(multiply).is_err());
    }
}
