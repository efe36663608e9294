//! Expressions, evaluated one cache-sized block of the iteration space at a time.
//!
//! A register of f16 is held as f32, always a number that f16 has: loads widen, stores narrow, and every instruction that
//! computes is followed by a rounding.

mod homes;
mod load;

use crate::address::{Rows, Shown};
use crate::ahead::Ahead;
use crate::chains::{Chain, Chains, Joined, function, is_function};
use crate::gather::{Gather, Index, row_indices};
use crate::loops::{self, BinaryLoop, CompareLoop, Operand, UnaryLoop};
use crate::parallel;
use crate::registers::{self, Piece};
use crate::slice::{Slice, SliceMut, with_slice};
use crate::sources::{fill, indices, iota, position, random};
use gradus_ir::plan::{Expression, Instruction, Register};
use gradus_ir::{DType, Data, Element, Error, Number, Result, Shape, f16};
use homes::{Home, Homes, Life, Need};
use load::{Load, from_memory};
pub(crate) use load::{Operands, Source};
use smallvec::SmallVec;

/// Elements per block: registers of this size stay in the caches next to a core. A multiple of 4, so that blocks of random
/// numbers start at a Philox block.
pub(crate) const BLOCK: usize = 4096;

/// Elements per block of whole rows, and of a register: each instruction takes some time before the first element of a row, and
/// goes through the rows of a block one by one.
pub(crate) const BLOCK_OF_ROWS: usize = 4 * BLOCK;

/// Elements per task.
const TASK: usize = 4 * BLOCK;

/// Elements per block, and per task, at most where no register is held: what is read from memory and written there has no place in
/// the first cache, and every block begins anew to read ahead.
const LONG_BLOCK: usize = 16 * BLOCK;

/// So many elements ahead memory is asked for at least.
const ASKED_AHEAD: usize = 2048;

/// The outputs of a block, or of a task.
pub(crate) type Outs<'a> = SmallVec<[SliceMut<'a>; 4]>;

/// An expression made ready for its space.
#[derive(Debug)]
pub(crate) struct Program {
    instructions: Vec<(Instruction, DType)>,
    space: Shape,
    loads: Vec<Load>,
    /// The memory that registers need (some are read straight from a buffer, or written straight to one).
    needs: Vec<Need>,
    homes: Homes,
    /// Registers of which one element may stand for a block of equal ones, or that may be used row by row, since all that
    /// read them allow it.
    may_splat: Vec<bool>,
    /// The length of rows that may be used so.
    row: Option<usize>,
    /// Registers that are the same along the last axis of the space.
    of_rows: Vec<bool>,
    /// Registers that are never filled: indices of whole rows, which gathers read where they lie.
    row_indices: Vec<bool>,
    /// Which registers are computed together with others.
    chains: Chains,
    /// The output that a register is written straight to.
    direct: Vec<Option<usize>>,
    /// Registers that are copied to outputs at the end of a block.
    copied: Vec<(Register, usize)>,
    /// Registers that are asked for after a block.
    asked: Vec<Register>,
    /// Registers that are asked for the sums of their rows.
    summed: Vec<Register>,
    /// All that a block takes.
    whole: Steps,
}

/// What is done for a block.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// Loads that are updated in place, and by which output: they are read before anything is written.
    overwritten: Vec<(Register, usize)>,
    /// Registers to evaluate, in order.
    registers: Vec<Register>,
    /// Those of them with which another one is computed, which is not among them.
    joined: Vec<Register>,
    /// Registers to copy to outputs.
    copied: Vec<(Register, usize)>,
    /// Registers that are summed up afterwards.
    summed: Vec<Register>,
    /// The register during whose computation the next block's memory is asked for.
    pub(crate) asking: Option<Register>,
    /// Whether that is the first one that is computed: what others read comes later.
    asks_first: bool,
    /// Whether what steps after these write to is asked for then, or while registers are summed up.
    pub(crate) ask_outputs: bool,
    /// Whether any of these writes to an output, or reads what one holds.
    pub(crate) use_outputs: bool,
}

impl Steps {
    /// The same after so many walks, which have read a block before.
    pub(crate) fn after(mut self, walks: usize) -> Steps {
        self.asks_first &= walks == 0;
        self
    }

    /// Whether nothing is done.
    pub(crate) fn is_empty(&self) -> bool {
        self.registers.is_empty() && self.copied.is_empty()
    }
}

/// The registers of a block.
pub(crate) struct Scratch {
    /// The memory that [`Homes`] are in.
    memory: SmallVec<[Piece; 8]>,
    places: SmallVec<[Place; 8]>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.memory.drain(..).for_each(registers::give_back);
    }
}

/// Where the elements of a register are.
#[derive(Clone, Copy)]
enum Place {
    /// At home.
    Home,
    /// All are equal to this one there.
    Splat(usize),
    /// In the array that it loads, from this element on.
    Array(usize),
    /// In the array that it loads, row by row.
    Rows(Rows),
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
    /// Prepares an expression, some of whose registers are outputs, and some are asked for after a block, with all elements or as
    /// sums.
    pub(crate) fn new(
        space: &Shape,
        loads: Vec<Source>,
        expression: &Expression,
        outputs: &[Register],
        asked: &[Register],
        summed: &[Register],
    ) -> Program {
        let instructions = expression.instructions.clone();
        let loads: Vec<Load> = loads.into_iter().map(Load::new).collect();
        let is_read = |r: Register| {
            let is_asked = asked.contains(&r) || summed.contains(&r);
            is_asked || instructions.iter().any(|(instruction, _)| instruction.operands().contains(&r))
        };
        // A load that is one stretch of its array is read where it is, unless it has to be widened. What is local is held
        // as registers are.
        let is_stretch = |load: &Load, dtype: DType| load.strided.contiguous_from.is_some() && load.is_held_as(dtype);
        let is_ready = |r: Register| match instructions[r] {
            (Instruction::Load(l), dtype) => is_stretch(&loads[l], dtype) || loads[l].source.output.is_some(),
            _ => false,
        };
        let mut direct = vec![None; instructions.len()];
        let mut copied = Vec::new();
        for (output, &register) in outputs.iter().enumerate() {
            let is_only = outputs.iter().filter(|&&other| other == register).count() == 1;
            // What is looked up goes from array to array; anything else of f16 is narrowed on its way.
            let (instruction, dtype) = &instructions[register];
            let is_narrowed = *dtype == DType::F16 && !matches!(instruction, Instruction::Gather { .. });
            if is_only && !is_narrowed && !is_read(register) && !is_ready(register) {
                direct[register] = Some(output);
            } else {
                copied.push((register, output));
            }
        }
        let is_copied = |r: Register| copied.iter().any(|&(register, _)| register == r);
        let takes_splats = |r: Register| {
            instructions.iter().all(|(instruction, _)| {
                matches!(instruction, Instruction::Binary(..) | Instruction::Compare(..))
                    || !instruction.operands().contains(&r)
            })
        };
        let of_rows = expression.per_row(|load| &loads[load].source.view, space.len().saturating_sub(1));
        let is_needed = |r: Register| asked.contains(&r) || outputs.contains(&r);
        let chains = Chains::new(&instructions, is_needed, |r| of_rows[r], summed);
        let may_splat = (0..instructions.len())
            .map(|r| direct[r].is_none() && !asked.contains(&r) && !is_copied(r) && takes_splats(r));
        let may_splat: Vec<bool> = may_splat.collect();
        let may_pass = |r: Register, load: usize| {
            let Source { local, output, .. } = loads[load].source;
            of_rows[r] && !is_needed(r) && !summed.contains(&r) && !local && output.is_none()
        };
        let row_indices = row_indices(&instructions, |load| &loads[load].source.view, may_pass);
        let needs = (0..instructions.len()).map(|r| match instructions[r] {
            _ if direct[r].is_some() || chains.is_passed(r) || row_indices[r] => Need::Nothing,
            (Instruction::Load(l), dtype) if is_stretch(&loads[l], dtype) && loads[l].source.output.is_none() => {
                Need::Nothing
            }
            (Instruction::Scalar(_) | Instruction::Const(_), _) if may_splat[r] => Need::Element,
            (Instruction::Scalar(_) | Instruction::Const(_), _) => Need::Block,
            _ => Need::Shared,
        });
        let needs: Vec<Need> = needs.collect();
        let (homes, space) = (Homes::default(), space.clone());
        let whole = Steps::default();
        let row = loads.iter().find_map(|load| load.strided.row());
        let mut program = Program {
            instructions,
            space,
            loads,
            needs,
            homes,
            may_splat,
            row,
            of_rows,
            row_indices,
            chains,
            direct,
            copied,
            asked: asked.to_vec(),
            summed: summed.to_vec(),
            whole,
        };
        let whole = program.steps(|_| true);
        program.share_memory([&whole]);
        Program { whole, ..program }
    }

    /// Lets registers share memory if one is no longer needed when the other is evaluated, for a block that takes these steps
    /// one after the other. Later ones may read what earlier ones have evaluated.
    pub(crate) fn share_memory<'s>(&mut self, schedule: impl IntoIterator<Item = &'s Steps>) {
        let mut lives: Vec<Option<Life>> = vec![None; self.instructions.len()];
        let mut now = 0;
        let needed = |r: Register, now: usize, lives: &mut [Option<Life>]| {
            lives[r].get_or_insert(Life { first: now, last: now }).last = now;
        };
        for steps in schedule {
            for r in steps.overwritten.iter().map(|&(r, _)| r).chain(steps.registers.iter().copied()) {
                now += 1;
                needed(r, now, &mut lives);
                self.operands(r).iter().for_each(|&operand| needed(operand, now, &mut lives));
                if let Some(joined) = self.joined(steps, r) {
                    needed(joined.through, now, &mut lives);
                    joined.operands().for_each(|operand| needed(operand, now, &mut lives));
                }
            }
            now += 1;
            let through = |r: &Register| steps.joined.iter().any(|&of| self.through(of) == Some(*r));
            let asked = self.asked.iter().filter(|r| steps.registers.contains(r) || through(r));
            steps.copied.iter().map(|(r, _)| r).chain(asked).for_each(|&r| needed(r, now, &mut lives));
            let chains = steps.summed.iter().filter_map(|&r| self.chains.sums(r));
            chains.flat_map(Chain::operands).for_each(|r| needed(r, now, &mut lives));
        }
        self.homes = Homes::new(&self.instructions, &self.needs, &lives);
    }

    /// What some registers take.
    pub(crate) fn steps(&self, is_wanted: impl Fn(Register) -> bool) -> Steps {
        let wanted = |&r: &Register| is_wanted(r);
        // Registers of numbers are filled when they are made.
        let is_number = |r: Register| matches!(self.instructions[r].0, Instruction::Scalar(_) | Instruction::Const(_));
        let is_passed = |r: Register| self.chains.is_passed(r) || self.row_indices[r];
        let is_evaluated = |&r: &Register| self.direct[r].is_some() || !(is_number(r) || is_passed(r));
        let overwritten = |r: Register| match self.instructions[r].0 {
            Instruction::Load(load) => self.loads[load].source.output.map(|output| (r, output)),
            _ => None,
        };
        let all = 0..self.instructions.len();
        let overwritten: Vec<_> = all.clone().filter(wanted).filter_map(overwritten).collect();
        let mut registers: Vec<Register> = all.filter(wanted).filter(is_evaluated).collect();
        let is_joined = |&r: &Register| self.through(r).is_some_and(|through| registers.contains(&through));
        let joined: Vec<Register> = registers.iter().copied().filter(is_joined).collect();
        registers.retain(|r| !joined.iter().any(|&of| self.through(of) == Some(*r)));
        let copied: Vec<_> = self.copied.iter().copied().filter(|&(register, _)| is_wanted(register)).collect();
        let writes = !copied.is_empty() || registers.iter().any(|&r| self.direct[r].is_some());
        let summed = self.summed.iter().copied().filter(wanted).collect();
        let asking = registers.iter().copied().find(|&r| self.chains.of(r).is_some_and(Chain::is_function));
        let is_load = |r: &Register| matches!(self.instructions[*r].0, Instruction::Load(_));
        let asks_first = asking.is_some() && registers.iter().copied().find(|r| !is_load(r)) == asking;
        let use_outputs = writes || !overwritten.is_empty();
        Steps { overwritten, registers, joined, copied, summed, asking, asks_first, ask_outputs: false, use_outputs }
    }

    /// What a block and the one after it read from memory so many elements later, and what this one writes to later. What is local to
    /// a piece of work was computed just now.
    fn ahead(&self, operands: &Operands, block: Block, distance: usize, outs: &[SliceMut<'_>]) -> Ahead {
        let mut ahead = Ahead::default();
        outs.iter().for_each(|out| ahead.push_written(out.as_slice()));
        let end = self.space.numel();
        let next = (block.start + distance).min(end)..(block.start + distance + block.len).min(end);
        for (instruction, _) in &self.instructions {
            let &Instruction::Load(l) = instruction else { continue };
            let Source { local, .. } = self.loads[l].source;
            if let (false, Some(from), Some(array)) = (local, self.loads[l].strided.contiguous_from, operands.load(l)) {
                ahead.push_read(array.range(from + next.start, next.len()));
            }
        }
        ahead
    }

    /// The register that may be computed together with another one.
    fn through(&self, register: Register) -> Option<Register> {
        self.chains.joined(register).map(|joined| joined.through)
    }

    /// The chain by which some steps compute a register together with another one, if they do.
    fn joined(&self, steps: &Steps, register: Register) -> Option<&Joined> {
        self.chains.joined(register).filter(|_| steps.joined.contains(&register))
    }

    /// The registers that a register is computed from.
    fn operands(&self, register: Register) -> SmallVec<[Register; 3]> {
        match self.chains.of(register) {
            Some(chain) => chain.operands().collect(),
            None => self.instructions[register].0.operands(),
        }
    }

    /// How long the blocks of so many elements are if no register is held, since everything is read where it lies, if need be row by
    /// row of so many elements, and written where it goes: there are blocks enough for all threads.
    pub(crate) fn long_block(&self, elements: usize, row: Option<usize>) -> Option<usize> {
        let len = || (elements / parallel::tasks()).clamp(BLOCK_OF_ROWS, LONG_BLOCK);
        (elements >= LONG_BLOCK && self.holds_nothing(row)).then(len)
    }

    /// The same of any number of threads.
    pub(crate) fn fixed_long_block(&self, elements: usize) -> Option<usize> {
        let len = || if elements >= 16 * LONG_BLOCK { LONG_BLOCK } else { BLOCK_OF_ROWS };
        (elements >= LONG_BLOCK && self.holds_nothing(None)).then(len)
    }

    /// Whether everything is read where it lies, if need be row by row of so many elements, and written where it goes.
    fn holds_nothing(&self, row: Option<usize>) -> bool {
        // Rows of one length are read where they lie.
        let row = row.filter(|_| row == self.row);
        let is_held = |r: Register| match (self.needs[r], &self.instructions[r]) {
            (Need::Nothing | Need::Element, _) => false,
            (_, (Instruction::Load(l), dtype)) => !(self.may_splat[r] && self.loads[*l].is_rows(row, *dtype)),
            _ => true,
        };
        !(0..self.needs.len()).any(is_held)
    }

    /// Elements of a block, and of a task: of both whole rows, if some are read where they lie, and a multiple of 4 as [`BLOCK`] is.
    fn block_and_task(&self) -> (usize, usize) {
        let row = self.row.filter(|&row| row <= BLOCK);
        if let Some(long) = self.long_block(self.space.numel(), row) {
            let whole = row.map_or(long / 4 * 4, |row| long / row * row);
            return (whole, whole);
        }
        let rows = row.map(|row| (row, BLOCK / row));
        let block = match rows {
            Some((row, rows)) if (row * rows).is_multiple_of(4) => row * rows,
            Some((row, rows)) if rows >= 4 => row * (rows / 4 * 4),
            _ => BLOCK,
        };
        (block, TASK / BLOCK * block)
    }

    /// Evaluates the whole space into `outs`.
    pub(crate) fn run(&self, operands: &Operands, outs: &mut [Data]) -> Result<()> {
        let elements = self.space.numel();
        let (block_len, task_len) = self.block_and_task();
        let run = |(task, mut outs): (usize, Outs<'_>)| {
            let len = outs.first().map_or(0, SliceMut::len);
            let mut scratch = self.scratch(operands.scalars);
            for at in (0..len).step_by(block_len) {
                let block = Block { start: task * task_len + at, len: block_len.min(len - at), base: 0 };
                let mut outs: Outs<'_> = outs.iter_mut().map(|out| out.range(at, block.len)).collect();
                self.evaluate(operands, &mut scratch, block, &mut outs)?;
            }
            Ok(())
        };
        if elements <= task_len {
            return run((0, outs.iter_mut().map(SliceMut::of).collect()));
        }
        let mut tasks: Vec<Outs<'_>> = (0..elements.div_ceil(task_len)).map(|_| Outs::new()).collect();
        for out in outs {
            let chunks = SliceMut::of(out).chunks(task_len);
            tasks.iter_mut().zip(chunks).for_each(|(task, chunk)| task.push(chunk));
        }
        parallel::map(tasks.into_iter().enumerate().collect(), elements, run).map(|_| ())
    }

    /// Registers for blocks, with the numbers already in place.
    pub(crate) fn scratch(&self, scalars: &[Number]) -> Scratch {
        let mut memory: SmallVec<[Piece; 8]> = self.homes.pieces.iter().map(|dtype| registers::take(*dtype)).collect();
        let mut places = SmallVec::from_elem(Place::Home, self.instructions.len());
        for (r, (instruction, dtype)) in self.instructions.iter().enumerate() {
            let number = match instruction {
                Instruction::Scalar(slot) => scalars[*slot],
                Instruction::Const(number) => *number,
                _ => continue,
            };
            let Some(Home { piece, at }) = self.homes.of(r) else { continue };
            // As the dtype has it, f16 too.
            let number = if *dtype == DType::F16 { Number::Float(f16::from_number(number).into()) } else { number };
            let len = if self.may_splat[r] { 1 } else { BLOCK_OF_ROWS.min(self.space.numel()) };
            if self.may_splat[r] {
                places[r] = Place::Splat(at);
            }
            fill(memory[piece].slice_mut().range(at, len), number);
        }
        Scratch { memory, places }
    }

    /// A register of the block that was evaluated last.
    pub(crate) fn register<'a>(
        &self,
        operands: &Operands<'a>,
        scratch: &'a Scratch,
        register: Register,
        block: Block,
    ) -> Slice<'a> {
        let piece = |piece: usize| &scratch.memory[piece];
        self.read(operands, piece, scratch.places[register], register, block.len).values
    }

    /// Whether a register is asked for the sums of its rows alone.
    pub(crate) fn is_summed(&self, register: Register) -> bool {
        self.summed.contains(&register)
    }

    /// The sums of the rows of the block that was evaluated last, of a register that is asked for them: one for each.
    pub(crate) fn sums(
        &self,
        operands: &Operands,
        scratch: &Scratch,
        register: Register,
        block: Block,
        sums: &mut [f64],
        ahead: &Ahead,
    ) {
        let chain = self.chains.sums(register).expect("a register that is summed up");
        let piece = |piece: usize| &scratch.memory[piece];
        let previous = |r: Register| self.read(operands, piece, scratch.places[r], r, block.len);
        chain.sums(previous, block.len / sums.len(), sums, ahead);
    }

    /// What is in a register that is at a place: the elements of a block, or one that stands for all of them.
    #[inline(always)]
    fn read<'a>(
        &self,
        operands: &Operands<'a>,
        memory: impl Fn(usize) -> &'a Piece,
        place: Place,
        register: Register,
        len: usize,
    ) -> Operand<'a> {
        if let Instruction::Load(l) = self.instructions[register].0 {
            let array = || operands.load(l).expect("only a buffer updated in place is missing");
            match place {
                Place::Array(at) => return Operand { values: array().range(at, len), rows: None },
                Place::Rows(rows) => return Operand { values: array(), rows: Some(rows) },
                Place::Home | Place::Splat(_) => {}
            }
        }
        let home = self.homes.of(register).expect("what is read is held, or lies in an array");
        let (at, len) = if let Place::Splat(at) = place { (at, 1) } else { (0, len) };
        Operand { values: memory(home.piece).slice().range(at, len), rows: None }
    }

    /// Evaluates a block. Outputs are written to `outs`, each as long as the block; on entry an output that is updated in
    /// place holds what it replaces.
    pub(crate) fn evaluate(
        &self,
        operands: &Operands,
        scratch: &mut Scratch,
        block: Block,
        outs: &mut [SliceMut<'_>],
    ) -> Result<()> {
        self.take(&self.whole, operands, scratch, block, outs)
    }

    /// Takes some of a block's steps.
    pub(crate) fn take(
        &self,
        steps: &Steps,
        operands: &Operands,
        scratch: &mut Scratch,
        block: Block,
        outs: &mut [SliceMut<'_>],
    ) -> Result<()> {
        let len = block.len;
        let Scratch { memory, places } = scratch;
        for &(r, output) in &steps.overwritten {
            let home = self.homes.of(r).expect("what is overwritten is held");
            let mut target = memory[home.piece].slice_mut();
            let source = outs[output].as_slice();
            loops::copy(source.range(0, len), target.range(0, len));
        }
        for &r in &steps.registers {
            let (instruction, dtype) = &self.instructions[r];
            let ahead = match steps.asking {
                Some(asking) if asking == r => {
                    let outs = if steps.ask_outputs { &*outs } else { &[] };
                    self.ahead(operands, block, if steps.asks_first { ASKED_AHEAD.min(len) } else { len }, outs)
                }
                _ => Ahead::default(),
            };
            let joined = self.joined(steps, r).map(|joined| {
                let home = self.homes.of(joined.through).expect("what others read is held").piece;
                (joined, home, std::mem::take(&mut memory[home]))
            });
            // No operand is held where the register is.
            let own = self.homes.of(r).map_or(memory.len(), |home| home.piece);
            let (before, rest) = memory.split_at_mut(own);
            let (held, after) = match rest.split_first_mut() {
                Some((held, after)) => (Some(held), &*after),
                None => (None, &[][..]),
            };
            let piece = |piece: usize| if piece < own { &before[piece] } else { &after[piece - own - 1] };
            let mut target = match (self.direct[r], held) {
                (Some(output), _) => outs[output].range(0, len),
                (None, Some(held)) => held.slice_mut(),
                (None, None) => SliceMut::empty(),
            };
            match instruction {
                Instruction::Load(l) => {
                    let shown =
                        if self.direct[r].is_some() { Shown::Many } else { self.loads[*l].shown(block, *dtype) };
                    places[r] = match shown {
                        Shown::Stretch(at) => Place::Array(at),
                        Shown::One if self.may_splat[r] => Place::Splat(0),
                        Shown::Rows(rows) if self.may_splat[r] && self.row == Some(rows.len) => Place::Rows(rows),
                        _ => Place::Home,
                    };
                    let len = if let Place::Splat(_) = places[r] { 1 } else { len };
                    // What is updated in place has been read before.
                    if let Some(source) = operands.load(*l)
                        && !matches!(places[r], Place::Array(_) | Place::Rows(_))
                    {
                        self.loads[*l].fill(source, block, target.range(0, len));
                    }
                }
                _ => {
                    let previous = |register: Register| self.read(operands, piece, places[register], register, len);
                    if let Some((joined, home, mut through)) = joined {
                        let out = target.range(0, len).typed();
                        joined.run(previous, through.slice_mut().range(0, len).typed(), out, &ahead);
                        memory[home] = through;
                        continue;
                    }
                    if let Some(chain) = self.chains.of(r) {
                        chain.run(previous, target.range(0, len).typed(), &ahead);
                        continue;
                    }
                    self.compute(instruction, *dtype, operands, block, previous, target.range(0, len))?;
                }
            }
            if *dtype == DType::F16 && !is_exact(instruction) {
                loops::round_to_f16(target.range(0, len).typed());
            }
        }
        for &(register, output) in &steps.copied {
            let source = self.register(operands, scratch, register, block);
            loops::copy(source, outs[output].range(0, len));
        }
        Ok(())
    }

    /// Computes a register from earlier ones, which `previous` gives.
    #[inline(always)]
    fn compute<'a>(
        &self,
        instruction: &Instruction,
        dtype: DType,
        operands: &Operands,
        block: Block,
        previous: impl Fn(Register) -> Operand<'a>,
        mut out: SliceMut<'a>,
    ) -> Result<()> {
        match instruction {
            Instruction::Scalar(slot) => fill(out, operands.scalars[*slot]),
            Instruction::Const(number) => fill(out, *number),
            Instruction::Iota(axis) => iota(&self.space, *axis, block.start, out),
            Instruction::Random(slot) => random(operands.scalars[*slot].to_i64() as u64, block.start, out),
            Instruction::Unary(op, x) if is_function(*op) && dtype.computed() == DType::F32 => {
                function(*op, previous(*x), out.typed());
            }
            Instruction::Unary(op, x) => op.dispatch(UnaryLoop { x: &previous(*x).values, out: &mut out }),
            Instruction::Binary(op, a, b) => {
                op.dispatch(BinaryLoop { a: &previous(*a), b: &previous(*b), out: &mut out });
            }
            Instruction::Compare(op, a, b) => {
                op.dispatch(CompareLoop { a: &previous(*a), b: &previous(*b), out: out.typed() });
            }
            Instruction::Select(c, t, o) => {
                loops::select(previous(*c).values.typed(), previous(*t).values, previous(*o).values, out)
            }
            Instruction::Cast(x) if dtype == DType::F16 => loops::cast_to_f16(previous(*x).values, out),
            Instruction::Cast(x) => loops::cast(previous(*x).values, out),
            Instruction::Gather { load, axis, index } => {
                let source = operands.load(*load).expect("a gathered buffer is never updated in place");
                let index = match self.instructions[*index].0 {
                    Instruction::Load(l) if self.row_indices[*index] => Index::Array {
                        values: operands.load(l).expect("an index is never updated in place"),
                        view: &self.loads[l].source.view,
                    },
                    _ => Index::Register { values: previous(*index).values, is_of_rows: self.of_rows[*index] },
                };
                let view = &self.loads[*load].source.view;
                let gather = Gather { view, axis: *axis, index, space: &self.space };
                return from_memory(source, out, |out| gather.fill(source, block.start, out));
            }
            Instruction::Index { index, axis, extent } => {
                let values = previous(*index).values;
                for index in indices(values) {
                    position(index, *axis, *extent)?;
                }
                with_slice!(SliceMut, out, out => out.copy_from_slice(values.typed()));
            }
            Instruction::Load(_) | Instruction::Accumulator | Instruction::Reduce(..) => {
                return Err(Error::Backend(format!("a {dtype} value that the kernel's family does not give")));
            }
        }
        Ok(())
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
