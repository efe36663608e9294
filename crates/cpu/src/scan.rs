//! Scans: what is carried along an axis, in lines that are neighbours at once. Floats are carried in f64.

use crate::address::Strided;
use crate::loops::vectorised;
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::op::ScanOp;
use gradus_ir::plan::Kernel;
use gradus_ir::real::Int;
use gradus_ir::{DType, Data, Error, Result};

/// Elements that are loaded at once.
const PIECE: usize = 4096;
/// Elements per task, where lines are short.
const TASK: usize = 1 << 15;

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
