//! What goes into Winograd's products, and what comes out of them: tiles of 2 × 2 sums of windows of 3 × 3 and their gradients,
//! as matrices of 16 points (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4.1).
//!
//! A tile stands for 4 × 4 neighbours, and the next one begins two further. Numbers of one row are split by whether their column is
//! even: what tiles beside each other have at the same place then lies side by side, and vectors hold one number of many tiles.

use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::ops::Range;

/// The points of a tile: as many products take the place of 36.
pub(super) const POINTS: usize = 16;

/// Rows and columns from a tile to the next one.
pub(super) const STEP: usize = 2;

/// Rows and columns of a window.
pub(super) const WINDOW: usize = 3;

/// The places of a window.
const TAPS: usize = WINDOW * WINDOW;

/// The same number of many tiles for each point.
pub(super) type Points<T> = [T; POINTS];

/// A transform along one axis; both axes of a tile are transformed in the same way.
trait Transform<const FROM: usize, const TO: usize> {
    fn apply<S: Simd>(simd: S, x: [S::f32s; FROM]) -> [S::f32s; TO];
}

/// Bᵀ: of what windows are taken of.
pub(super) struct Data;
impl Transform<4, 4> for Data {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
        [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
    }
}

/// G: of a filter.
struct Filter;
impl Transform<3, 4> for Filter {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
        let half = simd.splat_f32s(0.5);
        let (ends, middle) = (simd.mul_f32s(half, simd.add_f32s(a, c)), simd.mul_f32s(half, b));
        [a, simd.add_f32s(ends, middle), simd.sub_f32s(ends, middle), c]
    }
}

/// Aᵀ: to sums.
struct Sums;
impl Transform<4, 2> for Sums {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
        [simd.add_f32s(a, simd.add_f32s(b, c)), simd.sub_f32s(simd.sub_f32s(b, c), d)]
    }
}

/// A: of the cotangent of sums.
pub(super) struct Cotangent;
impl Transform<2, 4> for Cotangent {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
        [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), simd.neg_f32s(b)]
    }
}

/// Gᵀ: to the gradient of a filter.
struct FilterGradient;
impl Transform<4, 3> for FilterGradient {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
        let half = simd.splat_f32s(0.5);
        let (sum, difference) = (simd.add_f32s(b, c), simd.sub_f32s(b, c));
        let sum = simd.mul_f32s(half, sum);
        [simd.add_f32s(a, sum), simd.mul_f32s(half, difference), simd.add_f32s(sum, d)]
    }
}

/// Transforms columns, and then rows.
#[inline(always)]
fn square<S: Simd, X: Transform<FROM, TO>, const FROM: usize, const TO: usize>(
    simd: S,
    tile: [[S::f32s; FROM]; FROM],
) -> [[S::f32s; TO]; TO] {
    let zero = simd.splat_f32s(0.0);
    let mut rows = [[zero; FROM]; TO];
    for column in 0..FROM {
        let mut from = [zero; FROM];
        for row in 0..FROM {
            from[row] = tile[row][column];
        }
        let to = X::apply(simd, from);
        for row in 0..TO {
            rows[row][column] = to[row];
        }
    }
    let mut square = [[zero; TO]; TO];
    for row in 0..TO {
        square[row] = X::apply(simd, rows[row]);
    }
    square
}

/// Planes of numbers in an array, one for each image and channel; the numbers of a row lie side by side.
pub(super) struct Planes<'a> {
    pub(super) values: &'a [f32],
    /// Where each image begins.
    pub(super) images: &'a [isize],
    pub(super) layout: &'a Layout,
}

/// Where the planes of an image lie in it.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) channels: usize,
    /// Elements from a channel to the next one, and from a row.
    pub(super) channel: isize,
    pub(super) row: isize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<'a> Planes<'a> {
    /// A row; below the last one there is nothing.
    #[inline(always)]
    fn row(&self, image: usize, channel: usize, row: usize) -> Option<&'a [f32]> {
        let Layout { channel: next_channel, row: next_row, rows, columns, .. } = *self.layout;
        let at = self.images[image] + next_channel * channel as isize + next_row * row as isize;
        (row < rows).then(|| &self.values[at as usize..][..columns])
    }
}

/// Some rows of tiles of some images.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
    /// The tiles of a row.
    pub(super) tiles: usize,
}

impl Group {
    /// The tiles of a channel.
    pub(super) fn len(&self) -> usize {
        self.images.len() * self.rows.len() * self.tiles
    }
}

/// Pairs that are taken apart, or put together, at once.
const PAIRS: usize = 8;

/// The first pair of each block of so many, the last of which may begin inside of the one before.
fn blocks(pairs: usize) -> impl Iterator<Item = usize> {
    (0..pairs.div_ceil(PAIRS)).map(move |number| (number * PAIRS).min(pairs - PAIRS))
}

/// A row of numbers by whether their column is even.
#[inline(always)]
fn split(row: &[f32], even: &mut [f32], odd: &mut [f32]) {
    let pairs = row.len() / 2;
    if pairs >= PAIRS {
        for first in blocks(pairs) {
            let mut halves = [[0.0; PAIRS]; 2];
            let from: [f32; 2 * PAIRS] = *row[2 * first..].first_chunk().expect("pairs are two numbers");
            for pair in 0..PAIRS {
                (halves[0][pair], halves[1][pair]) = (from[2 * pair], from[2 * pair + 1]);
            }
            even[first..][..PAIRS].copy_from_slice(&halves[0]);
            odd[first..][..PAIRS].copy_from_slice(&halves[1]);
        }
    } else {
        for (pair, (even, odd)) in row.chunks_exact(2).zip(even.iter_mut().zip(odd.iter_mut())) {
            (*even, *odd) = (pair[0], pair[1]);
        }
    }
    if row.len() % 2 == 1 {
        even[pairs] = row[2 * pairs];
    }
}

/// Numbers of even and odd columns as a row.
#[inline(always)]
fn join(even: &[f32], odd: &[f32], row: &mut [f32]) {
    let pairs = row.len() / 2;
    if pairs >= PAIRS {
        for first in blocks(pairs) {
            let half = |from: &[f32]| -> [f32; PAIRS] { *from[first..].first_chunk().expect("halves are as long") };
            let (even, odd) = (half(even), half(odd));
            let mut joined = [0.0; 2 * PAIRS];
            for pair in 0..PAIRS {
                (joined[2 * pair], joined[2 * pair + 1]) = (even[pair], odd[pair]);
            }
            row[2 * first..][..2 * PAIRS].copy_from_slice(&joined);
        }
    } else {
        for (pair, (&even, &odd)) in row.chunks_exact_mut(2).zip(even.iter().zip(odd)) {
            (pair[0], pair[1]) = (even, odd);
        }
    }
    if row.len() % 2 == 1 {
        row[2 * pairs] = even[pairs];
    }
}

/// Numbers that may be read or written behind the last ones that have a meaning, since vectors are read and written whole.
pub(super) const BEHIND: usize = 16;

/// A whole vector.
#[inline(always)]
fn load<S: Simd>(_: S, from: &[f32]) -> S::f32s {
    S::as_simd_f32s(from).0[0]
}

#[inline(always)]
fn store<S: Simd>(_: S, vector: S::f32s, to: &mut [f32]) {
    S::as_mut_simd_f32s(to).0[0] = vector;
}

/// Transforms the tiles of some channels.
pub(super) struct Tiles<'a, X, const FROM: usize> {
    pub(super) transform: PhantomData<X>,
    pub(super) planes: &'a Planes<'a>,
    pub(super) group: &'a Group,
    /// The points of the tiles of each channel, from this one on, with room behind.
    pub(super) first: usize,
    pub(super) channels: Vec<Points<&'a mut [f32]>>,
}

impl<X: Transform<FROM, 4>, const FROM: usize> WithSimd for Tiles<'_, X, FROM> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { planes, group, .. } = self;
        let zero = simd.splat_f32s(0.0);
        // The last tiles may stand for numbers that are not there, and their vectors for tiles that are not.
        let len = group.tiles + FROM / STEP - 1 + BEHIND;
        let mut rows = vec![0.0; FROM * STEP * len];
        for (number, points) in self.channels.into_iter().enumerate() {
            let mut at = 0;
            for image in group.images.clone() {
                let mut next = STEP * group.rows.start;
                for row in group.rows.clone() {
                    while next < STEP * row + FROM {
                        let (even, odd) = rows[next % FROM * STEP * len..][..STEP * len].split_at_mut(len);
                        match planes.row(image, self.first + number, next) {
                            Some(row) => split(row, even, odd),
                            None => {
                                even.fill(0.0);
                                odd.fill(0.0);
                            }
                        }
                        next += 1;
                    }
                    for tile in (0..group.tiles).step_by(S::F32_LANES) {
                        let mut numbers = [[zero; FROM]; FROM];
                        for (y, numbers) in numbers.iter_mut().enumerate() {
                            let halves = (STEP * row + y) % FROM * STEP;
                            for (x, number) in numbers.iter_mut().enumerate() {
                                *number = load(simd, &rows[(halves + x % STEP) * len + tile + x / STEP..]);
                            }
                        }
                        let square = square::<S, X, FROM, 4>(simd, numbers);
                        for point in 0..POINTS {
                            store(simd, square[point / 4][point % 4], &mut points[point][at + tile..]);
                        }
                    }
                    at += group.tiles;
                }
            }
        }
    }
}

/// Makes sums of the points of some channels, and tells whether they are all finite.
pub(super) struct Untile<'a> {
    pub(super) group: &'a Group,
    /// The columns of an image.
    pub(super) columns: usize,
    pub(super) channels: Vec<Sum<'a>>,
}

/// A channel of sums.
pub(super) struct Sum<'a> {
    /// The points of its tiles, with some behind.
    pub(super) points: Points<&'a [f32]>,
    /// What they become: some rows of each image.
    pub(super) images: Vec<&'a mut [f32]>,
}

impl WithSimd for Untile<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let Untile { group, columns, .. } = self;
        let zero = simd.splat_f32s(0.0);
        let len = group.tiles + BEHIND;
        let mut halves = [const { Vec::new() }; STEP * STEP];
        halves.iter_mut().for_each(|half| half.resize(len, 0.0));
        let mut finite = zero;
        for Sum { points, images } in self.channels {
            let mut at = 0;
            for image in images {
                for rows in image.chunks_mut(STEP * columns) {
                    for tile in (0..group.tiles).step_by(S::F32_LANES) {
                        let mut numbers = [[zero; 4]; 4];
                        for point in 0..POINTS {
                            numbers[point / 4][point % 4] = load(simd, &points[point][at + tile..]);
                        }
                        let sums = square::<S, Sums, 4, STEP>(simd, numbers);
                        for half in 0..STEP * STEP {
                            let sums = sums[half / STEP][half % STEP];
                            // Zero times what is not finite is not a number.
                            finite = simd.add_f32s(finite, simd.mul_f32s(zero, sums));
                            store(simd, sums, &mut halves[half][tile..]);
                        }
                    }
                    for (row, halves) in rows.chunks_mut(columns).zip(halves.chunks(STEP)) {
                        join(&halves[0], &halves[1], row);
                    }
                    at += group.tiles;
                }
            }
        }
        bytemuck::cast_slice::<_, f32>(&[finite]).iter().all(|&lane| lane == 0.0)
    }
}

/// Where the filters of windows lie in an array.
#[derive(Debug)]
pub(super) struct Filters {
    pub(super) offset: isize,
    /// Elements from one row of filters to the next one, and from one filter of a row.
    pub(super) strides: [isize; 2],
    /// How many rows there are, and how many filters each has.
    pub(super) extents: [usize; 2],
    /// Elements from a row of a window to the next one, and from a column.
    pub(super) taps: [isize; 2],
}

/// So many numbers as whole vectors.
pub(super) fn whole_vectors(len: usize) -> usize {
    len.next_multiple_of(BEHIND)
}

/// Numbers that lie so many elements apart, from a place on.
#[inline(always)]
fn gather(values: &[f32], first: isize, stride: isize, out: &mut [f32]) {
    let last = first + stride * (out.len() as isize - 1);
    let reach = &values[first.min(last) as usize..=first.max(last) as usize];
    match stride {
        0 => out.fill(reach[0]),
        1.. => out.iter_mut().zip(reach.iter().step_by(stride as usize)).for_each(|(out, &x)| *out = x),
        _ => out.iter_mut().zip(reach.iter().rev().step_by(-stride as usize)).for_each(|(out, &x)| *out = x),
    }
}

/// Transforms some rows of filters.
pub(super) struct TransformFilters<'a> {
    pub(super) values: &'a [f32],
    pub(super) filters: &'a Filters,
    /// The points of each row, from this one on, in whole vectors.
    pub(super) first: usize,
    pub(super) rows: Vec<Points<&'a mut [f32]>>,
}

impl WithSimd for TransformFilters<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Filters { offset, strides, extents: [_, filters], taps } = *self.filters;
        let len = whole_vectors(filters);
        let mut numbers = vec![0.0; TAPS * len];
        for (number, points) in self.rows.into_iter().enumerate() {
            let row = offset + strides[0] * (self.first + number) as isize;
            for (tap, numbers) in numbers.chunks_exact_mut(len).enumerate() {
                let tap = row + taps[0] * (tap / WINDOW) as isize + taps[1] * (tap % WINDOW) as isize;
                gather(self.values, tap, strides[1], &mut numbers[..filters]);
            }
            let zero = simd.splat_f32s(0.0);
            for filter in (0..len).step_by(S::F32_LANES) {
                let mut window = [[zero; WINDOW]; WINDOW];
                for tap in 0..TAPS {
                    window[tap / WINDOW][tap % WINDOW] = load(simd, &numbers[tap * len + filter..]);
                }
                let square = square::<S, Filter, WINDOW, 4>(simd, window);
                for point in 0..POINTS {
                    store(simd, square[point / 4][point % 4], &mut points[point][filter..]);
                }
            }
        }
    }
}

/// Makes gradients of filters of the points of some rows of them, and tells whether they are all finite.
pub(super) struct FilterGradients<'a> {
    /// The points of each row, with some behind, and the filters that they become, one after the other.
    pub(super) rows: Vec<(Points<&'a [f32]>, &'a mut [f32])>,
}

impl WithSimd for FilterGradients<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let zero = simd.splat_f32s(0.0);
        let mut numbers = Vec::new();
        let mut finite = zero;
        for (points, filters) in self.rows {
            let len = whole_vectors(filters.len() / TAPS);
            numbers.resize(TAPS * len, 0.0);
            for filter in (0..filters.len() / TAPS).step_by(S::F32_LANES) {
                let mut square = [[zero; 4]; 4];
                for point in 0..POINTS {
                    square[point / 4][point % 4] = load(simd, &points[point][filter..]);
                }
                let window = self::square::<S, FilterGradient, 4, WINDOW>(simd, square);
                for tap in 0..TAPS {
                    let number = window[tap / WINDOW][tap % WINDOW];
                    finite = simd.add_f32s(finite, simd.mul_f32s(zero, number));
                    store(simd, number, &mut numbers[tap * len + filter..]);
                }
            }
            for (tap, numbers) in numbers.chunks_exact(len).enumerate() {
                for (place, &number) in filters[tap..].iter_mut().step_by(TAPS).zip(numbers) {
                    *place = number;
                }
            }
        }
        bytemuck::cast_slice::<_, f32>(&[finite]).iter().all(|&lane| lane == 0.0)
    }
}
