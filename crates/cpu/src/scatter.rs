//! Scatter: a copy of the base with updates added or set, in row-major order of the updates.

use crate::address::{Strided, runs};
use crate::slice::{Slice, SliceMut, Typed, with_slice};
use crate::sources::{indices, position};
use gradus_ir::op::ScatterMode;
use gradus_ir::plan::{Instruction, Kernel};
use gradus_ir::real::Int;
use gradus_ir::{DType, Data, Error, Result, Shape};

/// A scatter made ready.
#[derive(Debug)]
pub(crate) struct Scatter {
    mode: ScatterMode,
    axis: usize,
    /// The shape of index and updates.
    space: Shape,
    /// The shape of base and result.
    shape: Shape,
    base: Strided,
    index: Strided,
    updates: Strided,
}

impl Scatter {
    /// Prepares a kernel with loads base, index, updates.
    pub(crate) fn new(kernel: &Kernel, mode: ScatterMode, axis: usize) -> Result<Scatter> {
        let [(Instruction::Accumulator, _)] = kernel.expression.instructions[..] else {
            return Err(Error::Backend("a scatter with an epilogue".into()));
        };
        let strided = |i: usize| Strided::new(&kernel.loads[i].view);
        Ok(Scatter {
            mode,
            axis,
            space: kernel.space.clone(),
            shape: kernel.loads[0].view.shape(),
            base: strided(0),
            index: strided(1),
            updates: strided(2),
        })
    }

    /// Runs it; `base` is `None` where `out` already holds it.
    pub(crate) fn run(
        &self,
        base: Option<Slice<'_>>,
        index: Slice<'_>,
        updates: Slice<'_>,
        out: &mut Data,
    ) -> Result<()> {
        let numel = self.space.numel();
        let index = match index {
            Slice::I32(v) => indices(Slice::I32(&self.whole(&self.index, v, numel))),
            Slice::U32(v) => indices(Slice::U32(&self.whole(&self.index, v, numel))),
            _ => unreachable!("an index is i32 or u32"),
        };
        // All indices are checked before anything is written.
        for &i in &index {
            position(i, self.axis, self.shape[self.axis])?;
        }
        let mut out = SliceMut::of(out);
        if let Some(base) = base {
            let len = out.len();
            let target = out.range(0, len);
            with_slice!(SliceMut, target, t => self.base.fill(base.typed(), 0, t));
        }
        match (self.mode, out) {
            (ScatterMode::Set, out) => {
                with_slice!(SliceMut, out, t => self.apply(&index, updates.typed(), t, |place, update| *place = update));
            }
            (ScatterMode::Add, SliceMut::F32(t)) => self.apply(&index, updates.typed(), t, |p, u| *p += u),
            (ScatterMode::Add, SliceMut::F64(t)) => self.apply(&index, updates.typed(), t, |p, u| *p += u),
            (ScatterMode::Add, SliceMut::I32(t)) => self.apply(&index, updates.typed(), t, |p, u| *p = Int::add(*p, u)),
            (ScatterMode::Add, SliceMut::U32(t)) => self.apply(&index, updates.typed(), t, |p, u| *p = Int::add(*p, u)),
            (ScatterMode::Add, SliceMut::F16(_)) => {
                return Err(Error::Backend("a sum of f16 that a plan has not widened".into()));
            }
            (ScatterMode::Add, SliceMut::Bool(_)) => {
                return Err(Error::DType { expected: "a number dtype", found: DType::Bool });
            }
        }
        Ok(())
    }

    fn whole<T: Typed>(&self, strided: &Strided, source: &[T], numel: usize) -> Vec<T> {
        let mut values = vec![T::default(); numel];
        strided.fill(source, 0, &mut values);
        values
    }

    fn apply<T: Typed>(&self, index: &[i64], updates: &[T], out: &mut [T], combine: impl Fn(&mut T, T)) {
        let updates = self.whole(&self.updates, updates, index.len());
        let strides = self.shape.strides();
        let last = self.space.len() - 1;
        let mut seen = 0;
        for run in runs(self.space.clone(), 0, index.len()) {
            let outer: isize = (0..last).filter(|&a| a != self.axis).map(|a| strides[a] * run.index[a] as isize).sum();
            for k in 0..run.len {
                let along = if self.axis == last { 0 } else { strides[last] * (run.index[last] + k) as isize };
                let place = outer + along + strides[self.axis] * index[seen + k] as isize;
                combine(&mut out[place as usize], updates[seen + k]);
            }
            seen += run.len;
        }
    }
}
