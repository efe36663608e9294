//! Strided matrices, and their products on the `gemm` crate.

use crate::dots::{dot_product, is_by_dots};
use crate::parallel;
use crate::slice::Typed;
use gradus_ir::real::Int;
use gradus_ir::{Shape, View};
use std::ops::{Add, Range};

/// Where the matrices of an operand are: rows are the free axes, columns the summed ones.
#[derive(Debug)]
pub(crate) struct Matrices {
    /// Of the batch axes, and of the outer summed axes.
    pub(crate) strides: Vec<isize>,
    pub(crate) row: isize,
    pub(crate) column: isize,
    pub(crate) offset: isize,
}

/// The least rows, and the least rows of the other operand and terms of a sum, for which an operand is worth transposing.
const LEAST_ROWS: usize = 8;
const LEAST_OTHERS: usize = 64;
const LEAST_SUM: usize = 64;

/// Some rows that lie a multiple of so many bytes apart meet in few sets of a cache.
const MEETING: usize = 1024;

/// Columns of a matrix that are transposed at a time, and the side of a tile of these.
const TURNED_COLUMNS: usize = 64;
const TILE: usize = 16;

/// Multiply-adds of a piece of a product for several threads, as long as there are not too many.
const PIECE: usize = 1 << 22;

/// So many pieces are enough, and for larger products so many.
const PIECES: usize = 16;
const LARGE: usize = 1 << 31;
const PIECES_OF_LARGE: usize = 64;

/// The least rows and columns of a piece, if there are as many, and what they are multiples of.
const PIECE_ROWS: usize = 192;
const PIECE_COLUMNS: usize = 64;
const LANES: usize = 16;

/// How a product is computed.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    /// Whether it is added to what is there.
    pub(crate) adds: bool,
    pub(crate) parallel: bool,
}

impl Matrices {
    /// `None` where an axis group has no single stride or is padded.
    pub(crate) fn new(view: &View, batch: usize, contracted: usize, outer: usize) -> Option<Matrices> {
        let rank = view.axes.len();
        let group = |range: Range<usize>| -> Option<isize> {
            let axes: Vec<_> = view.axes[range].iter().filter(|a| a.extent != 1 || a.guard.is_some()).collect();
            // What has no elements is never read, so any stride will do.
            let empty = axes.iter().any(|a| a.extent == 0);
            let merges = empty || axes.windows(2).all(|w| w[0].stride == w[1].stride * w[1].extent as isize);
            let plain = axes.iter().all(|a| a.guard.is_none());
            (merges && plain).then(|| axes.last().map_or(1, |a| a.stride))
        };
        let (free, summed) = (batch..rank - contracted, rank - contracted..rank - contracted + outer);
        let mut walked = view.axes[..batch].iter().chain(&view.axes[summed.clone()]);
        let is_plain = walked.clone().all(|axis| axis.guard.is_none());
        Some(Matrices {
            strides: is_plain.then(|| walked.by_ref().map(|axis| axis.stride).collect())?,
            row: group(free)?,
            column: group(summed.end..rank)?,
            offset: view.offset,
        })
    }

    /// Where the matrix at a place begins: a batch index, and an index along the outer summed axes.
    pub(crate) fn offset_at(&self, batch: &Shape, outer: &Shape, place: usize) -> isize {
        let mut rest = place;
        let extents = batch.iter().chain(&**outer).rev();
        extents.zip(self.strides.iter().rev()).fold(self.offset, |offset, (&extent, &stride)| {
            let index = rest % extent;
            rest /= extent;
            offset + stride * index as isize
        })
    }
}

/// A strided matrix inside a slice.
pub(crate) struct Matrix<'a, T> {
    pub(crate) source: &'a [T],
    pub(crate) offset: isize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row: isize,
    pub(crate) column: isize,
}

impl<T> Matrix<'_, T> {
    /// Some of its rows.
    pub(crate) fn rows(self, first: usize, rows: usize) -> Self {
        Matrix { offset: self.offset + self.row * first as isize, rows, ..self }
    }

    /// The same with rows as columns.
    pub(crate) fn transposed(self) -> Self {
        let Matrix { rows, columns, row, column, .. } = self;
        Matrix { rows: columns, columns: rows, row: column, column: row, ..self }
    }

    /// Checks that every element lies inside the slice, and that there is one.
    fn check(&self) {
        assert!(self.rows > 0 && self.columns > 0, "a matrix without elements");
        // Wide enough for whatever the numbers are: unsafe code relies on this.
        let reach = |extent: usize, stride: isize| (extent as i128 - 1) * stride as i128;
        let (r, c) = (reach(self.rows, self.row), reach(self.columns, self.column));
        let low = self.offset as i128 + r.min(0) + c.min(0);
        let high = self.offset as i128 + r.max(0) + c.max(0);
        assert!(low >= 0 && high < self.source.len() as i128, "a matrix view leaves its buffer");
    }
}

/// `out [m, n] = a [m, k] · b [n, k]ᵀ` on f32.
pub(crate) fn f32_product(a: Matrix<'_, f32>, b: Matrix<'_, f32>, out: &mut [f32], mode: Mode) {
    match is_by_dots([a.rows, b.rows], a.columns, [[a.row, a.column], [b.row, b.column]]) {
        true => dot_product(&a, &b, out, mode),
        false => gemm_product(a, b, out, mode),
    }
}

/// The same on floats, by `gemm`.
///
/// Where the summed axis is the innermost of both operands, `gemm` transposes `b` as it goes. If its rows meet in a few sets of the
/// cache, this takes several times as long as the product: so the smaller operand is transposed before, and becomes the right one.
pub(crate) fn gemm_product<T: Typed + From<f32> + Add<Output = T>>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    out: &mut [T],
    mode: Mode,
) {
    let strides = [[a.row, a.column], [b.row, b.column]];
    if transposed(size_of::<T>(), [a.rows, b.rows], a.columns, strides) == 0 {
        return strided_product(a, b, out, mode);
    }
    let turn = |matrix: &Matrix<'_, T>| {
        let mut columns = vec![T::default(); matrix.rows * matrix.columns];
        transpose(matrix, &mut columns, mode.parallel, |to, from| *to = from);
        columns
    };
    if b.rows <= a.rows {
        let columns = turn(&b);
        return strided_product(
            a,
            Matrix { source: &columns, offset: 0, row: 1, column: b.rows as isize, ..b },
            out,
            mode,
        );
    }
    let (m, n, columns) = (a.rows, b.rows, turn(&a));
    let mut products = vec![T::default(); n * m];
    let a = Matrix { source: &columns[..], offset: 0, row: 1, column: m as isize, ..a };
    strided_product(b, a, &mut products, Mode { adds: false, ..mode });
    let products = Matrix { source: &products[..], offset: 0, rows: n, columns: m, row: m as isize, column: 1 };
    match mode.adds {
        true => transpose(&products, out, mode.parallel, |to, from| *to = *to + from),
        false => transpose(&products, out, mode.parallel, |to, from| *to = from),
    }
}

/// Whether what is summed up of a row lies side by side, and rows do not, in a matrix with these row and column strides.
pub(crate) fn is_along_sums([row, column]: [isize; 2]) -> bool {
    column == 1 && row != 1
}

/// Whether rows of a matrix with these row and column strides, of elements of a size, meet in few sets of a cache.
pub(crate) fn rows_meet([row, _]: [isize; 2], size: usize) -> bool {
    (row.unsigned_abs() * size).is_multiple_of(MEETING)
}

/// How many elements a product of so many rows on both sides, and terms of each sum, transposes; of operands with elements of a
/// size, and with row and column strides.
pub(crate) fn transposed(size: usize, [m, n]: [usize; 2], terms: usize, [a, b]: [[isize; 2]; 2]) -> usize {
    let is_worth_it = m.min(n) >= LEAST_ROWS && m.max(n) >= LEAST_OTHERS && terms >= LEAST_SUM;
    match is_worth_it && rows_meet(b, size) && is_along_sums(a) && is_along_sums(b) {
        // Its results, too, if they are turned.
        true => m.min(n) * terms + if m < n { m * n } else { 0 },
        false => 0,
    }
}

/// Puts the rows of a matrix, whose elements lie side by side, into columns of `out`.
fn transpose<T: Typed>(matrix: &Matrix<'_, T>, out: &mut [T], parallel: bool, put: impl Fn(&mut T, T) + Sync + Send) {
    let rows = matrix.rows;
    let row = |i: usize| &matrix.source[(matrix.offset + matrix.row * i as isize) as usize..][..matrix.columns];
    let some = |(number, out): (usize, &mut [T])| {
        let columns = out.len() / rows;
        // Every line of the cache is looked at once: those that lie some KB apart would not stay.
        for (i, j) in (0..rows).step_by(TILE).flat_map(|i| (0..columns).step_by(TILE).map(move |j| (i, j))) {
            let (height, width) = (TILE.min(rows - i), TILE.min(columns - j));
            let mut tile = [[T::default(); TILE]; TILE];
            for (r, line) in tile[..height].iter_mut().enumerate() {
                line[..width].copy_from_slice(&row(i + r)[number * TURNED_COLUMNS + j..][..width]);
            }
            for c in 0..width {
                let line = &mut out[(j + c) * rows + i..][..height];
                line.iter_mut().zip(&tile).for_each(|(to, from)| put(to, from[c]));
            }
        }
        Ok(())
    };
    let elements = out.len();
    let tasks = out.chunks_mut(TURNED_COLUMNS * rows).enumerate().collect();
    let done = parallel::map(tasks, if parallel { elements } else { 0 }, some);
    done.expect("no part fails");
}

/// The same by `gemm` alone.
fn strided_product<T: Typed + From<f32>>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T], mode: Mode) {
    let (m, n, k) = (a.rows, b.rows, a.columns);
    a.check();
    b.check();
    assert!(out.len() == m * n && b.columns == k);
    let out = &Out(out.as_mut_ptr());
    let piece = |(rows, columns): (Range<usize>, Range<usize>)| {
        #[allow(unsafe_code)]
        // SAFETY: `check` has shown that every element of a and b that the strides reach lies in its slice, and the
        // assertion that out holds m·n elements, written with row stride n; out is borrowed mutably, so it overlaps neither,
        // and no two pieces overlap.
        unsafe {
            gemm::gemm(
                rows.len(),
                columns.len(),
                k,
                out.0.add(rows.start * n + columns.start),
                1,
                n as isize,
                mode.adds,
                a.source.as_ptr().offset(a.offset + a.row * rows.start as isize),
                a.column,
                a.row,
                b.source.as_ptr().offset(b.offset + b.row * columns.start as isize),
                b.row,
                b.column,
                T::from(if mode.adds { 1.0 } else { 0.0 }),
                T::from(1.0),
                false,
                false,
                false,
                // Who shares the work is not left to it.
                gemm::Parallelism::None,
            );
        }
    };
    if !mode.parallel {
        return piece((0..m, 0..n));
    }
    let done = parallel::map(pieces(m, n, k), parallel::product(m, n, k), |at| {
        piece(at);
        Ok(())
    });
    done.expect("no piece fails");
}

/// Where a product is written.
struct Out<T>(*mut T);

#[allow(unsafe_code)]
// SAFETY: whoever writes there says why nobody else does.
unsafe impl<T: Send> Sync for Out<T> {}

/// Cuts a product of `m` rows and `n` columns into pieces that depend on nothing but sizes: columns as far as it is worth it, rows by
/// what is missing then. Of columns for few rows `gemm` packs nothing, and reads them where they lie again and again.
fn pieces(m: usize, n: usize, k: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let products = m * n * k;
    let wanted = (products / PIECE).clamp(2, if products < LARGE { PIECES } else { PIECES_OF_LARGE });
    let across = (n / PIECE_COLUMNS).clamp(1, wanted);
    let down = (m / PIECE_ROWS).clamp(1, wanted / across);
    let cut = |len: usize, pieces: usize| {
        let at = move |piece: usize| (len.div_ceil(LANES) * piece / pieces * LANES).min(len);
        (0..pieces).map(move |piece| at(piece)..at(piece + 1))
    };
    cut(n, across).flat_map(|columns| cut(m, down).map(move |rows| (rows, columns.clone()))).collect()
}

/// The same on integers, which wrap.
pub(crate) fn int_product<T: Typed + Int>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T], mode: Mode) {
    let at = |m: &Matrix<'_, T>, i: usize, k: usize| {
        m.source[(m.offset + m.row * i as isize + m.column * k as isize) as usize]
    };
    for (i, row) in out.chunks_mut(b.rows).enumerate() {
        for (j, out) in row.iter_mut().enumerate() {
            let before = if mode.adds { *out } else { T::ZERO };
            *out = (0..a.columns).fold(before, |sum, k| sum.add(at(&a, i, k).mul(at(&b, j, k))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;

    const MODE: Mode = Mode { adds: false, parallel: false };

    /// Layouts of a 3 × 5 matrix: offset, row and column stride, and the least length of the buffer.
    const LAYOUTS: [(isize, isize, isize, usize); 7] =
        [(0, 5, 1, 15), (0, 1, 3, 15), (14, -5, -1, 15), (10, -5, 1, 15), (2, 7, 1, 21), (4, 0, 0, 5), (0, 0, 2, 9)];

    fn matrix<T>(source: &[T], (offset, row, column, _): (isize, isize, isize, usize)) -> Matrix<'_, T> {
        Matrix { source, offset, rows: 3, columns: 5, row, column }
    }

    /// Small numbers in exactly as much memory as a layout needs: a look beyond it is one too far.
    fn source<T>(len: usize, from: fn(u8) -> T) -> Vec<T> {
        (0..len).map(|i| from((i * 7 % 11) as u8)).collect()
    }

    #[test]
    fn products_of_every_layout_stay_inside_of_their_operands() {
        for (left, right) in LAYOUTS.into_iter().flat_map(|left| LAYOUTS.map(|right| (left, right))) {
            let (a, b) = (source(left.3, f32::from), source(right.3, f32::from));
            let mut found = vec![f32::NAN; 9];
            gemm_product(matrix(&a, left), matrix(&b, right), &mut found, MODE);
            let (a, b) = (source(left.3, i32::from), source(right.3, i32::from));
            let mut expected = vec![0; 9];
            int_product(matrix(&a, left), matrix(&b, right), &mut expected, MODE);
            assert_eq!(found, expected.iter().map(|&sum| sum as f32).collect::<Vec<_>>(), "{left:?} {right:?}");
        }
    }

    #[test]
    fn pieces_are_the_whole_product_and_meet_nowhere() {
        for (m, n, k) in
            [(1, 1, 1), (63, 900, 3), (130, 70, 3), (300, 200, 9000), (1000, 1, 100_000), (4096, 4096, 4096)]
        {
            let pieces = pieces(m, n, k);
            let sums: usize = pieces.iter().map(|(rows, columns)| rows.len() * columns.len()).sum();
            assert_eq!(sums, m * n, "{m} {n} {k}");
            for (i, (rows, columns)) in pieces.iter().enumerate() {
                assert!(
                    !rows.is_empty() && !columns.is_empty() && rows.end <= m && columns.end <= n,
                    "{rows:?} {columns:?}"
                );
                let meets = |x: &Range<usize>, y: &Range<usize>| x.start < y.end && y.start < x.end;
                assert!(!pieces[..i].iter().any(|(r, c)| meets(r, rows) && meets(c, columns)), "{rows:?} {columns:?}");
            }
        }
    }

    #[test]
    fn a_product_in_pieces_is_the_product() {
        let (m, n, k) = (197, 131, if cfg!(miri) { 2 } else { 50 });
        // Row after row, or column after column.
        for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
            let (a, b) = (source(m * k, f32::from), source(n * k, f32::from));
            let matrix = |source, rows: usize, transposed: bool| {
                let (row, column) = if transposed { (1, rows as isize) } else { (k as isize, 1) };
                Matrix { source, offset: 0, rows, columns: k, row, column }
            };
            let product = |parallel| {
                let mut out = vec![0.5; m * n];
                let mode = Mode { adds: true, parallel };
                gemm_product(matrix(&a[..], m, left), matrix(&b[..], n, right), &mut out, mode);
                out
            };
            // Sums of small integers are exact.
            assert_eq!(Team::new(3).unwrap().enter(|| product(true)), product(false), "{left} {right}");
        }
    }

    #[test]
    fn operands_whose_rows_meet_are_multiplied_too() {
        // As far apart as their sums are long, or farther, or the other way round.
        for (k, row) in [(256, 256), (100, 256), (70, -512), (64, 300)] {
            for (m, n) in [(64, 8), (8, 64), (67, 70), (70, 67), (9, 63)] {
                if cfg!(miri) && (k != 70 || m * n > 512) {
                    continue;
                }
                let matrix = |source, rows: usize| {
                    let offset = 3 + if row < 0 { -row * (rows as isize - 1) } else { 0 };
                    Matrix { source, offset, rows, columns: k, row, column: 1 }
                };
                let len = |rows: usize| 3 + row.unsigned_abs() * (rows - 1) + k;
                let (a, b) = (source(len(m), f32::from), source(len(n), f32::from));
                let at = |source: &[f32], matrix: &Matrix<'_, f32>, i: usize, k: usize| {
                    source[(matrix.offset + row * i as isize) as usize + k]
                };
                for adds in [false, true] {
                    let product = |parallel| {
                        let mut out = vec![0.5; m * n];
                        gemm_product(matrix(&a[..], m), matrix(&b[..], n), &mut out, Mode { adds, parallel });
                        out
                    };
                    let found = product(false);
                    assert_eq!(Team::new(3).unwrap().enter(|| product(true)), found, "{m} {n} {k} {row}");
                    for (place, &found) in found.iter().enumerate() {
                        let (left, right) = (matrix(&a[..], m), matrix(&b[..], n));
                        let term = |term| at(&a, &left, place / n, term) * at(&b, &right, place % n, term);
                        // Sums of small integers are exact.
                        let want = (0..k).map(term).sum::<f32>() + if adds { 0.5 } else { 0.0 };
                        assert_eq!(found, want, "{m} {n} {k} {row} {place}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_leaves_its_buffer_is_refused() {
        for layout in LAYOUTS {
            let (short, whole) = (vec![0f32; layout.3 - 1], [0.0; 15]);
            let multiply = || gemm_product(matrix(&short, layout), matrix(&whole, LAYOUTS[0]), &mut [0.0; 9], MODE);
            assert!(std::panic::catch_unwind(multiply).is_err(), "{layout:?}");
        }
        for layout in [(-1, 5, 1, 0), (0, -1, 1, 0), (0, isize::MAX, 1, 0), (0, isize::MIN, isize::MIN, 0)] {
            let multiply =
                || gemm_product(matrix(&[0.0; 15], layout), matrix(&[0.0; 15], LAYOUTS[0]), &mut [0.0; 9], MODE);
            assert!(std::panic::catch_unwind(multiply).is_err(), "{layout:?}");
        }
        let multiply =
            |out: &mut [f32]| gemm_product(matrix(&[0.0; 15], LAYOUTS[0]), matrix(&[0.0; 15], LAYOUTS[0]), out, MODE);
        assert!(std::panic::catch_unwind(|| multiply(&mut [0.0; 8])).is_err());
    }
}
