//! Row programs: reductions along rows, with maps before, between and after them. Rows are taken in pieces of fixed size,
//! whose results are combined in a fixed order, so that bits do not depend on the number of threads.
//!
//! A kernel's expression is taken apart: what differs along a row is evaluated for blocks of elements (`elements`), what
//! does not once for each row (`per_row`). A pass walks along the rows once; what it reduces is known to the next one.

use crate::block::{BLOCK, Block, Operands, Program, Source};
use crate::fold::{Folding, folding};
use crate::loops;
use crate::parallel;
use crate::slice::{Slice, SliceMut};
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{Expression, Instruction, Kernel, Register};
use gradus_ir::{DType, Data, Number, Result, Shape, View, ViewAxis};
use std::collections::HashMap;
use std::ops::Range;

/// Elements per task.
const TASK: usize = 32 * BLOCK;

/// A row program made ready.
#[derive(Debug)]
pub(crate) struct RowProgram {
    /// How many rows there are.
    rows: usize,
    /// Elements per row.
    row_len: usize,
    /// Whether the space of `elements` counts rows last: neighbours in memory then belong to different rows.
    across: bool,
    /// What is computed for each element; its outputs are those with an element for each.
    elements: Program,
    /// What is computed for each row; output `i` is value `computed[i]`.
    per_row: Program,
    computed: Vec<usize>,
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
    /// Registers of `per_row` to evaluate before the walk.
    per_row: Vec<bool>,
    /// Registers of `elements` to evaluate.
    elements: Vec<bool>,
    /// The same without those of earlier passes, where all elements are still at hand.
    new_elements: Vec<bool>,
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
struct Walk {
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
        let at_once = match self.across {
            true => self.rows.min(BLOCK),
            false => (BLOCK / self.row_len.max(1)).clamp(1, BLOCK),
        };
        let mut outs: Vec<SliceMut<'_>> = outs.iter_mut().map(SliceMut::of).collect();
        if at_once * self.row_len > TASK {
            let mut values = self.new_values(at_once);
            return (0..self.rows).step_by(at_once).try_for_each(|first_row| {
                let rows = at_once.min(self.rows - first_row);
                self.run_long(operands, &mut values, first_row, rows, &mut self.part(&mut outs, first_row, rows))
            });
        }
        let rows_per_task = (TASK / (at_once * self.row_len).max(1)).clamp(1, TASK) * at_once;
        let mut tasks: Vec<Vec<SliceMut<'_>>> = (0..self.rows.div_ceil(rows_per_task)).map(|_| Vec::new()).collect();
        for (out, value) in outs.into_iter().zip(&self.outputs) {
            let size = rows_per_task * self.elements_per_row(*value);
            let mut chunks = out.chunks(size.max(1)).into_iter();
            tasks.iter_mut().for_each(|task| task.push(chunks.next().unwrap_or_else(SliceMut::empty)));
        }
        let run = |(task, mut outs): (usize, Vec<SliceMut<'_>>)| {
            let first = task * rows_per_task;
            let last = self.rows.min(first + rows_per_task);
            let mut values = self.new_values(at_once);
            let elements = (last - first) * self.row_len;
            let mut scratch =
                [self.per_row.scratch(operands.scalars, at_once), self.elements.scratch(operands.scalars, elements)];
            let mut folds = self.passes.iter().map(Pass::folds).collect::<Result<Vec<_>>>()?;
            for at in (first..last).step_by(at_once) {
                let rows = at_once.min(last - at);
                let mut outs = self.part(&mut outs, at - first, rows);
                let walk = Walk { first_row: at, rows, elements: 0..self.row_len };
                // What an earlier pass has computed is still there if one block holds all elements.
                let is_one_block = !self.across && rows * self.row_len <= BLOCK;
                for (pass, folds) in self.passes.iter().zip(&mut folds) {
                    self.compute_values(pass, operands, &mut scratch[0], &mut values, &walk)?;
                    let mask = if is_one_block { &pass.new_elements } else { &pass.elements };
                    self.walk(pass, mask, operands, &values, &mut scratch[1], &walk, folds, &mut outs)?;
                    pass.keep(folds, &mut values, rows);
                }
                self.store_values(&values, rows, &mut outs);
            }
            Ok(())
        };
        parallel::map(tasks.into_iter().enumerate().collect(), self.rows * self.row_len, run).map(|_| ())
    }

    /// A few long rows: each walk is cut into tasks.
    fn run_long(
        &self,
        operands: &Operands,
        values: &mut [Data],
        first_row: usize,
        rows: usize,
        outs: &mut [SliceMut<'_>],
    ) -> Result<()> {
        let segment = (TASK / rows).max(1);
        let mut row_scratch = self.per_row.scratch(operands.scalars, rows);
        for pass in &self.passes {
            let whole = Walk { first_row, rows, elements: 0..self.row_len };
            self.compute_values(pass, operands, &mut row_scratch, values, &whole)?;
            let starts: Vec<usize> = (0..self.row_len).step_by(segment).collect();
            let mut tasks: Vec<(usize, Vec<SliceMut<'_>>)> = starts.iter().map(|&start| (start, Vec::new())).collect();
            for (out, value) in outs.iter_mut().zip(&self.outputs) {
                let len = out.len();
                let whole = out.range(0, len);
                let mut chunks = if value.is_none() { whole.chunks(segment) } else { Vec::new() }.into_iter();
                tasks.iter_mut().for_each(|(_, task)| task.push(chunks.next().unwrap_or_else(SliceMut::empty)));
            }
            let values_now: &[Data] = values;
            let parts = parallel::map(tasks, rows * self.row_len, |(start, mut outs): (usize, Vec<SliceMut<'_>>)| {
                let walk = Walk { first_row, rows, elements: start..self.row_len.min(start + segment) };
                let (mut folds, mut scratch) = (pass.folds()?, self.elements.scratch(operands.scalars, BLOCK));
                self.walk(pass, &pass.elements, operands, values_now, &mut scratch, &walk, &mut folds, &mut outs)?;
                Ok(folds)
            })?;
            let mut folds = pass.folds()?;
            folds.iter_mut().for_each(|fold| fold.reset(rows));
            for part in &parts {
                folds.iter_mut().zip(part).for_each(|(fold, later)| fold.merge(&**later));
            }
            pass.keep(&folds, values, rows);
        }
        self.store_values(values, rows, outs);
        Ok(())
    }

    /// The part of the outputs that belongs to some rows.
    fn part<'o>(&self, outs: &'o mut [SliceMut<'_>], first_row: usize, rows: usize) -> Vec<SliceMut<'o>> {
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

    /// The kernel's arrays, and after them the values per row.
    fn with_values<'a>(&self, operands: &Operands<'a>, values: &'a [Data]) -> Operands<'a> {
        let mut all = operands.clone();
        all.loads.extend(values.iter().map(|value| Some(Slice::of(value))));
        all
    }

    /// Computes what there is one of for each row and what a pass needs.
    fn compute_values(
        &self,
        pass: &Pass,
        operands: &Operands,
        scratch: &mut [Data],
        values: &mut [Data],
        walk: &Walk,
    ) -> Result<()> {
        if !pass.per_row.contains(&true) {
            return Ok(());
        }
        let mut computed: Vec<Data> =
            self.computed.iter().map(|&value| std::mem::replace(&mut values[value], Data::Bool(Vec::new()))).collect();
        let block = Block { start: walk.first_row, len: walk.rows, base: walk.first_row };
        let result = {
            let all = self.with_values(operands, values);
            let mut outs: Vec<SliceMut<'_>> = computed.iter_mut().map(SliceMut::of).collect();
            self.per_row.evaluate(&all, scratch, block, Some(&pass.per_row), &mut outs)
        };
        for (&value, data) in self.computed.iter().zip(computed) {
            values[value] = data;
        }
        result
    }

    /// Walks along some rows: evaluates elements block by block, stores what is to be stored, and folds the rest.
    #[allow(clippy::too_many_arguments)]
    fn walk(
        &self,
        pass: &Pass,
        mask: &[bool],
        operands: &Operands,
        values: &[Data],
        scratch: &mut [Data],
        walk: &Walk,
        folds: &mut [Box<dyn Folding>],
        outs: &mut [SliceMut<'_>],
    ) -> Result<()> {
        folds.iter_mut().for_each(|fold| fold.reset(walk.rows));
        if pass.reductions.is_empty() && !mask.contains(&true) {
            return Ok(());
        }
        let all = self.with_values(operands, values);
        let Walk { first_row, rows, ref elements } = *walk;
        // Elements of each row in a block.
        let depth = match (self.across, rows == self.rows) {
            (true, true) => (BLOCK / rows).max(1),
            (true, false) => 1,
            (false, _) => BLOCK,
        };
        for first in elements.clone().step_by(depth) {
            let count = depth.min(elements.end - first);
            let (start, base) = match self.across {
                true => (first * self.rows + first_row, first_row),
                false => (first_row * self.row_len + first, first_row * self.row_len),
            };
            let block = Block { start, len: rows * count, base };
            let offset = (first - elements.start) * if self.across { 0 } else { 1 };
            let mut outs: Vec<SliceMut<'_>> = outs
                .iter_mut()
                .zip(&self.outputs)
                .filter(|(_, value)| value.is_none())
                .map(|(out, _)| out.range(offset, block.len))
                .collect();
            self.elements.evaluate(&all, scratch, block, Some(mask), &mut outs)?;
            for (reduction, fold) in pass.reductions.iter().zip(&mut *folds) {
                let elements = self.elements.register(&all, scratch, reduction.register, block);
                match self.across {
                    true => fold.across(elements, first),
                    false => fold.along(elements, count, first),
                }
            }
        }
        Ok(())
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

impl Pass {
    fn folds(&self) -> Result<Vec<Box<dyn Folding>>> {
        self.reductions.iter().map(|reduction| folding(reduction.op, reduction.dtype)).collect()
    }

    /// Hands what was folded over to later passes.
    fn keep(&self, folds: &[Box<dyn Folding>], values: &mut [Data], rows: usize) {
        for (reduction, fold) in self.reductions.iter().zip(folds) {
            fold.finish(SliceMut::of(&mut values[reduction.value]).range(0, rows));
        }
    }
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
            is_per_row: kernel.expression.per_row(&kernel.loads, split),
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
        let computed: Vec<usize> = (0..self.values.len()).filter(|&v| !is_reduction(&self.values[v])).collect();
        let row_outputs: Vec<Register> = computed.iter().map(|&value| self.row_places[&self.values[value]]).collect();
        let element_stores: Vec<Register> =
            kernel.outputs.iter().filter(|store| !store.per_row).map(|store| store.register).collect();
        let element_outputs: Vec<Register> = element_stores.iter().map(|r| self.element_places[r]).collect();

        let across = element_stores.is_empty() && self.neighbours_are_in_other_rows();
        let order: Vec<usize> = match across {
            true => (self.split..kernel.space.len()).chain(0..self.split).collect(),
            false => (0..kernel.space.len()).collect(),
        };
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
        let passes = self.passes(&computed);
        let reduced: Vec<Register> = passes.iter().flat_map(|pass| &pass.reductions).map(|r| r.register).collect();
        RowProgram {
            rows: row_space.numel(),
            row_len: kernel.space[self.split..].iter().product(),
            across,
            elements: Program::new(&space, element_loads, &self.elements, &element_outputs, &reduced),
            per_row: Program::new(&row_space, row_loads, &self.per_row, &row_outputs, &[]),
            computed,
            passes,
            values: self.values.iter().map(|&register| kernel.expression.dtype(register)).collect(),
            outputs,
            in_place: (kernel.loads.iter().enumerate())
                .filter_map(|(i, load)| Some((i, kernel.outputs.iter().position(|s| s.buffer == load.buffer)?)))
                .collect(),
        }
    }

    /// What is done in each pass.
    fn passes(&self, computed: &[usize]) -> Vec<Pass> {
        let instructions = &self.kernel.expression.instructions;
        let count = self.depth.iter().copied().max().unwrap_or(0) + 1;
        let mut passes = Vec::with_capacity(count);
        let (mut rows_before, mut elements_before) =
            (vec![false; self.per_row.instructions.len()], vec![false; self.elements.instructions.len()]);
        let without = |mask: &[bool], before: &[bool]| -> Vec<bool> {
            mask.iter().zip(before).map(|(&now, &before)| now && !before).collect()
        };
        for pass in 0..count {
            let filled = computed.iter().map(|&value| self.values[value]).filter(|&r| self.depth[r] == pass);
            let rows = self.per_row.needed(filled.map(|r| self.row_places[&r]));
            let reductions: Vec<Reduction> = (0..instructions.len())
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
                .collect();
            let stored = self.kernel.outputs.iter().filter(|s| !s.per_row && self.depth[s.register] == pass);
            let stored = stored.map(|store| self.element_places[&store.register]);
            let elements = self.elements.needed(reductions.iter().map(|r| r.register).chain(stored));
            passes.push(Pass {
                per_row: without(&rows, &rows_before),
                new_elements: without(&elements, &elements_before),
                elements: elements.clone(),
                reductions,
            });
            rows_before.iter_mut().zip(rows).for_each(|(before, now)| *before |= now);
            elements_before.iter_mut().zip(elements).for_each(|(before, now)| *before |= now);
        }
        passes
    }

    /// Whether most loads walk faster from row to row than along a row.
    fn neighbours_are_in_other_rows(&self) -> bool {
        let Kernel { space, loads, expression, .. } = self.kernel;
        let last = |range: Range<usize>| range.rev().find(|&axis| space[axis] > 1);
        let (Some(outer), Some(inner)) = (last(0..self.split), last(self.split..space.len())) else {
            return false;
        };
        // Reordering the space would change what these instructions mean.
        let fixed =
            |i: &Instruction| matches!(i, Instruction::Iota(_) | Instruction::Random(_) | Instruction::Gather { .. });
        if expression.instructions.iter().any(|(i, _)| fixed(i)) {
            return false;
        }
        let votes = loads.iter().map(|l| {
            let stride = |axis: usize| l.view.axes[axis].stride.unsigned_abs();
            match (stride(outer), stride(inner)) {
                (o, i) if o != 0 && (i == 0 || o < i) => 1,
                (o, i) if o == i => 0,
                _ => -1,
            }
        });
        votes.sum::<i32>() > 0
    }
}
