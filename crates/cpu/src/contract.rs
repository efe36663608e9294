//! The general matrix product, on the `gemm` crate.

use crate::address::Strided;
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::plan::{Instruction, Kernel, Load};
use gradus_ir::real::Int;
use gradus_ir::{DType, Data, Error, Result, Shape, View};

/// A product made ready: for each batch index an `m × k` matrix times a `k × n` one.
#[derive(Debug)]
pub(crate) struct Contraction {
    left: Matrices,
    right: Matrices,
    batch: Shape,
    m: usize,
    n: usize,
    k: usize,
}

/// One operand: rows are the free axes, columns the contracted ones.
#[derive(Debug)]
struct Matrices {
    /// Set where the operand must be copied first, because an axis group has no single stride or is padded.
    copy: Option<(Strided, usize)>,
    batch: Vec<isize>,
    row: isize,
    column: isize,
    offset: isize,
}

impl Contraction {
    /// Prepares a kernel of two loads with `batch` leading and `contracted` trailing axes.
    pub(crate) fn new(kernel: &Kernel, batch: usize, contracted: usize) -> Result<Contraction> {
        let [(Instruction::Accumulator, _)] = kernel.expression.instructions[..] else {
            return Err(Error::Backend("a matrix product with an epilogue".into()));
        };
        let shape = |load: &Load| load.view.shape();
        let (a, b) = (shape(&kernel.loads[0]), shape(&kernel.loads[1]));
        Ok(Contraction {
            left: Matrices::new(&kernel.loads[0].view, batch, contracted),
            right: Matrices::new(&kernel.loads[1].view, batch, contracted),
            batch: Shape::new(&a[..batch]),
            m: a[batch..a.len() - contracted].iter().product(),
            n: b[batch..b.len() - contracted].iter().product(),
            k: a[a.len() - contracted..].iter().product(),
        })
    }

    /// Multiplies.
    pub(crate) fn run(&self, left: Slice<'_>, right: Slice<'_>, out: &mut Data) -> Result<()> {
        match SliceMut::of(out) {
            SliceMut::F32(out) => self.typed(left.typed(), right.typed(), out, gemm_product::<f32>),
            SliceMut::F64(out) => self.typed(left.typed(), right.typed(), out, gemm_product::<f64>),
            SliceMut::I32(out) => self.typed(left.typed(), right.typed(), out, int_product::<i32>),
            SliceMut::U32(out) => self.typed(left.typed(), right.typed(), out, int_product::<u32>),
            SliceMut::Bool(_) => Err(Error::DType { expected: "a number dtype", found: DType::Bool }),
        }
    }

    fn typed<T: Typed>(
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
        let (mut left_copy, mut right_copy) = (Vec::new(), Vec::new());
        let left = self.left.source(left, &mut left_copy)?;
        let right = self.right.source(right, &mut right_copy)?;
        let work = self.m * self.n * self.k;
        let inner_parallel = work > parallel::PRODUCTS;
        let one = |(index, out): (usize, &mut [T])| {
            let a = self.left.matrix(left, &self.batch, index, self.m, self.k);
            let b = self.right.matrix(right, &self.batch, index, self.n, self.k);
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
}

impl Matrices {
    fn new(view: &View, batch: usize, contracted: usize) -> Matrices {
        let rank = view.axes.len();
        let group = |view: &View, range: std::ops::Range<usize>| -> Option<isize> {
            let axes: Vec<_> = view.axes[range].iter().filter(|a| a.extent != 1 || a.guard.is_some()).collect();
            // What has no elements is never read, so any stride will do.
            let empty = axes.iter().any(|a| a.extent == 0);
            let merges = empty || axes.windows(2).all(|w| w[0].stride == w[1].stride * w[1].extent as isize);
            let plain = axes.iter().all(|a| a.guard.is_none());
            (merges && plain).then(|| axes.last().map_or(1, |a| a.stride))
        };
        let plain_batch = view.axes[..batch].iter().all(|a| a.guard.is_none());
        let row = group(view, batch..rank - contracted);
        let column = group(view, rank - contracted..rank);
        match (row, column, plain_batch) {
            (Some(row), Some(column), true) => Matrices {
                copy: None,
                batch: view.axes[..batch].iter().map(|a| a.stride).collect(),
                row,
                column,
                offset: view.offset,
            },
            _ => {
                let whole = Matrices::new(&View::contiguous(&view.shape()), batch, contracted);
                Matrices { copy: Some((Strided::new(view), view.shape().numel())), ..whole }
            }
        }
    }

    fn source<'a, T: Typed>(&self, source: &'a [T], copy: &'a mut Vec<T>) -> Result<&'a [T]> {
        let Some((strided, len)) = &self.copy else {
            return Ok(source);
        };
        const PIECE: usize = 1 << 14;
        copy.resize(*len, T::default());
        let piece = |(i, out): (usize, &mut [T])| {
            strided.fill(source, i * PIECE, out);
            Ok(())
        };
        parallel::each_chunk(copy, PIECE, *len, piece)?;
        Ok(copy)
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
