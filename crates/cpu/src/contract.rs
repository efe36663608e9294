//! The general matrix product, on the `gemm` crate, with what is done to its operands before and to its sums after.

use crate::block::{BLOCK, Block, Operands, Program, Source};
use crate::memory::{Array, Memory};
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::plan::{Expression, Instruction, Kernel};
use gradus_ir::real::Int;
use gradus_ir::{DType, Data, Error, Result, Shape, View};
use std::sync::Arc;

/// Sums that are computed at once, where more is made of them.
const PANEL: usize = 1 << 15;

/// A product made ready: for each batch index an `m × k` matrix times a `k × n` one.
#[derive(Debug)]
pub(crate) struct Contraction {
    operands: [Operand; 2],
    dtype: DType,
    batch: Shape,
    m: usize,
    n: usize,
    k: usize,
    /// What is made of the sums, unless they are the only output. They are its last load.
    epilogue: Option<Program>,
}

/// An operand: a load as it is, or one that a program writes to an array of its own first.
#[derive(Debug)]
struct Operand {
    load: usize,
    program: Option<Program>,
    matrices: Matrices,
    len: usize,
}

/// One operand: rows are the free axes, columns the contracted ones.
#[derive(Debug, Default)]
struct Matrices {
    batch: Vec<isize>,
    row: isize,
    column: isize,
    offset: isize,
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
        let operand = |expression: &Expression| Operand::new(expression, sources, batch, contracted);
        let operands = [operand(&expressions[0]), operand(&expressions[1])];
        let shape = |operand: &Operand| sources[operand.load].view.shape();
        let (a, b) = (shape(&operands[0]), shape(&operands[1]));
        let dtype = expressions[0].instructions.last().map_or(DType::F32, |(_, dtype)| *dtype);
        let is_sums = matches!(kernel.expression.instructions[..], [(Instruction::Accumulator, _)]);
        Contraction {
            dtype,
            batch: Shape::new(&a[..batch]),
            m: a[batch..a.len() - contracted].iter().product(),
            n: b[batch..b.len() - contracted].iter().product(),
            k: a[a.len() - contracted..].iter().product(),
            operands,
            epilogue: (!is_sums || kernel.outputs.len() != 1).then(|| epilogue(kernel, sources)),
        }
    }

    /// The bytes that a run takes for itself, beside the sums of a panel for each thread.
    pub(crate) fn scratch(&self) -> usize {
        let copies = self.operands.iter().filter(|operand| operand.program.is_some()).map(|operand| operand.len);
        copies.sum::<usize>() * self.dtype.size()
    }

    /// Multiplies. `outs` are the kernel's outputs.
    pub(crate) fn run(&self, operands: &Operands, outs: &mut [Data], memory: &Arc<Memory>) -> Result<()> {
        let copies = [self.operands[0].copy(operands, memory)?, self.operands[1].copy(operands, memory)?];
        let slice = |side: usize| match &copies[side] {
            Some(copy) => Ok(Slice::of(&copy.data)),
            None => operands.loads[self.operands[side].load]
                .ok_or_else(|| Error::Backend("a matrix product over its own operand".into())),
        };
        let (a, b) = (slice(0)?, slice(1)?);
        match self.dtype {
            DType::F32 => self.typed(a.typed(), b.typed(), operands, outs, gemm_product::<f32>),
            DType::F64 => self.typed(a.typed(), b.typed(), operands, outs, gemm_product::<f64>),
            DType::I32 => self.typed(a.typed(), b.typed(), operands, outs, int_product::<i32>),
            DType::U32 => self.typed(a.typed(), b.typed(), operands, outs, int_product::<u32>),
            DType::Bool => Err(Error::DType { expected: "a number dtype", found: DType::Bool }),
        }
    }

    fn typed<T: Typed>(
        &self,
        left: &[T],
        right: &[T],
        operands: &Operands,
        outs: &mut [Data],
        product: impl Fn(Matrix<'_, T>, Matrix<'_, T>, &mut [T], bool) + Sync + Send,
    ) -> Result<()> {
        match &self.epilogue {
            Some(epilogue) => self.panels(left, right, epilogue, operands, outs, product),
            None => self.whole(left, right, SliceMut::of(&mut outs[0]).typed(), product),
        }
    }

    /// The product itself.
    fn whole<T: Typed>(
        &self,
        left: &[T],
        right: &[T],
        out: &mut [T],
        product: impl Fn(Matrix<'_, T>, Matrix<'_, T>, &mut [T], bool) + Sync + Send,
    ) -> Result<()> {
        if out.is_empty() || self.k == 0 {
            out.fill(T::default());
            return Ok(());
        }
        let work = self.m * self.n * self.k;
        let inner_parallel = work > parallel::PRODUCTS;
        let one = |(index, out): (usize, &mut [T])| {
            let a = self.operands[0].matrices.matrix(left, &self.batch, index, self.m, self.k);
            let b = self.operands[1].matrices.matrix(right, &self.batch, index, self.n, self.k);
            product(a, b, out, inner_parallel);
            Ok(())
        };
        let batches = out.len() / (self.m * self.n);
        if inner_parallel {
            out.chunks_mut(self.m * self.n).enumerate().try_for_each(one)
        } else {
            // In elements, so that the threshold is that of a single product.
            let elements = batches * work / (parallel::PRODUCTS / parallel::ELEMENTS);
            parallel::each_chunk(out, self.m * self.n, elements, one)
        }
    }

    /// The product, some rows at a time, each followed by what is made of it while it is still in the cache.
    fn panels<T: Typed>(
        &self,
        left: &[T],
        right: &[T],
        epilogue: &Program,
        operands: &Operands,
        outs: &mut [Data],
        product: impl Fn(Matrix<'_, T>, Matrix<'_, T>, &mut [T], bool) + Sync + Send,
    ) -> Result<()> {
        if self.batch.numel() * self.m * self.n == 0 {
            return Ok(());
        }
        let rows = (PANEL / self.n).clamp(1, self.m);
        let panels = self.m.div_ceil(rows);
        let mut tasks: Vec<Vec<SliceMut<'_>>> = (0..self.batch.numel() * panels).map(|_| Vec::new()).collect();
        for out in outs {
            let matrices = SliceMut::of(out).chunks(self.m * self.n);
            let parts = matrices.into_iter().flat_map(|matrix| matrix.chunks(rows * self.n));
            tasks.iter_mut().zip(parts).for_each(|(task, part)| task.push(part));
        }
        let run = |(task, mut outs): (usize, Vec<SliceMut<'_>>)| {
            let (index, first) = (task / panels, task % panels * rows);
            let rows = rows.min(self.m - first);
            let mut sums = vec![T::default(); rows * self.n];
            if self.k > 0 {
                let a = self.operands[0].matrices.matrix(left, &self.batch, index, self.m, self.k).rows(first, rows);
                let b = self.operands[1].matrices.matrix(right, &self.batch, index, self.n, self.k);
                product(a, b, &mut sums, false);
            }
            let sums = T::wrap(sums);
            let mut operands = operands.clone();
            operands.loads.push(Some(Slice::of(&sums)));
            let base = (index * self.m + first) * self.n;
            let mut scratch = epilogue.scratch(operands.scalars, rows * self.n);
            for at in (0..rows * self.n).step_by(BLOCK) {
                let block = Block { start: base + at, len: BLOCK.min(rows * self.n - at), base };
                let mut outs: Vec<SliceMut<'_>> = outs.iter_mut().map(|out| out.range(at, block.len)).collect();
                epilogue.evaluate(&operands, &mut scratch, block, None, &mut outs)?;
            }
            Ok(())
        };
        let work = self.batch.numel() * self.m * self.n * self.k.max(1) / (parallel::PRODUCTS / parallel::ELEMENTS);
        parallel::map(tasks.into_iter().enumerate().collect(), work, run).map(|_| ())
    }
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
    Program::new(&kernel.space, sources, &expression, &outputs, &[])
}

impl Operand {
    fn new(expression: &Expression, sources: &[Source], batch: usize, contracted: usize) -> Operand {
        let load = expression.instructions.iter().find_map(|(i, _)| i.load()).unwrap_or_default();
        let view = &sources[load].view;
        let shape = view.shape();
        let whole = || Matrices::new(&View::contiguous(&shape), batch, contracted);
        let as_it_is = match expression.instructions[..] {
            [(Instruction::Load(_), _)] => Matrices::new(view, batch, contracted),
            _ => None,
        };
        let program = as_it_is.is_none().then(|| {
            let last = expression.instructions.len() - 1;
            Program::new(&shape, sources.to_vec(), expression, &[last], &[])
        });
        let matrices = as_it_is.or_else(whole).unwrap_or_default();
        Operand { load, program, matrices, len: shape.numel() }
    }

    /// The operand as an array of its own, where a product cannot read it where it is.
    fn copy(&self, operands: &Operands, memory: &Arc<Memory>) -> Result<Option<Array>> {
        let Some(program) = &self.program else { return Ok(None) };
        let mut copy = memory.allocate(program.dtype(program.last()), self.len)?;
        program.run(operands, std::slice::from_mut(&mut copy.data))?;
        Ok(Some(copy))
    }
}

impl Matrices {
    /// `None` where an axis group has no single stride or is padded.
    fn new(view: &View, batch: usize, contracted: usize) -> Option<Matrices> {
        let rank = view.axes.len();
        let group = |range: std::ops::Range<usize>| -> Option<isize> {
            let axes: Vec<_> = view.axes[range].iter().filter(|a| a.extent != 1 || a.guard.is_some()).collect();
            // What has no elements is never read, so any stride will do.
            let empty = axes.iter().any(|a| a.extent == 0);
            let merges = empty || axes.windows(2).all(|w| w[0].stride == w[1].stride * w[1].extent as isize);
            let plain = axes.iter().all(|a| a.guard.is_none());
            (merges && plain).then(|| axes.last().map_or(1, |a| a.stride))
        };
        let plain_batch = view.axes[..batch].iter().all(|a| a.guard.is_none());
        Some(Matrices {
            batch: view.axes[..batch].iter().map(|a| a.stride).collect(),
            row: group(batch..rank - contracted)?,
            column: group(rank - contracted..rank)?,
            offset: plain_batch.then_some(view.offset)?,
        })
    }

    /// The matrix of one batch index.
    fn matrix<'a, T>(
        &self,
        source: &'a [T],
        batch: &Shape,
        index: usize,
        rows: usize,
        columns: usize,
    ) -> Matrix<'a, T> {
        let mut offset = self.offset;
        let mut rest = index;
        for (axis, &extent) in batch.iter().enumerate().rev() {
            offset += self.batch[axis] * (rest % extent) as isize;
            rest /= extent;
        }
        Matrix { source, offset, rows, columns, row: self.row, column: self.column }
    }
}

/// A strided matrix inside a slice.
struct Matrix<'a, T> {
    source: &'a [T],
    offset: isize,
    rows: usize,
    columns: usize,
    row: isize,
    column: isize,
}

impl<T> Matrix<'_, T> {
    /// Some of its rows.
    fn rows(self, first: usize, rows: usize) -> Self {
        Matrix { offset: self.offset + self.row * first as isize, rows, ..self }
    }

    /// Checks that every element lies inside the slice.
    fn check(&self) {
        let reach = |extent: usize, stride: isize| (extent as isize - 1) * stride;
        let (r, c) = (reach(self.rows, self.row), reach(self.columns, self.column));
        let low = self.offset + r.min(0) + c.min(0);
        let high = self.offset + r.max(0) + c.max(0);
        assert!(low >= 0 && high < self.source.len() as isize, "a matrix view leaves its buffer");
    }
}

/// `out [m, n] = a [m, k] · b [n, k]ᵀ` on floats.
fn gemm_product<T: Typed + From<f32>>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T], parallel: bool) {
    let (m, n, k) = (a.rows, b.rows, a.columns);
    a.check();
    b.check();
    assert!(out.len() == m * n && b.columns == k);
    let parallelism =
        if parallel { gemm::Parallelism::Rayon(rayon::current_num_threads()) } else { gemm::Parallelism::None };
    // SAFETY: `check` has shown that every element of a and b that the strides reach lies in its slice, and the
    // assertion that out holds m·n elements, written with row stride n; out is borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.source.as_ptr().offset(a.offset),
            a.column,
            a.row,
            b.source.as_ptr().offset(b.offset),
            b.row,
            b.column,
            T::from(0.0),
            T::from(1.0),
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The same on integers, which wrap.
fn int_product<T: Typed + Int>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T], _parallel: bool) {
    let at = |m: &Matrix<'_, T>, i: usize, k: usize| {
        m.source[(m.offset + m.row * i as isize + m.column * k as isize) as usize]
    };
    for (i, row) in out.chunks_mut(b.rows).enumerate() {
        for (j, out) in row.iter_mut().enumerate() {
            *out = (0..a.columns).fold(T::ZERO, |sum, k| sum.add(at(&a, i, k).mul(at(&b, j, k))));
        }
    }
}
