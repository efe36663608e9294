//! Reductions: fixed blocks, combined in a fixed order, so that bits do not depend on the number of threads.

use crate::block::{BLOCK, Operands, Program};
use crate::loops::vectorised;
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{Instruction, Kernel};
use gradus_ir::real::{Int, Real};
use gradus_ir::{DType, Data, Error, Result, Shape};
use std::marker::PhantomData;

/// Elements per task.
const TASK: usize = 32 * BLOCK;
/// Independent accumulators of a run, so that it vectorises.
const LANES: usize = 16;

/// A reduction made ready.
#[derive(Debug)]
pub(crate) struct Reduction {
    op: ReduceOp,
    program: Program,
    /// Results.
    outer: usize,
    /// Elements per result.
    inner: usize,
    /// Whether the program's space has the reduced axes first: neighbours in memory then belong to different results.
    across: bool,
}

impl Reduction {
    /// Prepares a kernel that reduces its `axes` trailing axes.
    pub(crate) fn new(kernel: &Kernel, op: ReduceOp, axes: usize) -> Reduction {
        let split = kernel.space.len() - axes;
        let outer = kernel.space[..split].iter().product();
        let inner = kernel.space[split..].iter().product();
        let across = neighbours_are_outer(kernel, split);
        let program = if across { Program::new(&inner_first(kernel, split)) } else { Program::new(kernel) };
        Reduction { op, program, outer, inner, across }
    }

    /// The prepared expression.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Runs it over `operands` into `out`.
    pub(crate) fn run(&self, dtype: DType, operands: &Operands, out: &mut Data) -> Result<()> {
        match dtype {
            DType::F32 => self.float::<f32>(operands, out),
            DType::F64 => self.float::<f64>(operands, out),
            DType::I32 => self.int::<i32>(operands, out),
            DType::U32 => self.int::<u32>(operands, out),
            DType::Bool => Err(Error::Backend("a reduction of bool".into())),
        }
    }

    fn float<T: Typed + Real + Into<f64>>(&self, operands: &Operands, out: &mut Data) -> Result<()> {
        let out = SliceMut::of(out);
        let (lowest, highest) = (T::of(f64::NEG_INFINITY), T::of(f64::INFINITY));
        let above = |new: T, best: T| new > best || (new.nan() && !best.nan());
        let below = |new: T, best: T| new < best || (new.nan() && !best.nan());
        match self.op {
            ReduceOp::Sum => self.all(fold_float::<T, _>(0.0, |a, x| a + x), operands, out),
            ReduceOp::Prod => self.all(fold_float::<T, _>(1.0, |a, x| a * x), operands, out),
            ReduceOp::Max => self.all(Best { worst: lowest, better: above }, operands, out),
            ReduceOp::Min => self.all(Best { worst: highest, better: below }, operands, out),
            ReduceOp::ArgMax => self.all(ArgBest { worst: lowest, better: above }, operands, out),
            ReduceOp::ArgMin => self.all(ArgBest { worst: highest, better: below }, operands, out),
        }
    }

    fn int<T: Typed + Int>(&self, operands: &Operands, out: &mut Data) -> Result<()> {
        let out = SliceMut::of(out);
        let above = |new: T, best: T| new > best;
        let below = |new: T, best: T| new < best;
        match self.op {
            ReduceOp::Sum => self.all(FoldInt { identity: T::ZERO, fold: T::add }, operands, out),
            ReduceOp::Prod => self.all(FoldInt { identity: T::ONE, fold: T::mul }, operands, out),
            ReduceOp::Max => self.all(Best { worst: T::LOWEST, better: above }, operands, out),
            ReduceOp::Min => self.all(Best { worst: T::HIGHEST, better: below }, operands, out),
            ReduceOp::ArgMax => self.all(ArgBest { worst: T::LOWEST, better: above }, operands, out),
            ReduceOp::ArgMin => self.all(ArgBest { worst: T::HIGHEST, better: below }, operands, out),
        }
    }

    fn all<F: Fold>(&self, fold: F, operands: &Operands, out: SliceMut<'_>) -> Result<()> {
        let out: &mut [F::Out] = out.typed();
        if self.inner == 0 || self.outer == 0 {
            out.fill(fold.finish(fold.identity()));
            return Ok(());
        }
        if self.across { self.columns(&fold, operands, out) } else { self.rows(&fold, operands, out) }
    }

    /// Each result's elements are neighbours.
    fn rows<F: Fold>(&self, fold: &F, operands: &Operands, out: &mut [F::Out]) -> Result<()> {
        if self.inner > TASK {
            // Few long rows: each is cut into tasks.
            for (row, out) in out.iter_mut().enumerate() {
                let starts: Vec<usize> = (0..self.inner).step_by(TASK).collect();
                let parts = parallel::map(starts, self.inner, |start| {
                    let mut scratch = self.program.scratch(operands, BLOCK, None);
                    let len = TASK.min(self.inner - start);
                    self.run_of_row(fold, operands, &mut scratch, row, start, len)
                })?;
                *out = fold.finish(parts.into_iter().fold(fold.identity(), |a, b| fold.combine(a, b)));
            }
            return Ok(());
        }
        let rows_per_task = (TASK / self.inner).max(1);
        let task = |(task, out): (usize, &mut [F::Out])| {
            let mut scratch = self.program.scratch(operands, BLOCK, None);
            let first = task * rows_per_task;
            if self.inner > BLOCK {
                for (row, out) in out.iter_mut().enumerate() {
                    *out = fold.finish(self.run_of_row(fold, operands, &mut scratch, first + row, 0, self.inner)?);
                }
                return Ok(());
            }
            // Several short rows per block.
            let rows_per_block = BLOCK / self.inner;
            for (block, out) in out.chunks_mut(rows_per_block).enumerate() {
                let start = (first + block * rows_per_block) * self.inner;
                let len = out.len() * self.inner;
                self.program.evaluate(operands, &mut scratch, start, len, None)?;
                let values: &[F::In] =
                    self.program.register(operands, &scratch, self.program.last(), start, len).typed();
                for (out, row) in out.iter_mut().zip(values.chunks(self.inner)) {
                    *out = fold.finish(fold_run(fold, fold.identity(), row, 0));
                }
            }
            Ok(())
        };
        parallel::each_chunk(out, rows_per_task, self.outer * self.inner, task)
    }

    /// Elements `start..start + len` of one row, block by block.
    fn run_of_row<F: Fold>(
        &self,
        fold: &F,
        operands: &Operands,
        scratch: &mut [Data],
        row: usize,
        start: usize,
        len: usize,
    ) -> Result<F::Acc> {
        let mut acc = fold.identity();
        for block in (start..start + len).step_by(BLOCK) {
            let n = BLOCK.min(start + len - block);
            let flat = row * self.inner + block;
            self.program.evaluate(operands, scratch, flat, n, None)?;
            let values: Slice<'_> = self.program.register(operands, scratch, self.program.last(), flat, n);
            acc = fold_run(fold, acc, values.typed(), block);
        }
        Ok(acc)
    }

    /// Neighbours belong to different results: a block of accumulators walks down the columns.
    fn columns<F: Fold>(&self, fold: &F, operands: &Operands, out: &mut [F::Out]) -> Result<()> {
        let width = self.outer.min(BLOCK);
        let rows_per_task = (TASK / width).max(1);
        let segments = self.inner.div_ceil(rows_per_task);
        let blocks = self.outer.div_ceil(width);
        let tasks: Vec<(usize, usize)> =
            (0..blocks).flat_map(|block| (0..segments).map(move |segment| (block, segment))).collect();
        let part = |(block, segment): (usize, usize)| -> Result<Vec<F::Acc>> {
            let (from, row) = (block * width, segment * rows_per_task);
            let width = width.min(self.outer - from);
            let rows = rows_per_task.min(self.inner - row);
            let mut acc = vec![fold.identity(); width];
            let mut scratch = self.program.scratch(operands, BLOCK, None);
            // Whole rows fit a block, or each row's part is a block.
            let rows_per_block = if width == self.outer { (BLOCK / width).max(1) } else { 1 };
            for first in (row..row + rows).step_by(rows_per_block) {
                let n = rows_per_block.min(row + rows - first);
                let start = first * self.outer + from;
                self.program.evaluate(operands, &mut scratch, start, n * width, None)?;
                let values: Slice<'_> =
                    self.program.register(operands, &scratch, self.program.last(), start, n * width);
                for (i, values) in values.typed::<F::In>().chunks(width).enumerate() {
                    vectorised(
                        #[inline(always)]
                        || {
                            for (acc, &x) in acc.iter_mut().zip(values) {
                                *acc = fold.fold(*acc, x, first + i);
                            }
                        },
                    );
                }
            }
            Ok(acc)
        };
        let parts = parallel::map(tasks, self.outer * self.inner, part)?;
        for (out, parts) in out.chunks_mut(width).zip(parts.chunks(segments)) {
            for (column, out) in out.iter_mut().enumerate() {
                *out = fold.finish(parts.iter().fold(fold.identity(), |acc, part| fold.combine(acc, part[column])));
            }
        }
        Ok(())
    }
}

/// Whether most loads walk faster along the last kept axis than along the last reduced one.
fn neighbours_are_outer(kernel: &Kernel, split: usize) -> bool {
    let space = &kernel.space;
    let last = |range: std::ops::Range<usize>| range.rev().find(|&axis| space[axis] > 1);
    let (Some(outer), Some(inner)) = (last(0..split), last(split..space.len())) else {
        return false;
    };
    // Reordering the space would change what these instructions mean.
    let fixed =
        |i: &Instruction| matches!(i, Instruction::Iota(_) | Instruction::Random(_) | Instruction::Gather { .. });
    if kernel.expression.instructions.iter().any(|(i, _)| fixed(i)) {
        return false;
    }
    let votes = kernel.loads.iter().map(|l| {
        let stride = |axis: usize| l.view.axes[axis].stride.unsigned_abs();
        match (stride(outer), stride(inner)) {
            (o, i) if o != 0 && (i == 0 || o < i) => 1,
            (o, i) if o == i => 0,
            _ => -1,
        }
    });
    votes.sum::<i32>() > 0
}

/// The kernel with the reduced axes moved to the front.
fn inner_first(kernel: &Kernel, split: usize) -> Kernel {
    let order: Vec<usize> = (split..kernel.space.len()).chain(0..split).collect();
    let mut kernel = kernel.clone();
    kernel.space = order.iter().map(|&a| kernel.space[a]).collect::<Shape>();
    for load in &mut kernel.loads {
        load.view.axes = order.iter().map(|&a| load.view.axes[a]).collect();
    }
    kernel
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
    let mut lanes = [fold.identity(); LANES];
    let whole = values.len() - values.len() % LANES;
    vectorised(
        #[inline(always)]
        || {
            for (i, chunk) in values[..whole].chunks_exact(LANES).enumerate() {
                for (lane, (acc, &x)) in lanes.iter_mut().zip(chunk).enumerate() {
                    *acc = fold.fold(*acc, x, first + i * LANES + lane);
                }
            }
        },
    );
    for (lane, &x) in values[whole..].iter().enumerate() {
        lanes[lane] = fold.fold(lanes[lane], x, first + whole + lane);
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
