//! Row programs: reductions along rows, with maps before, between and after them. Rows are taken in pieces of fixed size,
//! whose results are combined in a fixed order, so that bits do not depend on the number of threads.
//!
//! A kernel's expression is taken apart: what differs along a row is evaluated for blocks of elements (`elements`), what
//! does not once for each row (`per_row`). A pass walks along the rows once; what it reduces is known to the next one.

use crate::ahead::Ahead;
use crate::block::{BLOCK, BLOCK_OF_ROWS, Block, Outs, Program, Scratch, Steps};
use crate::block::{Operands, Source};
use crate::fold::{Folding, folding};
use crate::loops;
use crate::parallel;
use crate::slice::{Slice, SliceMut};
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{Expression, Instruction, Kernel, Register};
use gradus_ir::{DType, Data, Number, Result, Shape, View, ViewAxis};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::ops::Range;

/// Elements per task.
const TASK: usize = 8 * BLOCK;

/// So many parts are tasks enough, if their rows are not much longer than a task.
const MANY_PARTS: usize = 8;

/// Elements of which outputs are asked for before they are written. Fewer are in some cache already.
const ASKED: usize = 1 << 21;

/// Sums of shorter rows are found by folding their elements.
const SHORTEST_SUM: usize = 64;

/// A row program made ready.
#[derive(Debug)]
pub(crate) struct RowProgram {
    /// How many rows there are.
    rows: usize,
    /// Elements per row.
    row_len: usize,
    /// How many rows lie abreast: the space of `elements` counts these last, since neighbours in memory belong to them.
    abreast: usize,
    /// What is computed for each element; its outputs are those with an element for each.
    elements: Program,
    /// What is computed for each row.
    per_row: Program,
    passes: Vec<Pass>,
    /// The dtypes of the values per row: what is reduced, and what is computed from it.
    values: Vec<DType>,
    /// For each output of the kernel, the value that it is, if it has one element per row.
    outputs: Vec<Option<usize>>,
    /// The loads that are updated in place, and by which output.
    in_place: Vec<(usize, usize)>,
}

/// What is computed for each row, and then a walk along the rows.
#[derive(Debug, Default)]
struct Pass {
    /// What is evaluated per row before the walk, and which of these registers are which values.
    per_row: Steps,
    computed: Vec<(Register, usize)>,
    /// What is evaluated for each element.
    elements: Steps,
    /// The same without what earlier passes have evaluated, where all elements are still at hand.
    new_elements: Steps,
    reductions: Vec<Reduction>,
}

/// A register that is reduced to a value.
#[derive(Debug)]
struct Reduction {
    op: ReduceOp,
    dtype: DType,
    register: Register,
    value: usize,
}

/// Some rows, and a part of each of them.
#[derive(Clone)]
struct Part {
    first_row: usize,
    rows: usize,
    elements: Range<usize>,
}

impl RowProgram {
    /// Prepares a kernel whose `axes` trailing axes are a row.
    pub(crate) fn new(kernel: &Kernel, axes: usize) -> RowProgram {
        Splitter::new(kernel, kernel.space.len() - axes).program()
    }

    /// The loads that are updated in place, and by which output.
    pub(crate) fn in_place(&self) -> &[(usize, usize)] {
        &self.in_place
    }

    /// Runs it; `outs` are the kernel's outputs.
    pub(crate) fn run(&self, operands: &Operands, outs: &mut [Data]) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let at_once = self.rows_at_once();
        let mut outs: Outs<'_> = outs.iter_mut().map(SliceMut::of).collect();
        let few = self.rows.div_ceil(at_once) < MANY_PARTS;
        let task = TASK.max(self.block());
        if at_once * self.row_len > task && (few || self.row_len > MANY_PARTS * TASK) {
            let mut values = self.new_values(at_once);
            return self.parts(0..self.rows, at_once).try_for_each(|(first_row, rows)| {
                self.run_long(operands, &mut values, first_row, rows, &mut self.part(&mut outs, first_row, rows))
            });
        }
        let task = task.max(self.rows * self.row_len / (4 * parallel::tasks()));
        let rows_per_task = (task / (at_once * self.row_len).max(1)).clamp(1, TASK) * at_once;
        let run = |(task, mut outs): (usize, Outs<'_>)| {
            let first = task * rows_per_task;
            let last = self.rows.min(first + rows_per_task);
            let mut walker = Walker::new(self, operands, self.new_values(at_once))?;
            for (at, rows) in self.parts(first..last, at_once) {
                let mut outs = self.part(&mut outs, at - first, rows);
                walker.all_passes(&Part { first_row: at, rows, elements: 0..self.row_len }, &mut outs)?;
                self.store_values(&walker.values, rows, &mut outs);
            }
            Ok(())
        };
        if self.rows <= rows_per_task {
            return run((0, outs));
        }
        let mut tasks: Vec<Outs<'_>> = (0..self.rows.div_ceil(rows_per_task)).map(|_| Outs::new()).collect();
        for (out, value) in outs.into_iter().zip(&self.outputs) {
            let size = rows_per_task * self.elements_per_row(*value);
            let mut chunks = out.chunks(size.max(1)).into_iter();
            tasks.iter_mut().for_each(|task| task.push(chunks.next().unwrap_or_else(SliceMut::empty)));
        }
        parallel::map(tasks.into_iter().enumerate().collect(), self.rows * self.row_len, run).map(|_| ())
    }

    /// Elements of a block of whole rows, or of rows abreast.
    fn block(&self) -> usize {
        let elements = self.rows * self.row_len;
        if self.abreast > 1 {
            // Whatever the number of threads: where a block ends, sums are rounded.
            return self.elements.fixed_long_block(elements).unwrap_or(BLOCK);
        }
        let long = || self.elements.long_block(elements, Some(self.row_len));
        let long = if self.has_whole_rows() { long() } else { None };
        long.unwrap_or(BLOCK_OF_ROWS)
    }

    /// Whether a block always holds whole rows, one after the other.
    fn has_whole_rows(&self) -> bool {
        self.abreast == 1 && self.row_len <= BLOCK_OF_ROWS
    }

    /// How many rows are taken at once: all that lie abreast, or a fair share of them, or several times so many; no more than a
    /// register has room for what there is one of for each.
    fn rows_at_once(&self) -> usize {
        let whole = self.block() / (self.abreast * self.row_len).max(1);
        match whole {
            0 => self.abreast.div_ceil(self.abreast.div_ceil(BLOCK)),
            _ => (whole * self.abreast).min(self.rows).min(BLOCK_OF_ROWS),
        }
    }

    /// Cuts rows into parts, each its first row and how many there are. None has some of the rows abreast and others.
    fn parts(&self, rows: Range<usize>, at_once: usize) -> impl Iterator<Item = (usize, usize)> {
        let Range { start: mut first, end } = rows;
        std::iter::from_fn(move || {
            let rows = at_once.min(end - first).min(at_once.max(self.abreast) - first % self.abreast);
            first += rows;
            (rows > 0).then(|| (first - rows, rows))
        })
    }

    /// Elements of each row in a block.
    fn depth(&self, rows: usize) -> usize {
        match rows {
            _ if rows < self.abreast => 1,
            _ if self.has_whole_rows() => self.row_len.max(1),
            _ if self.abreast > 1 => (self.block() / rows).max(1),
            _ => (BLOCK_OF_ROWS / rows).max(1),
        }
    }

    /// A few long rows: each walk is cut into tasks.
    fn run_long(
        &self,
        operands: &Operands,
        values: &mut Vec<Data>,
        first_row: usize,
        rows: usize,
        outs: &mut [SliceMut<'_>],
    ) -> Result<()> {
        let segment = (TASK / rows).max(1);
        let whole = Part { first_row, rows, elements: 0..self.row_len };
        let mut per_row = Walker::new(self, operands, std::mem::take(values))?;
        for (number, pass) in self.passes.iter().enumerate() {
            per_row.compute_values(pass, &whole)?;
            let starts: Vec<usize> = (0..self.row_len).step_by(segment).collect();
            let mut tasks: Vec<(usize, Outs<'_>)> = starts.iter().map(|&start| (start, Outs::new())).collect();
            for (out, value) in outs.iter_mut().zip(&self.outputs) {
                let len = out.len();
                let whole = out.range(0, len);
                let mut chunks = if value.is_none() { whole.chunks(segment) } else { Vec::new() }.into_iter();
                tasks.iter_mut().for_each(|(_, task)| task.push(chunks.next().unwrap_or_else(SliceMut::empty)));
            }
            let values: &[Data] = &per_row.values;
            let parts = parallel::map(tasks, rows * self.row_len, |(start, mut outs): (usize, Outs<'_>)| {
                let elements = start..self.row_len.min(start + segment);
                let mut walker = Walker::new(self, operands, values.to_vec())?;
                walker.walk(number, &pass.elements, &Part { elements, ..whole.clone() }, &mut outs)?;
                Ok(walker.folds.swap_remove(number))
            })?;
            let folds = &mut per_row.folds[number];
            folds.iter_mut().for_each(|fold| fold.reset(rows));
            for part in &parts {
                folds.iter_mut().zip(part).for_each(|(fold, later)| fold.merge(&**later));
            }
            per_row.keep(number, rows);
        }
        self.store_values(&per_row.values, rows, outs);
        *values = per_row.values;
        Ok(())
    }

    /// The part of the outputs that belongs to some rows.
    fn part<'o>(&self, outs: &'o mut [SliceMut<'_>], first_row: usize, rows: usize) -> Outs<'o> {
        let part = |(out, value): (&'o mut SliceMut<'_>, &Option<usize>)| {
            let per_row = self.elements_per_row(*value);
            out.range(first_row * per_row, rows * per_row)
        };
        outs.iter_mut().zip(&self.outputs).map(part).collect()
    }

    fn elements_per_row(&self, value: Option<usize>) -> usize {
        if value.is_some() { 1 } else { self.row_len }
    }

    fn new_values(&self, rows: usize) -> Vec<Data> {
        let zeros = |dtype: &DType| loops::filled(*dtype, Number::Int(0), rows);
        self.values.iter().map(zeros).collect()
    }

    fn store_values(&self, values: &[Data], rows: usize, outs: &mut [SliceMut<'_>]) {
        for (out, value) in outs.iter_mut().zip(&self.outputs) {
            if let Some(value) = value {
                let source = Slice::of(&values[*value]).range(0, rows);
                loops::copy(source, out.range(0, rows));
            }
        }
    }
}

/// The folds of a pass.
type Folds = SmallVec<[Box<dyn Folding>; 2]>;

/// What walks along rows: the program's registers, and what is known of the rows so far.
struct Walker<'a> {
    program: &'a RowProgram,
    operands: Operands<'a>,
    /// The values per row.
    values: Vec<Data>,
    per_row: Scratch,
    elements: Scratch,
    /// For each pass.
    folds: SmallVec<[Folds; 4]>,
    /// What rows of a block sum up to.
    sums: Vec<f64>,
}

impl<'a> Walker<'a> {
    fn new(program: &'a RowProgram, operands: &Operands<'a>, values: Vec<Data>) -> Result<Walker<'a>> {
        Ok(Walker {
            program,
            operands: *operands,
            values,
            per_row: program.per_row.scratch(operands.scalars),
            elements: program.elements.scratch(operands.scalars),
            folds: program.passes.iter().map(Pass::folds).collect::<Result<_>>()?,
            sums: Vec::new(),
        })
    }

    /// Everything that is computed of some whole rows.
    fn all_passes(&mut self, part: &Part, outs: &mut [SliceMut<'_>]) -> Result<()> {
        let program = self.program;
        // What an earlier pass has computed is still there if one block holds all elements.
        let is_one_block = program.row_len <= program.depth(part.rows);
        for (number, pass) in program.passes.iter().enumerate() {
            self.compute_values(pass, part)?;
            let steps = if is_one_block { &pass.new_elements } else { &pass.elements };
            self.walk(number, steps, part, outs)?;
            self.keep(number, part.rows);
        }
        Ok(())
    }

    /// Computes what there is one of for each row and what a pass needs.
    fn compute_values(&mut self, pass: &Pass, part: &Part) -> Result<()> {
        if pass.per_row.is_empty() && pass.computed.is_empty() {
            return Ok(());
        }
        let Walker { program, operands, values, per_row, .. } = self;
        let block = Block { start: part.first_row, len: part.rows, base: part.first_row };
        let operands = Operands { computed: values, ..*operands };
        program.per_row.take(&pass.per_row, &operands, per_row, block, &mut [])?;
        for &(register, value) in &pass.computed {
            let mut target = std::mem::replace(&mut values[value], Data::Bool(Vec::new()));
            let operands = Operands { computed: values, ..self.operands };
            let source = program.per_row.register(&operands, per_row, register, block);
            loops::copy(source, SliceMut::of(&mut target).range(0, part.rows));
            values[value] = target;
        }
        Ok(())
    }

    /// Walks along some rows: evaluates elements block by block, stores what is to be stored, and folds the rest.
    fn walk(&mut self, number: usize, steps: &Steps, part: &Part, outs: &mut [SliceMut<'_>]) -> Result<()> {
        let program = self.program;
        let (pass, folds) = (&program.passes[number], &mut self.folds[number]);
        folds.iter_mut().for_each(|fold| fold.reset(part.rows));
        if pass.reductions.is_empty() && steps.is_empty() {
            return Ok(());
        }
        let operands = Operands { computed: &self.values, ..self.operands };
        let Part { first_row, rows, ref elements } = *part;
        let abreast = program.abreast;
        let asks = steps.ask_outputs && program.rows * program.row_len >= ASKED;
        let base = first_row / abreast * abreast * program.row_len + first_row % abreast;
        for first in elements.clone().step_by(program.depth(rows)) {
            let count = program.depth(rows).min(elements.end - first);
            let block = Block { start: base + first * abreast, len: rows * count, base };
            // Where there are outputs with an element for each, no rows lie abreast.
            let offset = first - elements.start;
            let mut parts = Outs::new();
            if steps.use_outputs || asks {
                let elements = outs.iter_mut().zip(&program.outputs).filter(|(_, value)| value.is_none());
                parts.extend(elements.map(|(out, _)| out.range(offset, block.len)));
            }
            program.elements.take(steps, &operands, &mut self.elements, block, &mut parts)?;
            let mut ahead = Ahead::default();
            if asks && steps.asking.is_none() {
                parts.iter().for_each(|out| ahead.push_written(out.as_slice()));
            }
            for (reduction, fold) in pass.reductions.iter().zip(&mut *folds) {
                if program.elements.is_summed(reduction.register) {
                    self.sums.resize(rows, 0.0);
                    program.elements.sums(&operands, &self.elements, reduction.register, block, &mut self.sums, &ahead);
                    ahead = Ahead::default();
                    fold.add_sums(&self.sums);
                    continue;
                }
                let elements = program.elements.register(&operands, &self.elements, reduction.register, block);
                fold.add(elements, count, abreast.min(rows), first);
            }
        }
        Ok(())
    }

    /// Hands what a pass has folded over to later ones.
    fn keep(&mut self, number: usize, rows: usize) {
        for (reduction, fold) in self.program.passes[number].reductions.iter().zip(&self.folds[number]) {
            fold.finish(SliceMut::of(&mut self.values[reduction.value]).range(0, rows));
        }
    }
}

impl Pass {
    fn folds(&self) -> Result<Folds> {
        self.reductions.iter().map(|reduction| folding(reduction.op, reduction.dtype)).collect()
    }
}

/// The registers that are summed up and nothing else, if sums may be found by chains, and the others that are reduced.
fn asked(reductions: &[Vec<Reduction>], has_sums: bool) -> (Vec<Register>, Vec<Register>) {
    let is_sum = |reduction: &Reduction| reduction.op == ReduceOp::Sum && reduction.dtype == DType::F32;
    let of = |r: Register| reductions.iter().flatten().filter(move |reduction| reduction.register == r);
    let mut registers: Vec<Register> = reductions.iter().flatten().map(|reduction| reduction.register).collect();
    registers.sort_unstable();
    registers.dedup();
    registers.into_iter().partition(|&r| has_sums && of(r).all(is_sum))
}

/// Takes a kernel's expression apart.
struct Splitter<'k> {
    kernel: &'k Kernel,
    split: usize,
    is_per_row: Vec<bool>,
    depth: Vec<usize>,
    elements: Expression,
    per_row: Expression,
    /// Where the kernel's registers are in `elements` and in `per_row`.
    element_places: HashMap<Register, Register>,
    row_places: HashMap<Register, Register>,
    /// The registers whose values per row are kept.
    values: Vec<Register>,
}

impl<'k> Splitter<'k> {
    fn new(kernel: &'k Kernel, split: usize) -> Splitter<'k> {
        Splitter {
            kernel,
            split,
            is_per_row: kernel.expression.per_row(|load| &kernel.loads[load].view, split),
            depth: kernel.expression.passes(),
            elements: Expression::default(),
            per_row: Expression::default(),
            element_places: HashMap::new(),
            row_places: HashMap::new(),
            values: Vec::new(),
        }
    }

    fn instruction(&self, register: Register) -> (Instruction, DType) {
        self.kernel.expression.instructions[register].clone()
    }

    /// The value that a register is, one per row.
    fn value(&mut self, register: Register) -> usize {
        self.values.iter().position(|&other| other == register).unwrap_or_else(|| {
            self.values.push(register);
            self.values.len() - 1
        })
    }

    /// A register among those that are evaluated for each element.
    fn element(&mut self, register: Register) -> Register {
        if let Some(&place) = self.element_places.get(&register) {
            return place;
        }
        let (instruction, dtype) = self.instruction(register);
        let is_source = matches!(instruction, Instruction::Load(_) | Instruction::Scalar(_) | Instruction::Const(_));
        let instruction = if self.is_per_row[register] && !is_source {
            self.row(register);
            Instruction::Load(self.kernel.loads.len() + self.value(register))
        } else {
            let operands: HashMap<Register, Register> =
                instruction.operands().into_iter().map(|operand| (operand, self.element(operand))).collect();
            instruction.renumbered(|load| load, |r| operands[&r])
        };
        let place = self.elements.push(instruction, dtype);
        self.element_places.insert(register, place);
        place
    }

    /// A register among those that are evaluated for each row.
    fn row(&mut self, register: Register) -> Register {
        if let Some(&place) = self.row_places.get(&register) {
            return place;
        }
        let (instruction, dtype) = self.instruction(register);
        let instruction = if let Instruction::Reduce(_, operand) = instruction {
            self.element(operand);
            Instruction::Load(self.kernel.loads.len() + self.value(register))
        } else {
            let operands: HashMap<Register, Register> =
                instruction.operands().into_iter().map(|operand| (operand, self.row(operand))).collect();
            instruction.renumbered(|load| load, |r| operands[&r])
        };
        let place = self.per_row.push(instruction, dtype);
        self.row_places.insert(register, place);
        place
    }

    fn program(mut self) -> RowProgram {
        let kernel = self.kernel;
        let outputs: Vec<Option<usize>> = kernel
            .outputs
            .iter()
            .map(|store| {
                if store.per_row {
                    self.row(store.register);
                    return Some(self.value(store.register));
                }
                self.element(store.register);
                None
            })
            .collect();
        let is_reduction = |r: &Register| matches!(kernel.expression.instructions[*r].0, Instruction::Reduce(..));
        let computed = (0..self.values.len()).filter(|&value| !is_reduction(&self.values[value]));
        let computed: Vec<(Register, usize)> =
            computed.map(|value| (self.row_places[&self.values[value]], value)).collect();
        let row_registers: Vec<Register> = computed.iter().map(|&(register, _)| register).collect();
        let element_stores: Vec<Register> =
            kernel.outputs.iter().filter(|store| !store.per_row).map(|store| store.register).collect();
        let element_outputs: Vec<Register> = element_stores.iter().map(|r| self.element_places[r]).collect();

        let abreast = if element_stores.is_empty() { self.axes_abreast() } else { self.split..self.split };
        let order: Vec<usize> =
            (0..abreast.start).chain(self.split..kernel.space.len()).chain(abreast.clone()).collect();
        let turned = |view: &View| View { axes: order.iter().map(|&a| view.axes[a]).collect(), offset: view.offset };
        let space: Shape = order.iter().map(|&axis| kernel.space[axis]).collect();
        let row_space = Shape::new(&kernel.space[..self.split]);
        let along_rows = {
            let mut view = View::contiguous(&row_space);
            let still = |&extent: &usize| ViewAxis { extent, stride: 0, guard: None };
            view.axes.extend(kernel.space[self.split..].iter().map(still));
            turned(&view)
        };
        let source = |view: View, local: bool| Source { view, local, output: None };
        let mut element_loads: Vec<Source> = kernel.loads.iter().map(|l| source(turned(&l.view), false)).collect();
        let mut row_loads: Vec<Source> = kernel
            .loads
            .iter()
            .map(|l| source(View { axes: l.view.axes[..self.split].into(), offset: l.view.offset }, false))
            .collect();
        for _ in &self.values {
            element_loads.push(source(along_rows.clone(), true));
            row_loads.push(source(View::contiguous(&row_space), true));
        }
        let count = self.depth.iter().copied().max().unwrap_or(0) + 1;
        let reductions: Vec<Vec<Reduction>> = (0..count).map(|pass| self.reductions(pass)).collect();
        let row_len: usize = kernel.space[self.split..].iter().product();
        let abreast: usize = kernel.space[abreast].iter().product();
        let (summed, reduced) = asked(&reductions, abreast == 1 && row_len >= SHORTEST_SUM);
        let mut elements = Program::new(&space, element_loads, &self.elements, &element_outputs, &reduced, &summed);
        let mut per_row = Program::new(&row_space, row_loads, &self.per_row, &[], &row_registers, &[]);
        let passes = self.passes(reductions, &computed, &elements, &per_row);
        // Where one block holds a row, later passes evaluate only some of these.
        elements.share_memory(passes.iter().map(|pass| &pass.elements));
        per_row.share_memory(passes.iter().map(|pass| &pass.per_row));
        RowProgram {
            rows: row_space.numel(),
            row_len,
            abreast,
            elements,
            per_row,
            passes,
            values: self.values.iter().map(|&register| kernel.expression.dtype(register)).collect(),
            outputs,
            in_place: (kernel.loads.iter().enumerate())
                .filter_map(|(i, load)| Some((i, kernel.outputs.iter().position(|s| s.buffer == load.buffer)?)))
                .collect(),
        }
    }

    /// What is reduced in a pass.
    fn reductions(&self, pass: usize) -> Vec<Reduction> {
        let instructions = &self.kernel.expression.instructions;
        (0..instructions.len())
            .filter(|&r| self.depth[r] == pass + 1 && self.row_places.contains_key(&r))
            .filter_map(|r| match instructions[r] {
                (Instruction::Reduce(op, operand), _) => Some(Reduction {
                    op,
                    dtype: self.kernel.expression.dtype(operand),
                    register: self.element_places[&operand],
                    value: self.values.iter().position(|&other| other == r)?,
                }),
                _ => None,
            })
            .collect()
    }

    /// What is done in each pass.
    fn passes(
        &self,
        reductions: Vec<Vec<Reduction>>,
        computed: &[(Register, usize)],
        elements: &Program,
        per_row: &Program,
    ) -> Vec<Pass> {
        let (mut rows_before, mut elements_before) =
            (vec![false; self.per_row.instructions.len()], vec![false; self.elements.instructions.len()]);
        let mut passes = Vec::with_capacity(reductions.len());
        for (pass, reductions) in reductions.into_iter().enumerate() {
            let filled = computed.iter().map(|&(_, value)| self.values[value]).filter(|&r| self.depth[r] == pass);
            let of_rows = self.per_row.needed(filled.map(|r| self.row_places[&r]));
            let stored = self.kernel.outputs.iter().filter(|s| !s.per_row && self.depth[s.register] == pass);
            let stored = stored.map(|store| self.element_places[&store.register]);
            let of_elements = self.elements.needed(reductions.iter().map(|r| r.register).chain(stored));
            let is_new_row = |r: Register| of_rows[r] && !rows_before[r];
            passes.push(Pass {
                per_row: per_row.steps(is_new_row),
                computed: computed.iter().copied().filter(|&(register, _)| is_new_row(register)).collect(),
                elements: elements.steps(|r| of_elements[r]).after(pass),
                new_elements: elements.steps(|r| of_elements[r] && !elements_before[r]).after(pass),
                reductions,
            });
            rows_before.iter_mut().zip(of_rows).for_each(|(before, now)| *before |= now);
            elements_before.iter_mut().zip(of_elements).for_each(|(before, now)| *before |= now);
        }
        // Where a block holds whole rows, what the last passes write to is asked for before.
        if let Some(writing) = passes.iter().position(|pass| pass.new_elements.use_outputs)
            && let Some(before) = writing.checked_sub(1)
        {
            passes[before].new_elements.ask_outputs = true;
        }
        passes
    }

    /// The last axes of the rows, as far as most loads walk faster along these than along a row.
    fn axes_abreast(&self) -> Range<usize> {
        let Kernel { space, loads, expression, .. } = self.kernel;
        // Reordering the space would change what these instructions mean.
        let fixed =
            |i: &Instruction| matches!(i, Instruction::Iota(_) | Instruction::Random(_) | Instruction::Gather { .. });
        let inner = (self.split..space.len()).rev().find(|&axis| space[axis] > 1);
        let Some(inner) = inner.filter(|_| !expression.instructions.iter().any(|(i, _)| fixed(i))) else {
            return self.split..self.split;
        };
        let is_abreast = |&axis: &usize| {
            let votes = loads.iter().map(|l| {
                let stride = |axis: usize| l.view.axes[axis].stride.unsigned_abs();
                match (stride(axis), stride(inner)) {
                    (o, i) if o != 0 && (i == 0 || o < i) => 1,
                    (o, i) if o == i => 0,
                    _ => -1,
                }
            });
            space[axis] == 1 || votes.sum::<i32>() > 0
        };
        let count = (0..self.split).rev().take_while(is_abreast).count();
        self.split - count..self.split
    }
}
