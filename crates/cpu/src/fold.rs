//! How elements combine: sums and products of floats in f64, the best of several, wrapping integers.

use crate::best::{self, OfRows, WIDEST};
use crate::loops::vectorised;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::op::ReduceOp;
use gradus_ir::real::{Int, Real};
use gradus_ir::{DType, Error, Result};
use smallvec::SmallVec;
use std::any::Any;
use std::marker::PhantomData;

/// Accumulators that are held in vector registers at a time.
const LANES: usize = 16;

/// The same for long rows: twice as many do not wait for each other.
const WIDE: usize = 2 * LANES;

/// Longer rows are long: what they save is more than it takes to join twice as many.
const SHORT: usize = 16 * WIDE;

/// So many f32 are summed up as such before their sum becomes an f64.
const TERMS: usize = 8;

/// Columns that are folded at a time where there are as many.
const COLUMNS: usize = 2 * LANES;

/// Lines that are folded before the next columns are: what is read lies within a few pages, in the order in which memory brings it.
const LINES: usize = 2 * TERMS;

/// Accumulators for several results, whatever their type.
pub(crate) trait Folding: Send + Sync {
    /// So many results of which nothing has been seen yet.
    fn reset(&mut self, results: usize);
    /// Adds `per_row` elements to each result, of which the first has this index in its row. So many rows lie `abreast`: an
    /// element of each of them, then the next element of each; after all elements come the next rows.
    fn add(&mut self, values: Slice<'_>, per_row: usize, abreast: usize, first: usize);
    /// Adds to each result the sum of some elements.
    fn add_sums(&mut self, sums: &[f64]);
    /// Adds what was seen later, by another one of the same type.
    fn merge(&mut self, later: &dyn Folding);
    /// Writes the results.
    fn finish(&self, out: SliceMut<'_>);
    /// As what it is.
    fn as_any(&self) -> &dyn Any;
}

/// Accumulators for a reduction of elements of this dtype: of f16, held as f32, only the best are looked for.
pub(crate) fn folding(op: ReduceOp, dtype: DType) -> Result<Box<dyn Folding>> {
    match dtype {
        DType::F16 | DType::F32 => Ok(float::<f32>(op, Some([best::largest, best::smallest]))),
        DType::F64 => Ok(float::<f64>(op, None)),
        DType::I32 => Ok(int::<i32>(op)),
        DType::U32 => Ok(int::<u32>(op)),
        DType::Bool => Err(Error::Backend("a reduction of bool".into())),
    }
}

fn float<T: Typed + Real + Into<f64>>(op: ReduceOp, of_rows: Option<[OfRows<T>; 2]>) -> Box<dyn Folding> {
    let [largest, smallest] = of_rows.map_or([None; 2], |of_rows| of_rows.map(Some));
    let (lowest, highest) = (T::of(f64::NEG_INFINITY), T::of(f64::INFINITY));
    // Without branches, which would not vectorise.
    let above = |new: T, best: T| (new > best) | (new.nan() & !best.nan());
    let below = |new: T, best: T| (new < best) | (new.nan() & !best.nan());
    match op {
        ReduceOp::Sum => boxed(Sum(PhantomData::<T>)),
        ReduceOp::Prod => boxed(Product(PhantomData::<T>)),
        ReduceOp::Max => {
            boxed(Best { of_rows: largest, worst: lowest, beats: |new: T, best: T| new > best, is_nan: T::nan })
        }
        ReduceOp::Min => {
            boxed(Best { of_rows: smallest, worst: highest, beats: |new: T, best: T| new < best, is_nan: T::nan })
        }
        ReduceOp::ArgMax => boxed(ArgBest { worst: lowest, better: above }),
        ReduceOp::ArgMin => boxed(ArgBest { worst: highest, better: below }),
    }
}

fn int<T: Typed + Int>(op: ReduceOp) -> Box<dyn Folding> {
    let above = |new: T, best: T| new > best;
    let below = |new: T, best: T| new < best;
    match op {
        ReduceOp::Sum => boxed(FoldInt { identity: T::ZERO, fold: T::add }),
        ReduceOp::Prod => boxed(FoldInt { identity: T::ONE, fold: T::mul }),
        ReduceOp::Max => boxed(Best { of_rows: None, worst: T::LOWEST, beats: above, is_nan: |_| false }),
        ReduceOp::Min => boxed(Best { of_rows: None, worst: T::HIGHEST, beats: below, is_nan: |_| false }),
        ReduceOp::ArgMax => boxed(ArgBest { worst: T::LOWEST, better: above }),
        ReduceOp::ArgMin => boxed(ArgBest { worst: T::HIGHEST, better: below }),
    }
}

fn boxed<F: Fold + 'static>(fold: F) -> Box<dyn Folding> {
    Box::new(Accumulators { fold, accumulators: SmallVec::new() })
}

/// Accumulators of one type.
struct Accumulators<F: Fold> {
    fold: F,
    /// Small kernels need no memory for these.
    accumulators: SmallVec<[F::Acc; 8]>,
}

impl<F: Fold + 'static> Folding for Accumulators<F> {
    fn reset(&mut self, results: usize) {
        self.accumulators.clear();
        self.accumulators.resize(results, self.fold.identity());
    }

    fn add(&mut self, values: Slice<'_>, per_row: usize, abreast: usize, first: usize) {
        let Accumulators { fold, accumulators } = self;
        let values: &[F::In] = values.typed();
        if abreast == 1 && fold.whole_rows(accumulators, values, per_row) {
            return;
        }
        vectorised(
            #[inline(always)]
            || {
                if abreast == 1 {
                    return match per_row {
                        0..LANES => fold_short_rows(fold, accumulators, values.chunks(per_row), first),
                        LANES..=SHORT => fold_rows::<F, LANES>(fold, accumulators, values, per_row, first),
                        _ => fold_rows::<F, WIDE>(fold, accumulators, values, per_row, first),
                    };
                }
                for (rows, values) in accumulators.chunks_mut(abreast).zip(values.chunks(per_row * abreast)) {
                    fold_abreast(fold, rows, values, first);
                }
            },
        );
    }

    fn add_sums(&mut self, sums: &[f64]) {
        for (accumulator, &sum) in self.accumulators.iter_mut().zip(sums) {
            *accumulator = self.fold.combine(*accumulator, self.fold.of_sum(sum));
        }
    }

    fn merge(&mut self, later: &dyn Folding) {
        let later: &Self = later.as_any().downcast_ref().expect("parts of one reduction have one type");
        for (accumulator, &later) in self.accumulators.iter_mut().zip(&later.accumulators) {
            *accumulator = self.fold.combine(*accumulator, later);
        }
    }

    fn finish(&self, out: SliceMut<'_>) {
        for (out, &accumulator) in out.typed::<F::Out>().iter_mut().zip(&self.accumulators) {
            *out = self.fold.finish(accumulator);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// How elements of one dtype combine.
trait Fold: Sync + Send {
    type In: Typed;
    type Acc: Copy + Send + Sync;
    type Out: Typed;
    fn identity(&self) -> Self::Acc;
    fn fold(&self, acc: Self::Acc, x: Self::In, index: i32) -> Self::Acc;
    /// Joins two parts; the first has the earlier elements.
    fn combine(&self, a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn finish(&self, acc: Self::Acc) -> Self::Out;

    /// What a result is of which this is the sum.
    fn of_sum(&self, _: f64) -> Self::Acc {
        unreachable!("only sums of floats are found so")
    }

    /// Folds lines, of which the first has this index and every next one an index that is a step larger.
    #[inline(always)]
    fn fold_lines<const N: usize>(
        &self,
        lanes: &mut [Self::Acc; N],
        lines: Lines<'_, Self::In>,
        first: i32,
        step: i32,
    ) {
        let mut index = first;
        for line in lines.each::<N>() {
            for lane in 0..N {
                lanes[lane] = self.fold(lanes[lane], line[lane], index);
            }
            index += step;
        }
    }

    /// Folds rows that lie one after the other, if there is a loop for that.
    fn whole_rows(&self, _: &mut [Self::Acc], _: &[Self::In], _: usize) -> bool {
        false
    }

    /// What a result is if its elements come so much later in their row.
    #[inline(always)]
    fn later(&self, acc: Self::Acc, _: i32) -> Self::Acc {
        acc
    }
}

/// Lines of as many elements as there are lanes, in an array of wider ones.
#[derive(Clone, Copy)]
struct Lines<'a, T> {
    values: &'a [T],
    /// From the beginning of a line to that of the next.
    width: usize,
    /// Where the elements begin in a wider line.
    from: usize,
}

impl<'a, T> Lines<'a, T> {
    #[inline(always)]
    fn each<const N: usize>(self) -> impl Iterator<Item = &'a [T]> {
        self.values.chunks_exact(self.width).map(move |line| &line[self.from..self.from + N])
    }
}

/// Folds rows of fewer elements than there are lanes, of which the first element has this index.
#[inline(always)]
fn fold_short_rows<'v, F: Fold>(
    fold: &F,
    rows: &mut [F::Acc],
    values: impl Iterator<Item = &'v [F::In]>,
    first: usize,
) {
    for (row, values) in rows.iter_mut().zip(values) {
        *row = values.iter().zip(first as i32..).fold(*row, |acc, (&x, index)| fold.fold(acc, x, index));
    }
}

/// Folds rows in so many interleaved chains each.
#[inline(always)]
fn fold_rows<F: Fold, const N: usize>(fold: &F, rows: &mut [F::Acc], values: &[F::In], per_row: usize, first: usize) {
    for (row, values) in rows.iter_mut().zip(values.chunks(per_row)) {
        let lanes = Aligned(fold_interleaved::<F, N>(fold, values, first));
        *row = fold.combine(*row, join(fold, &lanes));
    }
}

/// Lanes that begin with a line of the cache: what lies in two of them is read again late.
#[repr(align(64))]
struct Aligned<T>(T);

/// Folds a row in so many interleaved chains.
#[inline(always)]
fn fold_interleaved<F: Fold, const N: usize>(fold: &F, values: &[F::In], first: usize) -> [F::Acc; N] {
    let (values, rest) = values.split_at(values.len() / N * N);
    // Made here, so that they stay in registers.
    let mut lanes = [fold.identity(); N];
    fold.fold_lines(&mut lanes, Lines { values, width: N, from: 0 }, first as i32, N as i32);
    for (lane, accumulator) in lanes.iter_mut().enumerate() {
        *accumulator = fold.later(*accumulator, lane as i32);
    }
    let first = first + values.len();
    for (lane, &x) in rest.iter().enumerate() {
        lanes[lane] = fold.fold(lanes[lane], x, (first + lane) as i32);
    }
    lanes
}

/// Joins lanes, one half with the other, until one is left. Not inlined: the compiler would look ahead to this, and permute what
/// it adds to the lanes in every step of the loop before, which takes three times as long.
#[inline(never)]
fn join<F: Fold, const N: usize>(fold: &F, Aligned(lanes): &Aligned<[F::Acc; N]>) -> F::Acc {
    vectorised(
        #[inline(always)]
        || {
            let mut lanes = *lanes;
            let mut len = N;
            while len > 1 {
                len /= 2;
                for lane in 0..len {
                    lanes[lane] = fold.combine(lanes[lane], lanes[lane + len]);
                }
            }
            lanes[0]
        },
    )
}

/// Folds rows that lie abreast. Where these are fewer than [`LANES`], some elements of each row are folded side by side.
#[inline(always)]
fn fold_abreast<F: Fold>(fold: &F, rows: &mut [F::Acc], values: &[F::In], first: usize) {
    let abreast = rows.len();
    if values.len() < 4 * LANES || values.len() == abreast {
        return fold_each(fold, rows, values, first);
    }
    let sides = LANES.div_ceil(abreast);
    if sides == 1 {
        return fold_columns(fold, rows, 1, values, first);
    }
    let mut columns = [fold.identity(); 2 * LANES];
    fold_columns(fold, &mut columns[..sides * abreast], sides, values, first);
    for (side, columns) in columns[..sides * abreast].chunks(abreast).enumerate() {
        for (row, &column) in rows.iter_mut().zip(columns) {
            *row = fold.combine(*row, fold.later(column, side as i32));
        }
    }
}

/// The same where it is not worth it to hold accumulators in registers.
#[inline(always)]
fn fold_each<F: Fold>(fold: &F, rows: &mut [F::Acc], values: &[F::In], first: usize) {
    for (i, values) in values.chunks(rows.len()).enumerate() {
        for (row, &x) in rows.iter_mut().zip(values) {
            *row = fold.fold(*row, x, (first + i) as i32);
        }
    }
}

/// Folds values line by line, each of an element for every column. Indices grow by `step` from line to line.
#[inline(always)]
fn fold_columns<F: Fold>(fold: &F, columns: &mut [F::Acc], step: usize, values: &[F::In], first: usize) {
    let width = columns.len();
    for (group, values) in values.chunks(LINES * width).enumerate() {
        let first = first + group * LINES * step;
        match width {
            COLUMNS.. => fold_strips::<F, COLUMNS>(fold, columns, step, values, first),
            _ => fold_strips::<F, LANES>(fold, columns, step, values, first),
        }
    }
    let (lines, rest) = (values.len() / width, values.len() % width);
    fold_each(fold, &mut columns[..width / step], &values[values.len() - rest..], first + lines * step);
}

/// Folds whole lines, so many columns at a time.
#[inline(always)]
fn fold_strips<F: Fold, const N: usize>(fold: &F, columns: &mut [F::Acc], step: usize, values: &[F::In], first: usize) {
    let width = columns.len();
    for begin in (0..width).step_by(N) {
        // The last columns are taken together with some that were folded already.
        let from = begin.min(width - N);
        let mut lanes = [fold.identity(); N];
        lanes.copy_from_slice(&columns[from..from + N]);
        fold.fold_lines(&mut lanes, Lines { values, width, from }, first as i32, step as i32);
        columns[begin..from + N].copy_from_slice(&lanes[begin - from..]);
    }
}

/// Sums of floats, in f64, so that long sums of f32 keep their digits. Some f32 at a time are summed up as such before: what they
/// lose is some roundings of a sum of eight, and they become an f64 as fast as one does.
struct Sum<T>(PhantomData<T>);
impl<T: Typed + Real + Into<f64>> Fold for Sum<T> {
    type In = T;
    type Acc = f64;
    type Out = T;
    fn identity(&self) -> f64 {
        0.0
    }
    #[inline(always)]
    fn fold(&self, acc: f64, x: T, _: i32) -> f64 {
        acc + x.into()
    }
    #[inline(always)]
    fn combine(&self, a: f64, b: f64) -> f64 {
        a + b
    }
    fn of_sum(&self, sum: f64) -> f64 {
        sum
    }
    fn finish(&self, acc: f64) -> T {
        T::of(acc)
    }

    #[inline(always)]
    fn fold_lines<const N: usize>(&self, lanes: &mut [f64; N], lines: Lines<'_, T>, _: i32, _: i32) {
        for values in lines.values.chunks(TERMS * lines.width) {
            let mut sums = [T::of(0.0); N];
            for line in (Lines { values, ..lines }).each::<N>() {
                for lane in 0..N {
                    sums[lane] = sums[lane] + line[lane];
                }
            }
            for lane in 0..N {
                lanes[lane] += sums[lane].into();
            }
        }
    }
}

/// Products of floats, in f64, so that long ones of f32 keep their digits and stay in range.
struct Product<T>(PhantomData<T>);
impl<T: Typed + Real + Into<f64>> Fold for Product<T> {
    type In = T;
    type Acc = f64;
    type Out = T;
    fn identity(&self) -> f64 {
        1.0
    }
    #[inline(always)]
    fn fold(&self, acc: f64, x: T, _: i32) -> f64 {
        acc * x.into()
    }
    #[inline(always)]
    fn combine(&self, a: f64, b: f64) -> f64 {
        a * b
    }
    fn finish(&self, acc: f64) -> T {
        T::of(acc)
    }
}

/// Wrapping integer sums and products.
struct FoldInt<T, F> {
    identity: T,
    fold: F,
}
impl<T: Typed + Int, F: Fn(T, T) -> T + Sync + Send> Fold for FoldInt<T, F> {
    type In = T;
    type Acc = T;
    type Out = T;
    fn identity(&self) -> T {
        self.identity
    }
    #[inline(always)]
    fn fold(&self, acc: T, x: T, _: i32) -> T {
        (self.fold)(acc, x)
    }
    #[inline(always)]
    fn combine(&self, a: T, b: T) -> T {
        (self.fold)(a, b)
    }
    fn finish(&self, acc: T) -> T {
        acc
    }
}

/// The best element: one that beats all others, or NaN, if there is any.
struct Best<T, F, N> {
    /// How whole rows are folded faster, if they can be.
    of_rows: Option<OfRows<T>>,
    worst: T,
    beats: F,
    is_nan: N,
}
impl<T: Typed, F: Fn(T, T) -> bool + Sync + Send, N: Fn(T) -> bool + Sync + Send> Fold for Best<T, F, N> {
    type In = T;
    type Acc = T;
    type Out = T;
    fn identity(&self) -> T {
        self.worst
    }
    #[inline(always)]
    fn fold(&self, best: T, x: T, _: i32) -> T {
        self.combine(best, x)
    }
    #[inline(always)]
    fn combine(&self, a: T, b: T) -> T {
        if (self.beats)(b, a) | ((self.is_nan)(b) & !(self.is_nan)(a)) { b } else { a }
    }
    fn finish(&self, best: T) -> T {
        best
    }
    fn whole_rows(&self, rows: &mut [T], values: &[T], per_row: usize) -> bool {
        let of_rows = self.of_rows.filter(|_| per_row >= WIDEST);
        of_rows.inspect(|of_rows| of_rows(rows, values, per_row)).is_some()
    }

    /// The best numbers and the last NaNs: for one comparison after the other, a processor has an instruction.
    #[inline(always)]
    fn fold_lines<const LEN: usize>(&self, lanes: &mut [T; LEN], lines: Lines<'_, T>, _: i32, _: i32) {
        let (mut best, mut last_nan) = (*lanes, [self.worst; LEN]);
        for line in lines.each::<LEN>() {
            for lane in 0..LEN {
                let x = line[lane];
                best[lane] = if (self.beats)(x, best[lane]) { x } else { best[lane] };
                last_nan[lane] = if (self.is_nan)(x) { x } else { last_nan[lane] };
            }
        }
        for lane in 0..LEN {
            lanes[lane] = self.combine(best[lane], last_nan[lane]);
        }
    }
}

/// The index of the first best element: 0 as long as none was better than the worst that there may be.
struct ArgBest<T, F> {
    worst: T,
    better: F,
}
impl<T: Typed, F: Fn(T, T) -> bool + Sync + Send> Fold for ArgBest<T, F> {
    type In = T;
    type Acc = (T, i32);
    type Out = i32;
    fn identity(&self) -> Self::Acc {
        (self.worst, 0)
    }
    #[inline(always)]
    fn fold(&self, (best, at): Self::Acc, x: T, index: i32) -> Self::Acc {
        if (self.better)(x, best) { (x, index) } else { (best, at) }
    }
    #[inline(always)]
    fn combine(&self, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        let b_wins = (self.better)(b.0, a.0) | ((b.1 < a.1) & !(self.better)(a.0, b.0));
        if b_wins { b } else { a }
    }
    fn finish(&self, (_, at): Self::Acc) -> i32 {
        at
    }

    /// The best elements first and then where they are: a loop that looks for both does not vectorise.
    #[inline(always)]
    fn fold_lines<const N: usize>(&self, lanes: &mut [Self::Acc; N], lines: Lines<'_, T>, first: i32, step: i32) {
        let mut best = [self.worst; N];
        for line in lines.each::<N>() {
            for lane in 0..N {
                best[lane] = if (self.better)(line[lane], best[lane]) { line[lane] } else { best[lane] };
            }
        }
        let (mut at, mut index) = ([i32::MAX; N], first);
        for line in lines.each::<N>() {
            for lane in 0..N {
                let found = if (self.better)(best[lane], line[lane]) { i32::MAX } else { index };
                at[lane] = at[lane].min(found);
            }
            index += step;
        }
        for lane in 0..N {
            lanes[lane] = self.combine(lanes[lane], (best[lane], at[lane]));
        }
    }

    #[inline(always)]
    fn later(&self, (best, at): Self::Acc, by: i32) -> Self::Acc {
        (best, at + by)
    }
}
