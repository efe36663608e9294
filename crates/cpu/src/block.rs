//! Expressions, evaluated one cache-sized block of the iteration space at a time.

use crate::address::{Strided, runs};
use crate::loops::{self, BinaryLoop, CompareLoop, UnaryLoop};
use crate::slice::{Slice, SliceMut, with_slice};
use gradus_ir::plan::{BufferId, Instruction, Kernel, Register};
use gradus_ir::{DType, Data, Element, Error, Number, Result, Shape, View, philox, with_dtype};

/// Elements per block: a handful of registers of this size stay in the first-level cache. A multiple of 4, so that
/// blocks of random numbers start at a Philox block.
pub(crate) const BLOCK: usize = 1024;

/// An expression made ready for its space.
#[derive(Debug)]
pub(crate) struct Program {
    instructions: Vec<(Instruction, DType)>,
    space: Shape,
    loads: Vec<PreparedLoad>,
    /// Registers that need memory of their own (others are read straight from a buffer).
    needs_scratch: Vec<bool>,
}

#[derive(Debug)]
struct PreparedLoad {
    buffer: BufferId,
    view: View,
    strided: Strided,
}

/// What a program reads: the buffers of its loads (`None` for the buffer updated in place) and the numbers.
pub(crate) struct Operands<'a> {
    pub(crate) loads: Vec<Option<Slice<'a>>>,
    pub(crate) scalars: &'a [Number],
}

impl Program {
    /// Prepares a kernel's expression.
    pub(crate) fn new(kernel: &Kernel) -> Program {
        let loads: Vec<PreparedLoad> = kernel
            .loads
            .iter()
            .map(|l| PreparedLoad { buffer: l.buffer, view: l.view.clone(), strided: Strided::new(&l.view) })
            .collect();
        let written = |buffer| kernel.outputs.iter().any(|s| s.buffer == buffer);
        let needs_scratch = kernel.expression.instructions.iter().map(|(instruction, _)| match instruction {
            Instruction::Load(l) => loads[*l].strided.contiguous_from.is_none() || written(loads[*l].buffer),
            _ => true,
        });
        Program {
            instructions: kernel.expression.instructions.clone(),
            space: kernel.space.clone(),
            needs_scratch: needs_scratch.collect(),
            loads,
        }
    }

    /// The buffers of the loads.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.loads.iter().map(|l| l.buffer)
    }

    /// The last register.
    pub(crate) fn last(&self) -> Register {
        self.instructions.len() - 1
    }

    /// Registers for blocks of up to `len` elements, with the numbers already in place. A register in `direct` is
    /// written straight to an output and gets none.
    pub(crate) fn scratch(&self, operands: &Operands, len: usize, direct: Option<Register>) -> Vec<Data> {
        let len = len.min(BLOCK);
        let registers = self.instructions.iter().enumerate().map(|(r, (instruction, dtype))| {
            let len = if self.needs_scratch[r] && direct != Some(r) { len } else { 0 };
            let number = match instruction {
                Instruction::Scalar(slot) => operands.scalars[*slot],
                Instruction::Const(number) => *number,
                _ => Number::Int(0),
            };
            with_dtype!(*dtype, T => T::wrap(vec![T::from_number(number); len]))
        });
        registers.collect()
    }

    /// A register of the block that was evaluated last.
    pub(crate) fn register<'a>(
        &self,
        operands: &Operands<'a>,
        scratch: &'a [Data],
        register: Register,
        start: usize,
        len: usize,
    ) -> Slice<'a> {
        match &self.instructions[register].0 {
            Instruction::Load(l) if !self.needs_scratch[register] => {
                let from = self.loads[*l].strided.contiguous_from.unwrap_or(0);
                let source = operands.loads[*l].expect("only a buffer updated in place is missing");
                source.range(from + start, len)
            }
            _ => Slice::of(&scratch[register]).range(0, len),
        }
    }

    /// Evaluates elements `start..start + len` of the space. The register `direct` is written to `out`, the others to
    /// `scratch`. On entry `out` holds the block of the buffer that is updated in place, if one is.
    pub(crate) fn evaluate(
        &self,
        operands: &Operands,
        scratch: &mut [Data],
        start: usize,
        len: usize,
        mut out: Option<(Register, SliceMut<'_>)>,
    ) -> Result<()> {
        for (r, (instruction, dtype)) in self.instructions.iter().enumerate() {
            if !self.needs_scratch[r] && !matches!(&out, Some((direct, _)) if *direct == r) {
                continue;
            }
            let (earlier, later) = scratch.split_at_mut(r);
            let previous = |register: Register| self.register(operands, earlier, register, start, len);
            let is_direct = matches!(&out, Some((direct, _)) if *direct == r);
            let (mut target, in_place) = match &mut out {
                Some((_, out)) if is_direct => (out.range(0, len), None),
                Some((_, out)) => (SliceMut::of(&mut later[0]), Some(out.as_slice())),
                None => (SliceMut::of(&mut later[0]), None),
            };
            let target = target.range(0, len);
            match instruction {
                // Scratch registers of numbers were filled when they were made.
                Instruction::Scalar(_) | Instruction::Const(_) if !is_direct => {}
                Instruction::Scalar(slot) => fill(target, operands.scalars[*slot]),
                Instruction::Const(number) => fill(target, *number),
                Instruction::Load(l) => match operands.loads[*l] {
                    Some(source) => {
                        with_slice!(SliceMut, target, t => self.loads[*l].strided.fill(source.typed(), start, t));
                    }
                    // A copy onto itself has nothing to do.
                    None => {
                        if let Some(source) = in_place {
                            with_slice!(SliceMut, target, t => t.copy_from_slice(source.range(0, len).typed()));
                        }
                    }
                },
                Instruction::Iota(axis) => iota(&self.space, *axis, start, target),
                Instruction::Random(slot) => random(operands.scalars[*slot].to_i64() as u64, start, target),
                Instruction::Unary(op, x) => op.dispatch(UnaryLoop { x: previous(*x), out: target }),
                Instruction::Binary(op, a, b) => {
                    op.dispatch(BinaryLoop { a: previous(*a), b: previous(*b), out: target });
                }
                Instruction::Compare(op, a, b) => {
                    op.dispatch(CompareLoop { a: previous(*a), b: previous(*b), out: target.typed() });
                }
                Instruction::Select(c, t, o) => {
                    loops::select(previous(*c).typed(), previous(*t), previous(*o), target);
                }
                Instruction::Cast(x) => loops::cast(previous(*x), target),
                Instruction::Gather { load, axis, index } => {
                    let source = operands.loads[*load].expect("a gathered buffer is never updated in place");
                    let view = &self.loads[*load].view;
                    gather(source, view, *axis, previous(*index), &self.space, start, target)?;
                }
                Instruction::Accumulator => {
                    return Err(Error::Backend(format!("an accumulator of {dtype} outside of a reduction")));
                }
            }
        }
        Ok(())
    }
}

fn fill(target: SliceMut<'_>, number: Number) {
    fn typed<T: Element>(target: &mut [T], number: Number) {
        target.fill(T::from_number(number));
    }
    with_slice!(SliceMut, target, t => typed(t, number));
}

fn iota(space: &Shape, axis: usize, start: usize, target: SliceMut<'_>) {
    fn typed<T: Element>(space: &Shape, axis: usize, start: usize, target: &mut [T]) {
        let mut filled = 0;
        for run in runs(space.clone(), start, target.len()) {
            let out = &mut target[filled..filled + run.len];
            filled += run.len;
            let number = |index: usize| T::from_number(Number::Int(index as i64));
            if axis + 1 < space.len() {
                out.fill(number(run.index[axis]));
                continue;
            }
            for (k, out) in out.iter_mut().enumerate() {
                *out = number(run.index[axis] + k);
            }
        }
    }
    with_slice!(SliceMut, target, t => typed(space, axis, start, t));
}

fn random(key: u64, start: usize, target: SliceMut<'_>) {
    /// Fills `target` with `PER_BLOCK` numbers of each Philox block.
    fn fill<T, const PER_BLOCK: usize>(
        key: u64,
        start: usize,
        target: &mut [T],
        numbers: impl Fn([u32; 4]) -> [T; PER_BLOCK],
    ) where
        T: Copy,
    {
        let mut index = start;
        let mut rest = target;
        while !rest.is_empty() {
            let skip = index % PER_BLOCK;
            let taken = (PER_BLOCK - skip).min(rest.len());
            let values = numbers(philox::block(key, (index / PER_BLOCK) as u64));
            let (head, tail) = rest.split_at_mut(taken);
            head.copy_from_slice(&values[skip..skip + taken]);
            (rest, index) = (tail, index + taken);
        }
    }
    match target {
        SliceMut::U32(t) => fill(key, start, t, |w| w),
        SliceMut::F32(t) => fill(key, start, t, |w| w.map(philox::uniform_f32)),
        SliceMut::F64(t) => {
            fill(key, start, t, |w| [philox::uniform_f64(w[0], w[1]), philox::uniform_f64(w[2], w[3])]);
        }
        SliceMut::Bool(_) | SliceMut::I32(_) => unreachable!("random numbers are u32 or floats"),
    }
}

/// An index as a position on its axis.
pub(crate) fn position(index: i64, axis: usize, extent: usize) -> Result<usize> {
    usize::try_from(index).ok().filter(|&i| i < extent).ok_or(Error::Index { index, axis, extent })
}

/// An index slice (i32 or u32) as i64.
pub(crate) fn indices(index: Slice<'_>) -> Vec<i64> {
    match index {
        Slice::I32(v) => v.iter().map(|&i| i as i64).collect(),
        Slice::U32(v) => v.iter().map(|&i| i as i64).collect(),
        _ => unreachable!("an index is i32 or u32"),
    }
}

fn gather(
    source: Slice<'_>,
    view: &View,
    axis: usize,
    index: Slice<'_>,
    space: &Shape,
    start: usize,
    target: SliceMut<'_>,
) -> Result<()> {
    fn typed<T: Element>(
        source: &[T],
        view: &View,
        axis: usize,
        index: &[i64],
        runs: impl Iterator<Item = crate::address::Run>,
        target: &mut [T],
    ) -> Result<()> {
        let last = view.axes.len() - 1;
        let plain = view.axes.iter().all(|a| a.guard.is_none());
        let mut filled = 0;
        for run in runs {
            let range = filled..filled + run.len;
            filled += run.len;
            let mut at = run.index;
            let first = at[last];
            let row: isize = view.offset
                + (0..last).filter(|&a| a != axis).map(|a| view.axes[a].stride * at[a] as isize).sum::<isize>();
            for (k, (out, &index)) in target[range.clone()].iter_mut().zip(&index[range]).enumerate() {
                let position = position(index, axis, view.axes[axis].extent)?;
                *out = if plain {
                    let along = if axis == last { 0 } else { view.axes[last].stride * (first + k) as isize };
                    source[(row + along + view.axes[axis].stride * position as isize) as usize]
                } else {
                    at[last] = first + k;
                    let kept = at[axis];
                    at[axis] = position;
                    let value = view.address(&at).map_or(T::default(), |address| source[address]);
                    at[axis] = kept;
                    value
                };
            }
        }
        Ok(())
    }
    let index = indices(index);
    let runs = runs(space.clone(), start, target.len());
    with_slice!(SliceMut, target, t => typed(source.typed(), view, axis, &index, runs, t))
}
