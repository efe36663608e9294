//! Expressions, evaluated one cache-sized block of the iteration space at a time.
//!
//! A register of f16 is held as f32, always a number that f16 has: loads widen, stores narrow, and every instruction that
//! computes is followed by a rounding.

use crate::address::{Strided, runs};
use crate::loops::{self, BinaryLoop, CompareLoop, UnaryLoop};
use crate::parallel;
use crate::slice::{Slice, SliceMut, with_slice};
use gradus_ir::plan::{Expression, Instruction, Register};
use gradus_ir::{DType, Data, Element, Error, Number, Result, Shape, View, f16, philox};

/// Elements per block: a handful of registers of this size stay in the first-level cache. A multiple of 4, so that
/// blocks of random numbers start at a Philox block.
pub(crate) const BLOCK: usize = 1024;

/// Elements per task.
const TASK: usize = 16 * BLOCK;

/// An expression made ready for its space.
#[derive(Debug)]
pub(crate) struct Program {
    instructions: Vec<(Instruction, DType)>,
    space: Shape,
    loads: Vec<PreparedLoad>,
    /// Registers that need memory of their own (others are read straight from a buffer, or written straight to one).
    needs_scratch: Vec<bool>,
    /// The output that a register is written straight to.
    direct: Vec<Option<usize>>,
    /// Registers that are copied to outputs at the end of a block.
    copied: Vec<(Register, usize)>,
}

/// A load of a program.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// How an index finds its element.
    pub(crate) view: View,
    /// Whether elements are counted from the beginning of the piece of work and not of the space.
    pub(crate) local: bool,
    /// The output that is updated in place, if this is one.
    pub(crate) output: Option<usize>,
}

#[derive(Debug)]
struct PreparedLoad {
    source: Source,
    strided: Strided,
}

/// What a program reads: an array for each load (`None` for one that is updated in place) and the numbers.
#[derive(Clone)]
pub(crate) struct Operands<'a> {
    pub(crate) loads: Vec<Option<Slice<'a>>>,
    pub(crate) scalars: &'a [Number],
}

/// A stretch of the space, row-major.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// The first element.
    pub(crate) start: usize,
    /// How many.
    pub(crate) len: usize,
    /// The first element of the piece of work that it belongs to.
    pub(crate) base: usize,
}

impl Program {
    /// Prepares an expression, some of whose registers are outputs, and some are asked for after a block.
    pub(crate) fn new(
        space: &Shape,
        loads: Vec<Source>,
        expression: &Expression,
        outputs: &[Register],
        asked: &[Register],
    ) -> Program {
        let instructions = expression.instructions.clone();
        let loads: Vec<PreparedLoad> =
            loads.into_iter().map(|source| PreparedLoad { strided: Strided::new(&source.view), source }).collect();
        let is_read = |r: Register| {
            asked.contains(&r) || instructions.iter().any(|(instruction, _)| instruction.operands().contains(&r))
        };
        // A load that is one stretch of its array is read where it is, unless it has to be widened. What is local is held
        // as registers are.
        let is_stretch = |load: &PreparedLoad, dtype: DType| {
            load.strided.contiguous_from.is_some() && (dtype != DType::F16 || load.source.local)
        };
        let is_ready = |r: Register| match instructions[r] {
            (Instruction::Load(l), dtype) => is_stretch(&loads[l], dtype) || loads[l].source.output.is_some(),
            _ => false,
        };
        let mut direct = vec![None; instructions.len()];
        let mut copied = Vec::new();
        for (output, &register) in outputs.iter().enumerate() {
            let is_only = outputs.iter().filter(|&&other| other == register).count() == 1;
            let is_narrowed = instructions[register].1 == DType::F16;
            if is_only && !is_narrowed && !is_read(register) && !is_ready(register) {
                direct[register] = Some(output);
            } else {
                copied.push((register, output));
            }
        }
        let needs_scratch = instructions.iter().zip(&direct).map(|((instruction, dtype), direct)| match instruction {
            Instruction::Load(l) if is_stretch(&loads[*l], *dtype) => loads[*l].source.output.is_some(),
            _ => direct.is_none(),
        });
        let needs_scratch = needs_scratch.collect();
        Program { instructions, space: space.clone(), loads, needs_scratch, direct, copied }
    }

    /// Evaluates the whole space into `outs`.
    pub(crate) fn run(&self, operands: &Operands, outs: &mut [Data]) -> Result<()> {
        let elements = self.space.numel();
        let mut tasks: Vec<Vec<SliceMut<'_>>> = (0..elements.div_ceil(TASK)).map(|_| Vec::new()).collect();
        for out in outs {
            let chunks = SliceMut::of(out).chunks(TASK);
            tasks.iter_mut().zip(chunks).for_each(|(task, chunk)| task.push(chunk));
        }
        let run = |(task, mut outs): (usize, Vec<SliceMut<'_>>)| {
            let len = outs.first().map_or(0, SliceMut::len);
            let mut scratch = self.scratch(operands.scalars, len);
            for at in (0..len).step_by(BLOCK) {
                let block = Block { start: task * TASK + at, len: BLOCK.min(len - at), base: 0 };
                let mut outs: Vec<SliceMut<'_>> = outs.iter_mut().map(|out| out.range(at, block.len)).collect();
                self.evaluate(operands, &mut scratch, block, None, &mut outs)?;
            }
            Ok(())
        };
        parallel::map(tasks.into_iter().enumerate().collect(), elements, run).map(|_| ())
    }

    /// Registers for blocks of up to `len` elements, with the numbers already in place.
    pub(crate) fn scratch(&self, scalars: &[Number], len: usize) -> Vec<Data> {
        let len = len.min(BLOCK);
        let registers = self.instructions.iter().enumerate().map(|(r, (instruction, dtype))| {
            let len = if self.needs_scratch[r] { len } else { 0 };
            let number = match instruction {
                Instruction::Scalar(slot) => scalars[*slot],
                Instruction::Const(number) => *number,
                _ => Number::Int(0),
            };
            loops::filled(*dtype, number, len)
        });
        registers.collect()
    }

    /// A register of the block that was evaluated last.
    pub(crate) fn register<'a>(
        &self,
        operands: &Operands<'a>,
        scratch: &'a [Data],
        register: Register,
        block: Block,
    ) -> Slice<'a> {
        match &self.instructions[register].0 {
            Instruction::Load(l) if !self.needs_scratch[register] => {
                let from = self.loads[*l].strided.contiguous_from.unwrap_or(0);
                let source = operands.loads[*l].expect("only a buffer updated in place is missing");
                source.range(from + self.loads[*l].first(block), block.len)
            }
            _ => Slice::of(&scratch[register]).range(0, block.len),
        }
    }

    /// Evaluates a block: the registers in `mask`, or all. Outputs are written to `outs`, each as long as the block; on
    /// entry an output that is updated in place holds what it replaces.
    pub(crate) fn evaluate(
        &self,
        operands: &Operands,
        scratch: &mut [Data],
        block: Block,
        mask: Option<&[bool]>,
        outs: &mut [SliceMut<'_>],
    ) -> Result<()> {
        let Block { start, len, .. } = block;
        let is_wanted = |r: Register| mask.is_none_or(|mask| mask[r]);
        // What is overwritten is read first.
        for (r, (instruction, _)) in self.instructions.iter().enumerate() {
            if let (Instruction::Load(l), true) = (instruction, is_wanted(r))
                && let Some(output) = self.loads[*l].source.output
            {
                let mut target = SliceMut::of(&mut scratch[r]);
                let source = outs[output].as_slice();
                loops::copy(source.range(0, len), target.range(0, len));
            }
        }
        for (r, (instruction, dtype)) in self.instructions.iter().enumerate() {
            if !is_wanted(r) || (self.direct[r].is_none() && !self.needs_scratch[r]) {
                continue;
            }
            let (earlier, later) = scratch.split_at_mut(r);
            let previous = |register: Register| self.register(operands, earlier, register, block);
            let is_direct = self.direct[r].is_some();
            let mut target = match self.direct[r] {
                Some(output) => outs[output].range(0, len),
                None => SliceMut::of(&mut later[0]),
            };
            let target = target.range(0, len);
            match instruction {
                // Scratch registers of numbers were filled when they were made.
                Instruction::Scalar(_) | Instruction::Const(_) if !is_direct => {}
                Instruction::Scalar(slot) => fill(target, operands.scalars[*slot]),
                Instruction::Const(number) => fill(target, *number),
                Instruction::Load(l) => {
                    let load = &self.loads[*l];
                    // What is updated in place has been read before.
                    if let Some(source) = operands.loads[*l].filter(|_| load.source.output.is_none()) {
                        from_memory(source, target, |target| {
                            with_slice!(SliceMut, target, t => load.strided.fill(source.typed(), load.first(block), t));
                            Ok(())
                        })?;
                    }
                }
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
                Instruction::Cast(x) if *dtype == DType::F16 => loops::cast_to_f16(previous(*x), target),
                Instruction::Cast(x) => loops::cast(previous(*x), target),
                Instruction::Gather { load, axis, index } => {
                    let source = operands.loads[*load].expect("a gathered buffer is never updated in place");
                    let view = &self.loads[*load].source.view;
                    from_memory(source, target, |target| {
                        gather(source, view, *axis, previous(*index), &self.space, start, target)
                    })?;
                }
                Instruction::Index { index, axis, extent } => {
                    let values = previous(*index);
                    for index in indices(values) {
                        position(index, *axis, *extent)?;
                    }
                    with_slice!(SliceMut, target, t => t.copy_from_slice(values.typed()));
                }
                Instruction::Accumulator | Instruction::Reduce(..) => {
                    return Err(Error::Backend(format!("a {dtype} value that the kernel's family does not give")));
                }
            }
            if *dtype == DType::F16 && !is_exact(instruction) {
                loops::round_to_f16(SliceMut::of(&mut later[0]).range(0, len).typed());
            }
        }
        for &(register, output) in self.copied.iter().filter(|(register, _)| is_wanted(*register)) {
            let source = self.register(operands, scratch, register, block);
            loops::copy(source, outs[output].range(0, len));
        }
        Ok(())
    }
}

impl PreparedLoad {
    /// Where a block begins in what the load's view shows.
    fn first(&self, block: Block) -> usize {
        if self.source.local { block.start - block.base } else { block.start }
    }
}

/// Whether an instruction on f16 gives what f16 has, without being rounded.
fn is_exact(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Unary(op, _) => op.ulps() == 0.0,
        Instruction::Binary(op, ..) => op.ulps() == 0.0,
        Instruction::Iota(_) => false,
        _ => true,
    }
}

/// Fills a register with elements of an array, which `fill` puts into a place of the array's dtype.
fn from_memory(source: Slice<'_>, target: SliceMut<'_>, fill: impl FnOnce(SliceMut<'_>) -> Result<()>) -> Result<()> {
    match (source, target) {
        (Slice::F16(_), SliceMut::F32(wide)) => {
            let mut narrow = [f16::ZERO; BLOCK];
            let narrow = &mut narrow[..wide.len()];
            fill(SliceMut::F16(narrow))?;
            loops::copy(Slice::F16(narrow), SliceMut::F32(wide));
            Ok(())
        }
        (_, target) => fill(target),
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
        SliceMut::Bool(_) | SliceMut::I32(_) | SliceMut::F16(_) => unreachable!("random numbers are u32, f32 or f64"),
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
