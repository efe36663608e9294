//! Attention, some rows of the logits at a time: products on the `gemm` crate, with exponentials between them while they are in
//! the cache. The memory that it takes for itself grows with the number of keys, or of queries.

use crate::loops::{exp, vectorised, vectorised_reals};
use crate::matrix::{Matrices, Matrix, Mode, gemm_product};
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed};
use gradus_ir::op::attention::{AttentionPart, AttentionShape};
use gradus_ir::plan::Kernel;
use gradus_ir::real::Real;
use gradus_ir::{DType, Data, Error, Result, Shape};
use std::ops::Range;

/// Logits that are computed at once, in memory: rows enough that it does not count to pack the other operand anew for them.
const LOGITS: usize = 1 << 19;
/// So many pieces of a walk that finds several gradients are enough for all threads: a number that depends on sizes alone, as what is
/// added up does.
const PIECES: usize = 16;
/// Independent accumulators of a sum, so that it vectorises.
const LANES: usize = 16;

/// An attention made ready.
#[derive(Debug)]
pub(crate) struct Attention {
    /// What each output is.
    outputs: Vec<AttentionPart>,
    causal: bool,
    shape: AttentionShape,
    /// Of query, key and value, then of the cotangent, the logarithms of sums and the scalar products, if there are any.
    operands: Vec<Matrices>,
    mask: Option<Matrices>,
    dtype: DType,
}

/// The numbers of a dtype that attention is computed in.
trait Number: Typed + Real + From<f32> + Into<f64> {}
impl<T: Typed + Real + From<f32> + Into<f64>> Number for T {}

/// What some queries make of some keys, `[keys, queries]`: memory that is kept from one block to the next.
struct Block<T> {
    /// The weights with which the queries look at the keys.
    weights: Vec<T>,
    /// What these make of the slopes: the cotangents of the logits. Empty if nobody wants them.
    slopes: Vec<T>,
    keys: usize,
    queries: usize,
}

/// A piece of a walk that finds several gradients: some queries of each of the heads that share keys.
struct Piece<'o, T> {
    slice: usize,
    queries: Range<usize>,
    /// For each head, the part of the output; none if it is not wanted.
    query: Vec<&'o mut [T]>,
    /// Where the cotangents of all keys and values of the slice are added up: in the outputs for the first queries, in memory of its own
    /// for others.
    key: Added<'o, T>,
    value: Added<'o, T>,
}

/// Where a piece adds up.
enum Added<'o, T> {
    Unwanted,
    Output(&'o mut [T]),
    Own(Vec<T>),
}

impl<T: Number> Added<'_, T> {
    /// So many sums of nothing.
    fn begin(&mut self, len: usize) {
        match self {
            Added::Unwanted => {}
            Added::Output(sums) => sums.fill(T::of(0.0)),
            Added::Own(sums) => sums.resize(len, T::of(0.0)),
        }
    }

    fn sums(&mut self) -> Option<&mut [T]> {
        match self {
            Added::Unwanted => None,
            Added::Output(sums) => Some(sums),
            Added::Own(sums) => Some(sums),
        }
    }

    fn own(self) -> Vec<T> {
        if let Added::Own(sums) = self { sums } else { Vec::new() }
    }
}

/// The slices that a run reads.
struct Loads<'a, T> {
    operands: Vec<&'a [T]>,
    mask: Option<&'a [bool]>,
}

impl Attention {
    /// Prepares a kernel.
    pub(crate) fn new(kernel: &Kernel, parts: &[AttentionPart], causal: bool) -> Result<Attention> {
        let views: Vec<_> = kernel.loads.iter().map(|load| &load.view).collect();
        let shape = AttentionShape::of(&views[0].shape(), &views[1].shape(), &views[2].shape());
        let heads = shape.batch.len() + 1;
        let matrices = |load: usize| {
            // Keys and values have no axis for the heads that share them, and what there is one of for each query is a column.
            let (batch, columns) = (if matches!(load, 1 | 2) { heads - 1 } else { heads }, !matches!(load, 4 | 5));
            let matrices = Matrices::new(views[load], batch, columns as usize, 0);
            matrices.ok_or_else(|| Error::Backend("a padded operand of attention".into()))
        };
        let numbers = parts[0].operands();
        let mask = views.get(numbers).map(|view| Matrices::new(view, heads, 1, 0));
        Ok(Attention {
            outputs: kernel.outputs.iter().map(|store| parts[store.register]).collect(),
            causal,
            operands: (0..numbers).map(matrices).collect::<Result<_>>()?,
            mask: mask.map(|m| m.ok_or_else(|| Error::Backend("a padded mask of attention".into()))).transpose()?,
            shape,
            dtype: kernel.expression.dtype(0),
        })
    }

    /// Runs it.
    pub(crate) fn run(&self, loads: &[Option<Slice<'_>>], outs: &mut [Data]) -> Result<()> {
        match self.dtype {
            DType::F32 => self.typed::<f32>(loads, outs),
            DType::F64 => self.typed::<f64>(loads, outs),
            found => Err(Error::DType { expected: "a float dtype", found }),
        }
    }

    fn typed<T: Number>(&self, loads: &[Option<Slice<'_>>], outs: &mut [Data]) -> Result<()> {
        let slices: Vec<Slice<'_>> = loads.iter().flatten().copied().collect();
        let (operands, mask) = slices.split_at(self.operands.len());
        let loads = Loads {
            operands: operands.iter().map(|slice| slice.typed()).collect(),
            mask: mask.first().map(|slice| slice.typed()),
        };
        if outs.iter().all(Data::is_empty) {
            return Ok(());
        }
        let AttentionShape { group, queries, keys, width, values, .. } = self.shape;
        let first = self.outputs[0];
        if self.is_joined() {
            return self.gradients(&loads, outs);
        }
        let by_keys = matches!(first, AttentionPart::GradKey | AttentionPart::GradValue);
        let (rows, others) = if by_keys { (keys, queries) } else { (queries, keys) };
        let slices = self.shape.batch.numel() * if by_keys { 1 } else { group };
        let block = rows_at_once(others).min(rows);
        // A task is some rows of a head, and of each output.
        let blocks = rows.div_ceil(block);
        let mut tasks: Vec<Vec<&mut [T]>> = (0..slices * blocks).map(|_| Vec::new()).collect();
        for (out, part) in outs.iter_mut().zip(&self.outputs) {
            let columns = match part {
                AttentionPart::LogSumExp => 1,
                AttentionPart::Output | AttentionPart::GradValue => values,
                AttentionPart::GradQuery | AttentionPart::GradKey => width,
            };
            let heads = SliceMut::of(out).typed::<T>().chunks_mut(rows * columns);
            let parts = heads.flat_map(|head| head.chunks_mut(block * columns));
            tasks.iter_mut().zip(parts).for_each(|(task, part)| task.push(part));
        }
        let run = |(task, outs): (usize, Vec<&mut [T]>)| {
            let (slice, start) = (task / blocks, task % blocks * block);
            let rows = start..rows.min(start + block);
            match first {
                AttentionPart::Output | AttentionPart::LogSumExp => self.forward(&loads, slice, rows, outs),
                gradient => outs.into_iter().for_each(|out| match gradient {
                    AttentionPart::GradQuery => self.query_gradient(&loads, slice, rows.clone(), out),
                    _ => self.key_gradient(&loads, slice, rows.clone(), gradient, out),
                }),
            }
            Ok(())
        };
        let work = self.shape.logits().numel();
        parallel::map(tasks.into_iter().enumerate().collect(), work, run).map(|_| ())
    }

    /// The output of some queries of a head, or the logarithms of their sums, or both.
    fn forward<T: Number>(&self, loads: &Loads<'_, T>, head: usize, queries: Range<usize>, outs: Vec<&mut [T]>) {
        let keys = 0..self.visible_keys(queries.end - 1);
        let seen = keys.len();
        let mut weights = vec![T::of(0.0); queries.len() * seen];
        product(self.query(loads, head, &queries), self.key(loads, head, &keys), &mut weights, false);
        let mut sums = Vec::with_capacity(queries.len());
        for (query, row) in queries.clone().zip(weights.chunks_mut(seen.max(1))) {
            let visible = self.visible_keys(query).min(seen);
            row[visible..].fill(T::of(f64::NEG_INFINITY));
            if let (Some(mask), Some(matrices)) = (loads.mask, &self.mask) {
                let at = matrices.offset_at(&self.heads(), &Shape::default(), head) + matrices.row * query as isize;
                for (key, logit) in row[..visible].iter_mut().enumerate() {
                    if !mask[(at + matrices.column * key as isize) as usize] {
                        *logit = T::of(f64::NEG_INFINITY);
                    }
                }
            }
            sums.push(exponentials(row));
        }
        // Queries that look at no key have no row.
        sums.resize(queries.len(), (T::of(0.0), 0.0));
        for (out, part) in outs.into_iter().zip(&self.outputs) {
            if *part == AttentionPart::LogSumExp {
                let logarithms = sums.iter().map(|&(largest, sum)| T::of(largest.into() + sum.ln()));
                out.iter_mut().zip(logarithms).for_each(|(out, logarithm)| *out = logarithm);
                continue;
            }
            let weights = Matrix {
                source: &weights,
                offset: 0,
                rows: queries.len(),
                columns: seen,
                row: seen as isize,
                column: 1,
            };
            product(weights, self.value(loads, head, &keys).transposed(), out, false);
            for (row, &(_, sum)) in out.chunks_mut(self.shape.values).zip(&sums) {
                let sum = if sum == 0.0 { T::of(1.0) } else { T::of(sum) };
                vectorised(
                    #[inline(always)]
                    || row.iter_mut().for_each(|x| *x = *x / sum),
                );
            }
        }
    }

    /// Whether several gradients are found by one walk.
    fn is_joined(&self) -> bool {
        self.outputs.len() > 1 && self.outputs[0].is_gradient()
    }

    /// How many queries of a head are a piece of such a walk, and how many pieces there are then.
    fn cut(&self) -> (usize, usize) {
        let AttentionShape { queries, keys, .. } = self.shape;
        let block = rows_at_once(keys);
        let blocks = queries.div_ceil(block).max(1);
        let piece = blocks.div_ceil((PIECES / self.shape.batch.numel().max(1)).clamp(1, blocks)) * block;
        (piece, queries.div_ceil(piece).max(1))
    }

    /// The bytes that a run takes for itself, beside some logits for each thread: where pieces add up what keys and values get.
    pub(crate) fn scratch(&self) -> usize {
        if !self.is_joined() {
            return 0;
        }
        let numbers = |part: &AttentionPart| match part {
            AttentionPart::GradKey => self.shape.keys * self.shape.width,
            AttentionPart::GradValue => self.shape.keys * self.shape.values,
            _ => 0,
        };
        let (_, pieces) = self.cut();
        let numbers: usize = self.outputs.iter().map(numbers).sum();
        self.shape.batch.numel() * (pieces - 1) * numbers * self.dtype.size()
    }

    /// Several gradients: weights and slopes are found once, and what keys and values get is added up.
    fn gradients<T: Number>(&self, loads: &Loads<'_, T>, outs: &mut [Data]) -> Result<()> {
        let AttentionShape { group, queries, keys, width, values, .. } = self.shape;
        let slices = self.shape.batch.numel();
        let (piece, pieces) = self.cut();
        let new = |number: usize| {
            let (slice, start) = (number / pieces, number % pieces * piece);
            let (query, key, value) = (Vec::new(), Added::Unwanted, Added::Unwanted);
            Piece { slice, queries: start..queries.min(start + piece), query, key, value }
        };
        let mut all: Vec<Piece<'_, T>> = (0..slices * pieces).map(new).collect();
        for (out, part) in outs.iter_mut().zip(&self.outputs) {
            let out = SliceMut::of(out).typed::<T>();
            if *part == AttentionPart::GradQuery {
                for (head, out) in out.chunks_mut((queries * width).max(1)).enumerate() {
                    let pieces = all[head / group * pieces..].iter_mut();
                    pieces.zip(out.chunks_mut((piece * width).max(1))).for_each(|(piece, out)| piece.query.push(out));
                }
                continue;
            }
            let is_key = *part == AttentionPart::GradKey;
            let len = keys * if is_key { width } else { values };
            // The outputs themselves are where the first queries of each slice add up.
            let mut outs = out.chunks_mut(len.max(1));
            for piece in &mut all {
                let out = if piece.queries.start == 0 { outs.next() } else { None };
                let added = out.map_or_else(|| Added::Own(Vec::new()), Added::Output);
                *(if is_key { &mut piece.key } else { &mut piece.value }) = added;
            }
        }
        let work = self.shape.logits().numel();
        let added = parallel::map(all, work, |mut piece| {
            self.piece(loads, &mut piece);
            Ok((piece.slice, piece.key.own(), piece.value.own()))
        })?;
        for (out, part) in outs.iter_mut().zip(&self.outputs) {
            let is_key = *part == AttentionPart::GradKey;
            if is_key || *part == AttentionPart::GradValue {
                let out = SliceMut::of(out).typed::<T>();
                for (slice, key, value) in &added {
                    let sums = if is_key { key } else { value };
                    let out = &mut out[slice * sums.len()..][..sums.len()];
                    vectorised(
                        #[inline(always)]
                        || out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = *out + sum),
                    );
                }
            }
        }
        Ok(())
    }

    /// What a piece of such a walk adds.
    fn piece<T: Number>(&self, loads: &Loads<'_, T>, piece: &mut Piece<'_, T>) {
        let Piece { slice, queries, query: of_queries, key: of_keys, value: of_values } = piece;
        let AttentionShape { group, width, values, keys: all, .. } = self.shape;
        let wants_slopes = !of_queries.is_empty() || of_keys.sums().is_some();
        of_keys.begin(all * width);
        of_values.begin(all * values);
        let (size, mut block) = (rows_at_once(all), Block::new());
        for member in 0..group {
            let head = *slice * group + member;
            for start in queries.clone().step_by(size) {
                let rows = start..queries.end.min(start + size);
                let keys = 0..self.visible_keys(rows.end - 1);
                block.find(self, loads, head, keys.clone(), rows.clone(), wants_slopes);
                if let Some(sums) = of_values.sums() {
                    let cotangent = self.cotangent(loads, head, &rows).transposed();
                    product(block.weights(), cotangent, &mut sums[..keys.len() * values], true);
                }
                if let Some(sums) = of_keys.sums() {
                    let query = self.query(loads, head, &rows).transposed();
                    product(block.slopes(), query, &mut sums[..keys.len() * width], true);
                }
                if let Some(out) = of_queries.get_mut(member) {
                    let out = &mut out[(start - queries.start) * width..][..rows.len() * width];
                    product(block.slopes().transposed(), self.key(loads, head, &keys).transposed(), out, false);
                }
            }
        }
    }

    /// The cotangent of some queries of a head.
    fn query_gradient<T: Number>(&self, loads: &Loads<'_, T>, head: usize, queries: Range<usize>, out: &mut [T]) {
        let keys = 0..self.visible_keys(queries.end - 1);
        let mut block = Block::new();
        block.find(self, loads, head, keys.clone(), queries, true);
        product(block.slopes().transposed(), self.key(loads, head, &keys).transposed(), out, false);
    }

    /// The cotangent of some keys, or of some values, summed over the heads that share them.
    fn key_gradient<T: Number>(
        &self,
        loads: &Loads<'_, T>,
        slice: usize,
        keys: Range<usize>,
        part: AttentionPart,
        out: &mut [T],
    ) {
        let AttentionShape { group, queries, keys: all, .. } = self.shape;
        // The first query that looks at the first of these keys.
        let first = if self.causal { (keys.start + queries).saturating_sub(all).min(queries) } else { 0 };
        let queries = first..queries;
        let of_values = part == AttentionPart::GradValue;
        let mut block = Block::new();
        for member in 0..group {
            let head = slice * group + member;
            block.find(self, loads, head, keys.clone(), queries.clone(), !of_values);
            match of_values {
                true => {
                    let cotangent = self.cotangent(loads, head, &queries).transposed();
                    product(block.weights(), cotangent, out, member > 0);
                }
                false => {
                    product(block.slopes(), self.query(loads, head, &queries).transposed(), out, member > 0);
                }
            }
        }
    }

    /// How many keys a query may look at, the mask apart.
    fn visible_keys(&self, query: usize) -> usize {
        let AttentionShape { queries, keys, .. } = self.shape;
        if self.causal { (query + 1 + keys).saturating_sub(queries).min(keys) } else { keys }
    }

    /// Batch axes, and the heads that share keys.
    fn heads(&self) -> Shape {
        self.shape.batch.with_inserted(self.shape.batch.len(), self.shape.group)
    }

    fn query<'a, T: Number>(&self, loads: &Loads<'a, T>, head: usize, rows: &Range<usize>) -> Matrix<'a, T> {
        self.matrix(loads, 0, head, self.shape.width, rows)
    }

    fn key<'a, T: Number>(&self, loads: &Loads<'a, T>, head: usize, rows: &Range<usize>) -> Matrix<'a, T> {
        self.matrix(loads, 1, head, self.shape.width, rows)
    }

    fn value<'a, T: Number>(&self, loads: &Loads<'a, T>, head: usize, rows: &Range<usize>) -> Matrix<'a, T> {
        self.matrix(loads, 2, head, self.shape.values, rows)
    }

    fn cotangent<'a, T: Number>(&self, loads: &Loads<'a, T>, head: usize, rows: &Range<usize>) -> Matrix<'a, T> {
        self.matrix(loads, 3, head, self.shape.values, rows)
    }

    /// Some rows of an operand of a head.
    fn matrix<'a, T: Number>(
        &self,
        loads: &Loads<'a, T>,
        operand: usize,
        head: usize,
        columns: usize,
        rows: &Range<usize>,
    ) -> Matrix<'a, T> {
        let Matrices { row, column, .. } = self.operands[operand];
        let is_shared = matches!(operand, 1 | 2);
        let (extents, place) =
            if is_shared { (self.shape.batch.clone(), head / self.shape.group) } else { (self.heads(), head) };
        let offset = self.operands[operand].offset_at(&extents, &Shape::default(), place);
        let whole = Matrix { source: loads.operands[operand], offset, rows: 0, columns, row, column };
        whole.rows(rows.start, rows.len())
    }

    /// What there is one of for each query.
    fn per_query<T: Number>(
        &self,
        loads: &Loads<'_, T>,
        operand: usize,
        head: usize,
        queries: &Range<usize>,
    ) -> Vec<T> {
        let Matrix { source, offset, row, .. } = self.matrix(loads, operand, head, 1, queries);
        (0..queries.len()).map(|i| source[(offset + row * i as isize) as usize]).collect()
    }
}

impl<T: Number> Block<T> {
    fn new() -> Block<T> {
        Block { weights: Vec::new(), slopes: Vec::new(), keys: 0, queries: 0 }
    }

    /// Finds the weights, and the slopes if they are wanted.
    fn find(
        &mut self,
        of: &Attention,
        loads: &Loads<'_, T>,
        head: usize,
        keys: Range<usize>,
        queries: Range<usize>,
        wants_slopes: bool,
    ) {
        let columns = queries.len();
        (self.keys, self.queries) = (keys.len(), columns);
        let len = keys.len() * columns;
        self.weights.resize(len, T::of(0.0));
        product(of.key(loads, head, &keys), of.query(loads, head, &queries), &mut self.weights, false);
        let sums = of.per_query(loads, 4, head, &queries);
        let mut products = Vec::new();
        if wants_slopes {
            self.slopes.resize(len, T::of(0.0));
            product(of.value(loads, head, &keys), of.cotangent(loads, head, &queries), &mut self.slopes, false);
            products = of.per_query(loads, 5, head, &queries);
        }
        let mask = loads.mask.zip(of.mask.as_ref());
        let mask = mask.map(|(mask, m)| (mask, m, m.offset_at(&of.heads(), &Shape::default(), head)));
        for (i, key) in keys.enumerate() {
            let row = i * columns..(i + 1) * columns;
            let weights = &mut self.weights[row.clone()];
            let slopes = self.slopes.get_mut(row).unwrap_or_default();
            vectorised_reals(
                #[inline(always)]
                |fuses| weights.iter_mut().zip(&sums).for_each(|(x, &sum)| *x = exp(*x - sum, fuses)),
            );
            vectorised(
                #[inline(always)]
                || {
                    for ((slope, &x), &product) in slopes.iter_mut().zip(&*weights).zip(&products) {
                        *slope = x * (*slope - product);
                    }
                },
            );
            let hidden = |query: usize| {
                mask.is_some_and(|(mask, matrices, at)| {
                    !mask[(at + matrices.row * query as isize + matrices.column * key as isize) as usize]
                })
            };
            let shape = &of.shape;
            let first = if of.causal { (key + shape.queries).saturating_sub(shape.keys) } else { 0 };
            let first = first.clamp(queries.start, queries.end) - queries.start;
            for row in [weights, slopes] {
                let len = first.min(row.len());
                row[..len].fill(T::of(0.0));
                if mask.is_some() {
                    let rest = row.iter_mut().enumerate().skip(first);
                    rest.filter(|(i, _)| hidden(queries.start + i)).for_each(|(_, x)| *x = T::of(0.0));
                }
            }
        }
    }

    fn weights(&self) -> Matrix<'_, T> {
        self.matrix(&self.weights)
    }

    fn slopes(&self) -> Matrix<'_, T> {
        self.matrix(&self.slopes)
    }

    fn matrix<'a>(&self, source: &'a [T]) -> Matrix<'a, T> {
        Matrix { source, offset: 0, rows: self.keys, columns: self.queries, row: self.queries as isize, column: 1 }
    }
}

/// How many rows of logits are computed at once, of so many each.
fn rows_at_once(others: usize) -> usize {
    (LOGITS / others.max(1)).clamp(16, 128)
}

/// `out [m, n] = a [m, k] · b [n, k]ᵀ`, or added to it; 0 of nothing.
fn product<T: Number>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T], adds: bool) {
    if out.is_empty() {
    } else if a.columns > 0 {
        gemm_product(a, b, out, Mode { adds, parallel: false });
    } else if !adds {
        out.fill(T::of(0.0));
    }
}

/// Replaces logits by their exponentials, the largest of which is 1; gives the largest logit, and the sum. Without a logit above
/// −∞ they are 0.
fn exponentials<T: Number>(row: &mut [T]) -> (T, f64) {
    let lowest = T::of(f64::NEG_INFINITY);
    let whole = row.len() - row.len() % LANES;
    let mut best = [lowest; LANES];
    let mut sums = [0.0f64; LANES];
    let greater = |a: T, b: T| if b > a { b } else { a };
    vectorised(
        #[inline(always)]
        || {
            for chunk in row[..whole].chunks_exact(LANES) {
                best.iter_mut().zip(chunk).for_each(|(best, &x)| *best = greater(*best, x));
            }
        },
    );
    let largest = best.iter().chain(&row[whole..]).fold(lowest, |a, &b| greater(a, b));
    let largest = if largest == lowest { T::of(0.0) } else { largest };
    vectorised_reals(
        #[inline(always)]
        |fuses| {
            row.iter_mut().for_each(|x| *x = exp(*x - largest, fuses));
            for chunk in row[..whole].chunks_exact(LANES) {
                sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += x.into());
            }
        },
    );
    let rest = row[whole..].iter().fold(0.0, |sum: f64, &x| sum + x.into());
    (largest, sums.iter().fold(rest, |a, b| a + b))
}
