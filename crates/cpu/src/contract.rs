//! The general matrix product, with what is done to its operands before and to its sums after.

mod sections;

use crate::block::{BLOCK, Block, Outs, Program};
use crate::block::{Operands, Source};
use crate::dots::is_by_dots;
use crate::loops;
use crate::matrix::{Matrices, Matrix, Mode, f32_product, gemm_product, int_product, transposed};
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed};
use crate::winograd::Winograd;
use gradus_ir::plan::{Expression, Instruction, Kernel};
use gradus_ir::real::Int;
use gradus_ir::{DType, Data, Error, Number, Result, Shape, View, ViewAxis, f16};
use std::ops::Range;

/// Sums that are computed at once, where more is made of them: many, since each panel packs the other operand anew.
const PANEL: usize = 1 << 21;

/// Of these, how many are a task of what is made of them.
const TASK: usize = 4 * BLOCK;

/// Elements of a matrix that is packed.
const PACKED: usize = 1 << 19;

/// So many terms of a sum are enough: products of more are not faster.
const TERMS: usize = 256;

/// Sections that the terms of sums are cut into where there are few sums, and how many elements their results may have.
const SECTIONS: usize = 8;
const MOST_PARTIAL: usize = 1 << 21;

/// A product made ready: for each batch index an `m × k` matrix times a `k × n` one, or a sum of several such products, where
/// the summed axes have no single stride.
#[derive(Debug)]
pub(crate) struct Contraction {
    operands: [Operand; 2],
    dtype: DType,
    batch: Shape,
    /// Summed axes that are walked along outside of the products.
    outer: Shape,
    m: usize,
    n: usize,
    k: usize,
    /// What is made of the sums, unless they are the only output. They are its last load.
    epilogue: Option<Program>,
    /// The same as products of tiles, where that is faster.
    winograd: Option<Winograd>,
}

/// An operand: the matrices of its load, or those that are made of it.
#[derive(Debug)]
struct Operand {
    load: usize,
    made: Made,
    matrices: Matrices,
}

/// What is made of a load before it is multiplied.
#[derive(Debug)]
enum Made {
    /// Nothing: the matrices are read where they lie.
    Nothing,
    /// Numbers of f32, for a run, of these elements of f16.
    Widened(Range<usize>),
    /// So many elements for a run, which all batch indices share, by a program.
    Shared(Program, usize),
    /// A matrix, whenever it is multiplied, by a program.
    Packed(Program),
}

/// A part of the work: some terms of the sums of some rows of a batch index.
struct Part {
    index: usize,
    rows: Range<usize>,
    terms: Range<usize>,
}

/// The operands' views, of whose `contracted` summed axes the first `outer` are walked along outside of the products.
struct Cut {
    views: [View; 2],
    contracted: usize,
    outer: usize,
}

impl Cut {
    /// Fewer and larger products are better, but what must be packed should stay in the cache. Where sums of a product would be
    /// short, the last outer axis is cut in two, and as much of it as fits is summed inside.
    fn new(whole: [&View; 2], expressions: &[Expression; 2], batch: usize, contracted: usize) -> Cut {
        let uncut = |outer: usize| Cut { views: whole.map(View::clone), contracted, outer };
        let fits = |cut: &Cut| cut.packed(expressions, batch) <= PACKED;
        let uncut = (0..contracted).map(uncut).find(fits).unwrap_or_else(|| uncut(contracted.saturating_sub(1)));
        let outer = uncut.outer;
        if outer == 0 || uncut.terms() >= TERMS {
            return uncut;
        }
        let place = |view: &View| view.axes.len() - contracted + outer - 1;
        let extent = whole[0].axes[place(whole[0])].extent;
        let is_padded = whole.iter().any(|view| view.axes[place(view)].guard.is_some());
        let cut = |inside: usize| Cut {
            views: whole.map(|view| in_two(view, place(view), inside)),
            contracted: contracted + 1,
            outer,
        };
        let divisors = (2..extent).rev().filter(|&inside| !is_padded && extent.is_multiple_of(inside));
        divisors.map(cut).find(fits).unwrap_or(uncut)
    }

    /// The terms of each sum of a product.
    fn terms(&self) -> usize {
        let axes = &self.views[0].axes;
        axes[axes.len() - self.contracted + self.outer..].iter().map(|axis| axis.extent).product()
    }

    /// Elements of the largest matrix that is packed whenever it is multiplied.
    fn packed(&self, expressions: &[Expression; 2], batch: usize) -> usize {
        let packed = |side: usize| {
            let view = &self.views[side];
            let summed = view.axes.len() - self.contracted;
            let is_plain = Matrices::new(view, batch, self.contracted, self.outer).is_some();
            let matrix = view.axes[batch..summed].iter().chain(&view.axes[summed + self.outer..]);
            let is_made_before = is_plain && is_load(&expressions[side]) || is_shared(view, batch);
            if is_made_before { 0 } else { matrix.map(|axis| axis.extent).product() }
        };
        usize::max(packed(0), packed(1))
    }
}

/// A view with an axis cut in two, the second of which has so many elements.
fn in_two(view: &View, at: usize, inside: usize) -> View {
    let mut view = view.clone();
    let ViewAxis { extent, stride, guard } = view.axes[at];
    view.axes[at] = ViewAxis { extent: inside, stride, guard };
    view.axes.insert(at, ViewAxis { extent: extent / inside, stride: stride * inside as isize, guard });
    view
}

impl Contraction {
    /// Prepares a kernel with `batch` leading and `contracted` trailing axes. `sources` are its loads.
    pub(crate) fn new(
        kernel: &Kernel,
        batch: usize,
        contracted: usize,
        expressions: &[Expression; 2],
        sources: &[Source],
    ) -> Contraction {
        let whole = [0, 1].map(|side| Operand::view(&expressions[side], sources));
        let is_of_loads =
            expressions.iter().all(|e| matches!(e.instructions[..], [(Instruction::Load(_), DType::F32)]));
        let winograd = is_of_loads.then(|| Winograd::new(whole, batch, contracted)).flatten();
        let Cut { views, contracted, outer } = Cut::new(whole, expressions, batch, contracted);
        let shape = views[0].shape();
        let summed = shape.len() - contracted;
        let operand = |side: usize| {
            let mut sources = sources.to_vec();
            sources[Operand::load(&expressions[side])].view = views[side].clone();
            Operand::new(&expressions[side], &sources, batch, contracted, outer)
        };
        let numel = |side: usize, range: Range<usize>| views[side].axes[range].iter().map(|a| a.extent).product();
        let dtype = expressions[0].instructions.last().map_or(DType::F32, |(_, dtype)| *dtype);
        let is_sums = matches!(kernel.expression.instructions[..], [(Instruction::Accumulator, _)]);
        Contraction {
            operands: [operand(0), operand(1)],
            dtype,
            batch: Shape::new(&shape[..batch]),
            outer: Shape::new(&shape[summed..summed + outer]),
            m: numel(0, batch..summed),
            n: numel(1, batch..views[1].axes.len() - contracted),
            k: numel(0, summed + outer..shape.len()),
            epilogue: (!is_sums || kernel.outputs.len() != 1).then(|| epilogue(kernel, sources)),
            winograd,
        }
    }

    /// The bytes that a run takes for itself, beside what small products of each thread pack, transpose and add up.
    pub(crate) fn scratch(&self) -> usize {
        let (sections, sums) = (self.sections(), self.batch.numel() * self.m * self.n);
        let partial = if sections > 1 { sections * sums } else { 0 };
        let made = |operand: &Operand| match operand.made {
            Made::Nothing | Made::Packed(_) => 0,
            Made::Widened(Range { end, .. }) => end,
            Made::Shared(_, len) => len,
        };
        let made: usize = self.operands.iter().map(made).sum();
        let panel = if self.epilogue.is_some() { self.panel_rows() * self.n } else { 0 };
        let tiles = self.winograd.as_ref().map_or(0, Winograd::scratch);
        let strides = |side: usize| [self.operands[side].matrices.row, self.operands[side].matrices.column];
        let (rows, strides) = ([self.m, self.n], [strides(0), strides(1)]);
        let product = match self.dtype {
            DType::F32 if is_by_dots(rows, self.k, strides) => self.m * self.n,
            DType::F32 | DType::F64 => transposed(self.dtype.size(), rows, self.k, strides),
            _ => 0,
        };
        (partial + made + panel + product) * self.dtype.size() + tiles
    }

    /// Multiplies. `outs` are the kernel's outputs.
    pub(crate) fn run(&self, operands: &Operands, outs: &mut [Data]) -> Result<()> {
        let slice = |side: usize| {
            operands.loads[self.operands[side].load]
                .ok_or_else(|| Error::Backend("a matrix product over its own operand".into()))
        };
        let sides = [slice(0)?, slice(1)?];
        if let Some(winograd) = &self.winograd {
            return self.tiled(winograd, sides, operands, outs);
        }
        let made = self.make(sides, operands)?;
        let sides = [0, 1].map(|side| made[side].as_ref().map_or(sides[side], Slice::of));
        match self.dtype {
            DType::F32 => self.typed(sides, operands, outs, Rules { product: f32_product, sum: |a, b| a + b }),
            DType::F64 => self.typed(sides, operands, outs, Rules { product: gemm_product::<f64>, sum: |a, b| a + b }),
            DType::I32 => self.typed(sides, operands, outs, Rules { product: int_product::<i32>, sum: Int::add }),
            DType::U32 => self.typed(sides, operands, outs, Rules { product: int_product::<u32>, sum: Int::add }),
            DType::F16 => Err(Error::Backend("a product of f16 that a plan has not widened".into())),
            DType::Bool => Err(Error::DType { expected: "a number dtype", found: DType::Bool }),
        }
    }

    /// The arrays that take the place of loads in a run.
    fn make(&self, sides: [Slice<'_>; 2], operands: &Operands) -> Result<[Option<Data>; 2]> {
        let make = |side: usize| self.operands[side].make(sides[side], operands, self.dtype);
        Ok([make(0)?, make(1)?])
    }

    /// Products of tiles, some batch indices at a time where more is made of them.
    fn tiled(&self, winograd: &Winograd, sides: [Slice<'_>; 2], operands: &Operands, outs: &mut [Data]) -> Result<()> {
        let (batch, matrix) = (self.batch.numel(), self.m * self.n);
        let together = if self.epilogue.is_some() { (PANEL / matrix).clamp(1, batch) } else { batch };
        for first in (0..batch).step_by(together) {
            let indices = first..batch.min(first + together);
            let (base, len) = (first * matrix, indices.len() * matrix);
            let mut outs: Outs<'_> = outs.iter_mut().map(|out| SliceMut::of(out).into_range(base, len)).collect();
            let compute = |sums: &mut [f32]| {
                if winograd.run(indices.clone(), sides.map(Slice::typed), sums)? {
                    return Ok(());
                }
                self.windowed(indices, sides, operands, sums)
            };
            match &self.epilogue {
                None => compute(outs.remove(0).typed())?,
                Some(epilogue) => {
                    let mut sums = vec![0.0; len];
                    compute(&mut sums)?;
                    finish(epilogue, operands, sums, base, outs)?;
                }
            }
        }
        Ok(())
    }

    /// The sums of some batch indices, one of these after the other.
    fn windowed(
        &self,
        indices: Range<usize>,
        sides: [Slice<'_>; 2],
        operands: &Operands,
        sums: &mut [f32],
    ) -> Result<()> {
        let made = self.make(sides, operands)?;
        let sides = [0, 1].map(|side| made[side].as_ref().map_or(sides[side], Slice::of));
        indices.zip(sums.chunks_mut(self.m * self.n)).try_for_each(|(index, sums)| {
            let part = Part { index, rows: 0..self.m, terms: 0..self.outer.numel() };
            self.add(&part, sides, operands, sums, true, f32_product)
        })
    }

    fn typed<T: Typed>(
        &self,
        sides: [Slice<'_>; 2],
        operands: &Operands,
        outs: &mut [Data],
        rules: Rules<T>,
    ) -> Result<()> {
        let matrix = self.m * self.n;
        if self.batch.numel() * matrix == 0 {
            return Ok(());
        }
        let sections = self.sections();
        if sections == 1 && self.is_cut_by_gemm() {
            return self.large(sides, operands, outs, rules);
        }
        if sections == 1 {
            return self.small(sides, operands, outs, rules);
        }
        let sums = self.in_sections(sections, sides, operands, rules)?;
        match &self.epilogue {
            None => SliceMut::of(&mut outs[0]).typed::<T>().copy_from_slice(&sums),
            Some(epilogue) => {
                finish(epilogue, operands, sums, 0, outs.iter_mut().map(SliceMut::of).collect())?;
            }
        }
        Ok(())
    }

    /// Elements whose work is as much.
    fn work(&self) -> usize {
        let products = self.batch.numel() * self.m * self.n * self.outer.numel() * self.k.max(1);
        products / parallel::PER_ELEMENT
    }

    /// Whether a product is cut up by `gemm` itself: a few large ones, whose operands are packed once, if at all.
    fn is_cut_by_gemm(&self) -> bool {
        let is_large = self.m * self.n * self.k > parallel::PRODUCTS;
        let is_packed = self.operands.iter().any(|operand| matches!(operand.made, Made::Packed(_)));
        let is_one_panel = self.epilogue.is_none() || self.panel_rows() == self.m;
        is_large && self.batch.numel() < SECTIONS && (is_one_panel || !is_packed)
    }

    /// Rows of a product that are computed at once, where more is made of them.
    fn panel_rows(&self) -> usize {
        (PANEL / self.n.max(1)).clamp(1, self.m.max(1))
    }

    /// Large products one after the other, panel by panel, each followed by what is made of it.
    fn large<T: Typed>(
        &self,
        sides: [Slice<'_>; 2],
        operands: &Operands,
        outs: &mut [Data],
        rules: Rules<T>,
    ) -> Result<()> {
        let rows = if self.epilogue.is_some() { self.panel_rows() } else { self.m };
        let panels = self.m.div_ceil(rows);
        for task in 0..self.batch.numel() * panels {
            let (index, first) = (task / panels, task % panels * rows);
            let part = Part { index, rows: first..self.m.min(first + rows), terms: 0..self.outer.numel() };
            let (base, len) = ((index * self.m + first) * self.n, part.rows.len() * self.n);
            let mut outs: Outs<'_> = outs.iter_mut().map(|out| SliceMut::of(out).into_range(base, len)).collect();
            match &self.epilogue {
                None => self.add(&part, sides, operands, outs.remove(0).typed(), true, rules.product)?,
                Some(epilogue) => {
                    let mut sums = vec![T::default(); len];
                    self.add(&part, sides, operands, &mut sums, true, rules.product)?;
                    finish(epilogue, operands, sums, base, outs)?;
                }
            }
        }
        Ok(())
    }

    /// Products of which each is a task.
    fn small<T: Typed>(
        &self,
        sides: [Slice<'_>; 2],
        operands: &Operands,
        outs: &mut [Data],
        rules: Rules<T>,
    ) -> Result<()> {
        let matrix = self.m * self.n;
        let run = |(index, mut outs): (usize, Outs<'_>)| {
            let part = Part { index, rows: 0..self.m, terms: 0..self.outer.numel() };
            let Some(epilogue) = &self.epilogue else {
                return self.add(&part, sides, operands, outs.remove(0).typed(), false, rules.product);
            };
            let mut sums = vec![T::default(); matrix];
            self.add(&part, sides, operands, &mut sums, false, rules.product)?;
            finish(epilogue, operands, sums, index * matrix, outs)
        };
        let batch = self.batch.numel();
        if batch == 1 || self.work() <= parallel::ELEMENTS {
            return (0..batch).try_for_each(|index| {
                let matrix_of = |out| SliceMut::of(out).into_range(index * matrix, matrix);
                run((index, outs.iter_mut().map(matrix_of).collect()))
            });
        }
        let mut tasks: Vec<Outs<'_>> = (0..batch).map(|_| Outs::new()).collect();
        for out in outs {
            let matrices = SliceMut::of(out).chunks(matrix);
            tasks.iter_mut().zip(matrices).for_each(|(task, part)| task.push(part));
        }
        parallel::map(tasks.into_iter().enumerate().collect(), self.work(), run).map(|_| ())
    }

    /// Computes some sums.
    fn add<T: Typed>(
        &self,
        part: &Part,
        sides: [Slice<'_>; 2],
        operands: &Operands,
        sums: &mut [T],
        parallel: bool,
        product: impl Fn(Matrix<'_, T>, Matrix<'_, T>, &mut [T], Mode),
    ) -> Result<()> {
        if self.k == 0 || part.terms.is_empty() {
            sums.fill(T::default());
            return Ok(());
        }
        let mut packed = [T::wrap(Vec::new()), T::wrap(Vec::new())];
        for term in part.terms.clone() {
            let place = part.index * self.outer.numel() + term;
            for (side, rows) in [self.m, self.n].into_iter().enumerate() {
                self.operands[side].pack::<T>(operands, place, rows * self.k, &mut packed[side])?;
            }
            let matrix = |side: usize, rows: usize| {
                let Operand { made, matrices, .. } = &self.operands[side];
                let Matrices { row, column, .. } = *matrices;
                match made {
                    Made::Packed(_) => {
                        let source = Slice::of(&packed[side]).typed();
                        Matrix { source, offset: 0, rows, columns: self.k, row, column }
                    }
                    _ => {
                        let offset = matrices.offset_at(&self.batch, &self.outer, place);
                        Matrix { source: sides[side].typed(), offset, rows, columns: self.k, row, column }
                    }
                }
            };
            let a = matrix(0, self.m).rows(part.rows.start, part.rows.len());
            product(a, matrix(1, self.n), sums, Mode { adds: term > part.terms.start, parallel });
        }
        Ok(())
    }
}

/// Computes `out [m, n] = a [m, k] · b [n, k]ᵀ`.
type Product<T> = fn(Matrix<'_, T>, Matrix<'_, T>, &mut [T], Mode);

/// How elements of a type are multiplied and added.
#[derive(Clone, Copy)]
struct Rules<T> {
    product: Product<T>,
    sum: fn(T, T) -> T,
}

/// Applies an epilogue to sums, whose first is element `base` of its space.
fn finish<T: Typed>(epilogue: &Program, operands: &Operands, sums: Vec<T>, base: usize, outs: Outs<'_>) -> Result<()> {
    let len = sums.len();
    let sums = T::wrap(sums);
    let operands = Operands { computed: std::slice::from_ref(&sums), ..*operands };
    let run = |(task, mut outs): (usize, Outs<'_>)| {
        let (first, len) = (task * TASK, TASK.min(len - task * TASK));
        let mut scratch = epilogue.scratch(operands.scalars);
        for at in (0..len).step_by(BLOCK) {
            let block = Block { start: base + first + at, len: BLOCK.min(len - at), base };
            let mut outs: Outs<'_> = outs.iter_mut().map(|out| out.range(at, block.len)).collect();
            epilogue.evaluate(&operands, &mut scratch, block, &mut outs)?;
        }
        Ok(())
    };
    if len <= TASK {
        return run((0, outs));
    }
    let mut tasks: Vec<Outs<'_>> = (0..len.div_ceil(TASK)).map(|_| Outs::new()).collect();
    for out in outs {
        tasks.iter_mut().zip(out.chunks(TASK)).for_each(|(task, chunk)| task.push(chunk));
    }
    parallel::map(tasks.into_iter().enumerate().collect(), len, run).map(|_| ())
}

/// The program that makes the outputs of a product's sums.
fn epilogue(kernel: &Kernel, sources: &[Source]) -> Program {
    let mut sources = sources.to_vec();
    // Operands have another shape; the program does not read them.
    let sums = Source { view: View::contiguous(&kernel.space), local: true, output: None };
    sources.push(sums);
    let mut expression = kernel.expression.clone();
    for (instruction, _) in &mut expression.instructions {
        if *instruction == Instruction::Accumulator {
            *instruction = Instruction::Load(sources.len() - 1);
        }
    }
    let outputs: Vec<_> = kernel.outputs.iter().map(|store| store.register).collect();
    Program::new(&kernel.space, sources, &expression, &outputs, &[], &[])
}

/// Whether an operand is a load as it is, or a widened one.
fn is_load(expression: &Expression) -> bool {
    matches!(expression.instructions[..], [(Instruction::Load(_), _)]) || is_widened(expression)
}

fn is_widened(expression: &Expression) -> bool {
    matches!(expression.instructions[..], [(Instruction::Load(_), DType::F16), (Instruction::Cast(0), DType::F32)])
}

/// Whether what is made of an operand is the same for all batch indices, and no larger than what it is made of.
fn is_shared(view: &View, batch: usize) -> bool {
    let (batch, rest) = view.axes.split_at(batch);
    let count = |axes: &[ViewAxis]| axes.iter().map(|axis| axis.extent).product::<usize>();
    let is_plain = view.axes.iter().all(|axis| axis.guard.is_none());
    is_plain && count(batch) > 1 && batch.iter().all(|axis| axis.stride == 0) && count(rest) <= reach(view).len()
}

/// Where the elements lie that a view without padding shows.
fn reach(view: &View) -> Range<usize> {
    if view.shape().numel() == 0 {
        return 0..0;
    }
    let end = |pick: fn(isize, isize) -> isize| {
        view.axes.iter().fold(view.offset, |at, axis| at + pick(0, axis.stride * (axis.extent as isize - 1)))
    };
    end(isize::min) as usize..end(isize::max) as usize + 1
}

impl Operand {
    fn load(expression: &Expression) -> usize {
        expression.instructions.iter().find_map(|(instruction, _)| instruction.load()).unwrap_or_default()
    }

    fn view<'a>(expression: &Expression, sources: &'a [Source]) -> &'a View {
        &sources[Operand::load(expression)].view
    }

    fn new(expression: &Expression, sources: &[Source], batch: usize, contracted: usize, outer: usize) -> Operand {
        let load = Operand::load(expression);
        let view = &sources[load].view;
        if let Some(matrices) = Matrices::new(view, batch, contracted, outer).filter(|_| is_load(expression)) {
            let made = if is_widened(expression) { Made::Widened(reach(view)) } else { Made::Nothing };
            return Operand { load, made, matrices };
        }
        // Matrix after matrix; in each, neighbours in memory stay neighbours.
        let (free, inner) =
            (batch..view.axes.len() - contracted, view.axes.len() - contracted + outer..view.axes.len());
        let numel = |range: &Range<usize>| view.axes[range.clone()].iter().map(|axis| axis.extent).product::<usize>();
        let run = |range: &Range<usize>| match view.axes[range.clone()].last() {
            Some(axis) if axis.stride.abs() == 1 => axis.extent,
            _ => 0,
        };
        let (rows, columns) = (numel(&free) as isize, numel(&inner) as isize);
        let by_columns = run(&free) > run(&inner);
        let matrix: Vec<usize> =
            if by_columns { inner.clone().chain(free.clone()) } else { free.clone().chain(inner.clone()) }.collect();
        let order: Vec<usize> = (0..batch).chain(free.end..inner.start).chain(matrix).collect();
        let mut sources = sources.to_vec();
        sources[load].view = View { axes: order.iter().map(|&axis| view.axes[axis]).collect(), offset: view.offset };
        let (row, column) = if by_columns { (1, rows) } else { (columns, 1) };
        let space = sources[load].view.shape();
        let last = expression.instructions.len() - 1;
        let program = Program::new(&space, sources, expression, &[last], &[], &[]);
        if !is_shared(view, batch) {
            let matrices = Matrices { strides: Vec::new(), row, column, offset: 0 };
            return Operand { load, made: Made::Packed(program), matrices };
        }
        // One after the other along the outer axes, the same for each batch index.
        let outer = &space[batch..batch + outer];
        let strides =
            (0..outer.len()).map(|axis| rows * columns * outer[axis + 1..].iter().product::<usize>() as isize);
        let strides = std::iter::repeat_n(0, batch).chain(strides).collect();
        let len = space[batch..].iter().product();
        Operand { load, made: Made::Shared(program, len), matrices: Matrices { strides, row, column, offset: 0 } }
    }

    /// The array that takes the load's place in a run, if one is made of it.
    fn make(&self, source: Slice<'_>, operands: &Operands, dtype: DType) -> Result<Option<Data>> {
        Ok(match &self.made {
            Made::Nothing | Made::Packed(_) => None,
            Made::Widened(range) => Some(Data::F32(widened(source, range)?)),
            Made::Shared(program, len) => {
                let mut whole = loops::filled(dtype, Number::Int(0), *len);
                let tasks = SliceMut::of(&mut whole).chunks(TASK).into_iter().enumerate().collect();
                parallel::map(tasks, *len, |(task, out)| evaluate(program, operands, task * TASK, out))?;
                Some(whole)
            }
        })
    }

    /// Puts the matrix at a place into `packed`, if it is made whenever it is multiplied.
    fn pack<T: Typed>(&self, operands: &Operands, place: usize, len: usize, packed: &mut Data) -> Result<()> {
        let Made::Packed(program) = &self.made else { return Ok(()) };
        if packed.len() != len {
            *packed = T::wrap(vec![T::default(); len]);
        }
        evaluate(program, operands, place * len, SliceMut::of(packed))
    }
}

/// Evaluates a program of one output from an element on.
fn evaluate(program: &Program, operands: &Operands, first: usize, out: SliceMut<'_>) -> Result<()> {
    let mut scratch = program.scratch(operands.scalars);
    for (i, out) in out.chunks(BLOCK).into_iter().enumerate() {
        let block = Block { start: first + i * BLOCK, len: out.len(), base: 0 };
        program.evaluate(operands, &mut scratch, block, &mut [out])?;
    }
    Ok(())
}

/// Elements of f16 as f32: as long as what is read of them, from the beginning of the array.
fn widened(source: Slice<'_>, &Range { start, end }: &Range<usize>) -> Result<Vec<f32>> {
    let source: &[f16] = source.typed();
    let mut wide = vec![0.0; end];
    let piece = |(number, out): (usize, &mut [f32])| {
        let from = &source[start + number * PANEL..][..out.len()];
        loops::copy(Slice::F16(from), SliceMut::F32(out));
        Ok(())
    };
    parallel::each_chunk(&mut wide[start..], PANEL, end - start, piece)?;
    Ok(wide)
}
