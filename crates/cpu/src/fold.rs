//! How elements combine: sums and products of floats in f64, the best of several, wrapping integers.

use crate::loops::vectorised;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::op::ReduceOp;
use gradus_ir::real::{Int, Real};
use gradus_ir::{DType, Error, Result};
use std::any::Any;
use std::marker::PhantomData;

/// Independent accumulators of a run, so that it vectorises.
const LANES: usize = 16;

/// Accumulators for several results, whatever their type.
pub(crate) trait Folding: Send + Sync {
    /// So many results of which nothing has been seen yet.
    fn reset(&mut self, results: usize);
    /// Adds `per_row` neighbours to each result; the first of them has this index in its row.
    fn along(&mut self, values: Slice<'_>, per_row: usize, first: usize);
    /// Adds rows of one element for each result; the first row has this index.
    fn across(&mut self, values: Slice<'_>, first: usize);
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
        DType::F16 | DType::F32 => Ok(float::<f32>(op)),
        DType::F64 => Ok(float::<f64>(op)),
        DType::I32 => Ok(int::<i32>(op)),
        DType::U32 => Ok(int::<u32>(op)),
        DType::Bool => Err(Error::Backend("a reduction of bool".into())),
    }
}

fn float<T: Typed + Real + Into<f64>>(op: ReduceOp) -> Box<dyn Folding> {
    let (lowest, highest) = (T::of(f64::NEG_INFINITY), T::of(f64::INFINITY));
    // Without branches, which would not vectorise.
    let above = |new: T, best: T| (new > best) | (new.nan() & !best.nan());
    let below = |new: T, best: T| (new < best) | (new.nan() & !best.nan());
    match op {
        ReduceOp::Sum => boxed(fold_float::<T, _>(0.0, |a, x| a + x)),
        ReduceOp::Prod => boxed(fold_float::<T, _>(1.0, |a, x| a * x)),
        ReduceOp::Max => boxed(Best { worst: lowest, better: above }),
        ReduceOp::Min => boxed(Best { worst: highest, better: below }),
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
        ReduceOp::Max => boxed(Best { worst: T::LOWEST, better: above }),
        ReduceOp::Min => boxed(Best { worst: T::HIGHEST, better: below }),
        ReduceOp::ArgMax => boxed(ArgBest { worst: T::LOWEST, better: above }),
        ReduceOp::ArgMin => boxed(ArgBest { worst: T::HIGHEST, better: below }),
    }
}

fn boxed<F: Fold + 'static>(fold: F) -> Box<dyn Folding> {
    Box::new(Accumulators { fold, accumulators: Vec::new() })
}

/// Accumulators of one type.
struct Accumulators<F: Fold> {
    fold: F,
    accumulators: Vec<F::Acc>,
}

impl<F: Fold + 'static> Folding for Accumulators<F> {
    fn reset(&mut self, results: usize) {
        self.accumulators.clear();
        self.accumulators.resize(results, self.fold.identity());
    }

    fn along(&mut self, values: Slice<'_>, per_row: usize, first: usize) {
        let values: &[F::In] = values.typed();
        for (accumulator, row) in self.accumulators.iter_mut().zip(values.chunks(per_row.max(1))) {
            *accumulator = fold_run(&self.fold, *accumulator, row, first);
        }
    }

    fn across(&mut self, values: Slice<'_>, first: usize) {
        let Accumulators { fold, accumulators } = self;
        for (i, row) in values.typed::<F::In>().chunks(accumulators.len().max(1)).enumerate() {
            vectorised(
                #[inline(always)]
                || {
                    for (accumulator, &x) in accumulators.iter_mut().zip(row) {
                        *accumulator = fold.fold(*accumulator, x, first + i);
                    }
                },
            );
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
    fn fold(&self, acc: Self::Acc, x: Self::In, index: usize) -> Self::Acc;
    /// Joins two parts; the first has the earlier elements.
    fn combine(&self, a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn finish(&self, acc: Self::Acc) -> Self::Out;
}

/// Folds neighbours, in [`LANES`] interleaved chains.
fn fold_run<F: Fold>(fold: &F, acc: F::Acc, values: &[F::In], first: usize) -> F::Acc {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = vectorised(
        #[inline(always)]
        || {
            // Made here, so that they stay in registers.
            let mut lanes = [fold.identity(); LANES];
            for (i, chunk) in chunks.iter().enumerate() {
                for lane in 0..LANES {
                    lanes[lane] = fold.fold(lanes[lane], chunk[lane], first + i * LANES + lane);
                }
            }
            lanes
        },
    );
    let first = first + values.len() - rest.len();
    for (lane, &x) in rest.iter().enumerate() {
        lanes[lane] = fold.fold(lanes[lane], x, first + lane);
    }
    lanes.into_iter().fold(acc, |a, b| fold.combine(a, b))
}

/// Sums and products of floats, in f64, so that long sums of f32 keep their digits.
struct FoldFloat<T, F> {
    identity: f64,
    fold: F,
    dtype: PhantomData<fn() -> T>,
}
impl<T: Typed + Real + Into<f64>, F: Fn(f64, f64) -> f64 + Sync + Send> Fold for FoldFloat<T, F> {
    type In = T;
    type Acc = f64;
    type Out = T;
    fn identity(&self) -> f64 {
        self.identity
    }
    #[inline(always)]
    fn fold(&self, acc: f64, x: T, _: usize) -> f64 {
        (self.fold)(acc, x.into())
    }
    fn combine(&self, a: f64, b: f64) -> f64 {
        (self.fold)(a, b)
    }
    fn finish(&self, acc: f64) -> T {
        T::of(acc)
    }
}

fn fold_float<T, F>(identity: f64, fold: F) -> FoldFloat<T, F> {
    FoldFloat { identity, fold, dtype: PhantomData }
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
    fn fold(&self, acc: T, x: T, _: usize) -> T {
        (self.fold)(acc, x)
    }
    fn combine(&self, a: T, b: T) -> T {
        (self.fold)(a, b)
    }
    fn finish(&self, acc: T) -> T {
        acc
    }
}

/// The best element. `better` says whether a new one replaces the best so far; NaN replaces numbers.
struct Best<T, F> {
    worst: T,
    better: F,
}
impl<T: Typed, F: Fn(T, T) -> bool + Sync + Send> Fold for Best<T, F> {
    type In = T;
    type Acc = T;
    type Out = T;
    fn identity(&self) -> T {
        self.worst
    }
    #[inline(always)]
    fn fold(&self, best: T, x: T, _: usize) -> T {
        if (self.better)(x, best) { x } else { best }
    }
    fn combine(&self, a: T, b: T) -> T {
        if (self.better)(b, a) { b } else { a }
    }
    fn finish(&self, best: T) -> T {
        best
    }
}

/// The index of the first best element, `None` before the first.
struct ArgBest<T, F> {
    worst: T,
    better: F,
}
impl<T: Typed, F: Fn(T, T) -> bool + Sync + Send> Fold for ArgBest<T, F> {
    type In = T;
    type Acc = (T, Option<usize>);
    type Out = i32;
    fn identity(&self) -> Self::Acc {
        (self.worst, None)
    }
    #[inline(always)]
    fn fold(&self, (best, at): Self::Acc, x: T, index: usize) -> Self::Acc {
        if at.is_none() || (self.better)(x, best) { (x, Some(index)) } else { (best, at) }
    }
    fn combine(&self, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        let (Some(at_a), Some(at_b)) = (a.1, b.1) else {
            return if a.1.is_some() { a } else { b };
        };
        let b_wins = (self.better)(b.0, a.0) || (at_b < at_a && !(self.better)(a.0, b.0));
        if b_wins { b } else { a }
    }
    fn finish(&self, (_, at): Self::Acc) -> i32 {
        at.map_or(0, |at| at as i32)
    }
}
