//! Scans: what is carried along an axis, in lines that are neighbours at once. Floats are carried in f64. Long sums are cut into
//! segments: what each adds to what is carried is found first, so that none waits for the one before.

use crate::address::Strided;
use crate::loops::vectorised;
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::op::ScanOp;
use gradus_ir::plan::Kernel;
use gradus_ir::real::Int;
use gradus_ir::{DType, Data, Error, Result};
use std::ops::Range;

/// Elements that are loaded at once.
const PIECE: usize = 4096;
/// Elements per task, where lines are short.
const TASK: usize = 1 << 15;

/// Elements of a segment of a long sum, and segments of a task. They are walked along side by side: each sum waits for the one
/// before, and a processor begins several at a time.
const SEGMENT: usize = 4096;
const SIDES: usize = 8;

/// A scan made ready.
#[derive(Debug)]
pub(crate) struct Scan {
    op: ScanOp,
    operands: Vec<Strided>,
    /// How many elements a line has.
    line: usize,
    /// How many lines are neighbours in memory.
    inner: usize,
}

impl Scan {
    /// Prepares a kernel.
    pub(crate) fn new(kernel: &Kernel, op: ScanOp, axis: usize) -> Scan {
        let operands = kernel.loads.iter().map(|load| Strided::new(&load.view)).collect();
        Scan { op, operands, line: kernel.space[axis], inner: kernel.space[axis + 1..].iter().product() }
    }

    /// Runs it.
    pub(crate) fn run(&self, loads: &[Option<Slice<'_>>], out: &mut Data) -> Result<()> {
        let loads: Vec<Slice<'_>> = loads.iter().flatten().copied().collect();
        match SliceMut::of(out) {
            SliceMut::F32(out) if self.is_long_sum() => self.long_sums::<_, f64>(loads[0], out),
            SliceMut::I32(out) if self.is_long_sum() => self.long_sums::<_, i32>(loads[0], out),
            SliceMut::U32(out) if self.is_long_sum() => self.long_sums::<_, u32>(loads[0], out),
            SliceMut::F32(out) => self.floats(&loads, out, |x| x as f32),
            SliceMut::F64(out) => self.floats(&loads, out, |x| x),
            SliceMut::I32(out) => self.ints(&loads, out),
            SliceMut::U32(out) => self.ints(&loads, out),
            SliceMut::Bool(_) => Err(Error::DType { expected: "a number dtype", found: DType::Bool }),
            SliceMut::F16(_) => Err(Error::Backend("a scan of f16 that a plan has not widened".into())),
        }
    }

    fn floats<T: Typed + Into<f64>>(
        &self,
        loads: &[Slice<'_>],
        out: &mut [T],
        rounded: impl Fn(f64) -> T + Sync,
    ) -> Result<()> {
        match self.op {
            ScanOp::Sum => self.lines(loads, out, 0.0, |sum, x, _| sum + x.into(), rounded),
            ScanOp::Prod => self.lines(loads, out, 1.0, |product, x, _| product * x.into(), rounded),
            ScanOp::Recurrence => self.lines(loads, out, 0.0, |y, a, b| a.into() * y + b.into(), rounded),
        }
    }

    fn ints<T: Typed + Int>(&self, loads: &[Slice<'_>], out: &mut [T]) -> Result<()> {
        match self.op {
            ScanOp::Sum => self.lines(loads, out, T::ZERO, |sum, x, _| Int::add(sum, x), |sum| sum),
            ScanOp::Prod => self.lines(loads, out, T::ONE, |product, x, _| Int::mul(product, x), |product| product),
            ScanOp::Recurrence => Err(Error::DType { expected: "a float dtype", found: T::DTYPE }),
        }
    }

    /// Every line; `step` takes what is carried, the element of the first operand, and that of the second, if there is one.
    fn lines<T: Typed, S: Copy + Send + Sync>(
        &self,
        loads: &[Slice<'_>],
        out: &mut [T],
        first: S,
        step: impl Fn(S, T, T) -> S + Sync,
        settled: impl Fn(S) -> T + Sync,
    ) -> Result<()> {
        let block = self.line * self.inner;
        if block == 0 {
            return Ok(());
        }
        let sources: Vec<&[T]> = loads.iter().map(|load| load.typed()).collect();
        let (task, elements) = (block * (TASK / block).max(1), out.len());
        parallel::each_chunk(out, task, elements, |(number, out)| {
            let mut loaded = vec![T::default(); self.piece().min(block)];
            let mut carried = vec![first; self.inner];
            for (at, out) in out.chunks_mut(block).enumerate() {
                carried.fill(first);
                let start = number * task + at * block;
                for (at, out) in out.chunks_mut(self.piece()).enumerate() {
                    let start = start + at * self.piece();
                    let loaded = &mut loaded[..out.len()];
                    self.operands[0].fill(sources[0], start, loaded);
                    if let Some(second) = self.operands.get(1) {
                        second.fill(sources[1], start, out);
                    }
                    walk(&mut carried, loaded, out, &step, &settled);
                }
            }
            Ok(())
        })
    }

    /// Whether a line is a sum of many segments. Sums of f64 are not cut: what a part of one comes to may be too large for them,
    /// where it is not together with what came before.
    fn is_long_sum(&self) -> bool {
        self.op == ScanOp::Sum && self.inner == 1 && self.line > SIDES * SEGMENT
    }

    /// Sums along long lines, whose segments are shared by threads, however many lines there are.
    fn long_sums<T: Typed, S: Sum<T>>(&self, source: Slice<'_>, out: &mut [T]) -> Result<()> {
        let (source, elements): (&[T], _) = (source.typed(), out.len());
        let starts = (0..elements).step_by(self.line);
        let segments = starts.flat_map(|start| {
            let end = start + self.line;
            (start..end).step_by(SEGMENT).map(move |at| at..end.min(at + SEGMENT))
        });
        let mut carried = parallel::map(segments.collect(), elements, |Range { start, end }| {
            let mut buffer = Vec::new();
            Ok(sum::<T, S>(self.read(source, start, end - start, &mut buffer)))
        })?;
        // Instead of the sum of each segment, that of all before it in its line.
        let of_line = self.line.div_ceil(SEGMENT);
        for line in carried.chunks_mut(of_line) {
            let mut before = S::default();
            line.iter_mut().for_each(|sum| (*sum, before) = (before, before.and(*sum)));
        }
        let lines = out.chunks_mut(self.line).zip(carried.chunks(of_line)).enumerate();
        let tasks = lines.flat_map(|(line, (out, carried))| {
            let starts = (line * self.line..).step_by(SIDES * SEGMENT);
            starts.zip(out.chunks_mut(SIDES * SEGMENT)).zip(carried.chunks(SIDES))
        });
        parallel::map(tasks.collect(), elements, |((start, out), carried)| {
            let mut buffer = Vec::new();
            walk_side_by_side(carried, self.read(source, start, out.len(), &mut buffer), out);
            Ok(())
        })?;
        Ok(())
    }

    /// Elements of the operand of a sum, where they lie if they are neighbours.
    fn read<'a, T: Typed>(&self, source: &'a [T], start: usize, len: usize, buffer: &'a mut Vec<T>) -> &'a [T] {
        let operand = &self.operands[0];
        if let Some(from) = operand.contiguous_from {
            return &source[from + start..][..len];
        }
        buffer.resize(len, T::default());
        operand.fill(source, start, buffer);
        buffer
    }

    /// A whole number of steps of all neighbouring lines.
    fn piece(&self) -> usize {
        self.inner * (PIECE / self.inner).max(1)
    }
}

/// Some steps of neighbouring lines; `out` holds the second operand's elements, if there is one.
fn walk<T: Copy, S: Copy>(
    carried: &mut [S],
    loaded: &[T],
    out: &mut [T],
    step: impl Fn(S, T, T) -> S,
    settled: impl Fn(S) -> T,
) {
    if let [carried] = carried {
        for (out, &x) in out.iter_mut().zip(loaded) {
            *carried = step(*carried, x, *out);
            *out = settled(*carried);
        }
        return;
    }
    let lines = carried.len();
    vectorised(
        #[inline(always)]
        || {
            for (out, loaded) in out.chunks_exact_mut(lines).zip(loaded.chunks_exact(lines)) {
                for ((carried, out), &x) in carried.iter_mut().zip(out).zip(loaded) {
                    *carried = step(*carried, x, *out);
                    *out = settled(*carried);
                }
            }
        },
    );
}

/// What sums of elements are carried as.
trait Sum<T>: Copy + Default + Send + Sync {
    /// With one element more.
    fn with(self, x: T) -> Self;
    /// With all that another one has summed up.
    fn and(self, later: Self) -> Self;
    /// As an element.
    fn settled(self) -> T;
}

impl Sum<f32> for f64 {
    #[inline(always)]
    fn with(self, x: f32) -> f64 {
        self + f64::from(x)
    }
    #[inline(always)]
    fn and(self, later: f64) -> f64 {
        self + later
    }
    #[inline(always)]
    fn settled(self) -> f32 {
        self as f32
    }
}

impl<T: Typed + Int> Sum<T> for T {
    #[inline(always)]
    fn with(self, x: T) -> T {
        Int::add(self, x)
    }
    #[inline(always)]
    fn and(self, later: T) -> T {
        Int::add(self, later)
    }
    #[inline(always)]
    fn settled(self) -> T {
        self
    }
}

/// The sum of a segment.
fn sum<T: Copy, S: Sum<T>>(values: &[T]) -> S {
    const LANES: usize = 32;
    vectorised(
        #[inline(always)]
        || {
            let (lines, rest) = values.as_chunks::<LANES>();
            let mut lanes = [S::default(); LANES];
            for line in lines {
                for lane in 0..LANES {
                    lanes[lane] = lanes[lane].with(line[lane]);
                }
            }
            let lanes = lanes.into_iter().fold(S::default(), S::and);
            rest.iter().fold(lanes, |sum, &x| sum.with(x))
        },
    )
}

/// Some segments, with what is carried into each of them.
fn walk_side_by_side<T: Copy, S: Sum<T>>(carried: &[S], loaded: &[T], out: &mut [T]) {
    let (sources, outs) = (loaded.as_chunks::<SEGMENT>().0, out.as_chunks_mut::<SEGMENT>().0);
    if let (Ok(&(mut sums)), Ok(sources), Ok(outs)) =
        (<&[S; SIDES]>::try_from(carried), <&[_; SIDES]>::try_from(sources), <&mut [_; SIDES]>::try_from(outs))
    {
        for place in 0..SEGMENT {
            for side in 0..SIDES {
                sums[side] = sums[side].with(sources[side][place]);
                outs[side][place] = sums[side].settled();
            }
        }
        return;
    }
    for ((&(mut sum), loaded), out) in carried.iter().zip(loaded.chunks(SEGMENT)).zip(out.chunks_mut(SEGMENT)) {
        for (out, &x) in out.iter_mut().zip(loaded) {
            sum = sum.with(x);
            *out = sum.settled();
        }
    }
}
