//! The loops of functions of f32 that are computed from polynomials. They take longer than it takes to read what they are of: so
//! sums and products before one are computed with it, and memory is asked for meanwhile.

use super::LONGEST;
#[cfg(target_arch = "x86_64")]
use super::erf::erf;
use super::loops::VECTORS;
use super::piece::{Operation, Reads};
use crate::ahead::Ahead;
use crate::best::WIDEST;
#[cfg(target_arch = "x86_64")]
use crate::loops::arch;
use crate::loops::{Operand, Typed, fuses, simd, unary};
use crate::slice::Slice;
use gradus_ir::op::UnaryOp;
use gradus_ir::op::row::{Unary, UnaryVisitor};
#[cfg(target_arch = "x86_64")]
use pulp::x86::{Arch, V4};
use pulp::{Simd, WithSimd};
use smallvec::SmallVec;
use std::marker::PhantomData;

/// The elements of a group of vectors, which are computed at once, at most.
const GROUP: usize = VECTORS * WIDEST;

/// Functions with a larger error than this are computed from polynomials.
const ROUNDED: f64 = 0.5;

/// Whether a function has a loop here.
pub(crate) fn is_function(op: UnaryOp) -> bool {
    op.ulps() > ROUNDED
}

/// `out = row(chain)`. Loops are told of what they do by reference, for the same reason as [`crate::loops::UnaryLoop`].
pub(super) struct FunctionLoop<'l, 'a> {
    pub(super) reads: &'l Reads<'l, 'a>,
    /// Where what the chain has come to after so many operations is stored, if that is wanted, too.
    pub(super) also: Option<(usize, &'l mut [f32])>,
    pub(super) out: &'l mut [f32],
    /// What is asked for meanwhile.
    pub(super) ahead: &'l Ahead,
}

impl FunctionLoop<'_, '_> {
    /// Computes a function of f32 that has a loop here.
    pub(super) fn run(&mut self, op: UnaryOp) {
        if self.out.len() < GROUP {
            return self.run_group(op);
        }
        #[cfg(target_arch = "x86_64")]
        if let (UnaryOp::Erf, Arch::V4(simd)) = (op, arch()) {
            return Simd::vectorize(simd, Body { function: ErfByTable(simd), of: self });
        }
        op.dispatch(self);
    }

    /// The same of fewer elements than a group has: others follow, of which the results are left out.
    #[cold]
    fn run_group(&mut self, op: UnaryOp) {
        let FunctionLoop { reads, also, out, ahead } = self;
        let len = out.len();
        let longer = |operand: &Operand<'_>| {
            let mut group = [0.0; GROUP];
            match operand.values.typed() {
                &[one] => group.fill(one),
                values => group[..len].copy_from_slice(&values[..len]),
            }
            group
        };
        let (start, others) = (longer(&reads.start), reads.others.each_ref().map(|other| other.as_ref().map(longer)));
        let operand = |values| Operand { values: Slice::F32(values), rows: None };
        let others = others.each_ref().map(|other| other.as_ref().map(|other| operand(other)));
        let reads = Reads { operations: reads.operations, start: operand(&start), others };
        let (mut results, mut on_the_way) = ([0.0; GROUP], [0.0; GROUP]);
        let of_group = also.as_ref().map(|(after, _)| (*after, &mut on_the_way[..]));
        FunctionLoop { reads: &reads, also: of_group, out: &mut results, ahead }.run(op);
        out.copy_from_slice(&results[..len]);
        if let Some((_, also)) = also {
            also.copy_from_slice(&on_the_way[..len]);
        }
    }
}

impl UnaryVisitor for &mut FunctionLoop<'_, '_> {
    type Output = ();
    fn visit<R: Unary>(self) {
        if R::ULPS <= ROUNDED {
            unreachable!("{} has a loop elsewhere", R::NAME);
        }
        simd(Body { function: Row(PhantomData::<R>), of: self });
    }
}

/// The loop of a function.
struct Body<'s, 'l, 'a, F> {
    function: F,
    of: &'s mut FunctionLoop<'l, 'a>,
}

impl<F: Function> WithSimd for Body<'_, '_, '_, F> {
    type Output = ();
    /// Goes through the rows. Which operations come before the function is asked for each group: so there is one loop for each function.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Body { function, of: FunctionLoop { reads, also, out, ahead } } = self;
        let row = reads.piece_len(out.len());
        let group = VECTORS * S::F32_LANES;
        let mut ahead = ahead.parts(out.len().div_ceil(row) * row.div_ceil(group));
        let (after, mut also) = match also {
            Some((after, also)) => (*after, also.chunks_mut(row)),
            None => (0, <&mut [f32]>::default().chunks_mut(row)),
        };
        for (number, out) in out.chunks_mut(row).enumerate() {
            let start = Values::new(simd, Typed::of(&reads.start).row(number, row));
            let mut links: SmallVec<[Step<'_, S>; LONGEST]> = SmallVec::new();
            for (&operation, other) in reads.operations.iter().zip(&reads.others) {
                let other = other.as_ref().map_or(start, |other| Values::new(simd, Typed::of(other).row(number, row)));
                links.push(Step { operation, other });
            }
            let mut also = also.next();
            let scale = if also.is_none() { start.scale(&links) } else { None };
            let (before, between) = links.split_at(after);
            for first in (0..out.len()).step_by(group) {
                ahead.ask();
                // The last group overlaps with the one before.
                let first = first.min(out.len() - group);
                let out = &mut out[first..first + group];
                if let Some(scale) = scale {
                    function.group::<S>(&start.values[first..first + group], scale, out);
                    continue;
                }
                let mut x = start.vectors(first);
                before.iter().for_each(|link| link.apply(simd, &mut x, first));
                if let Some(also) = &mut also {
                    S::as_mut_simd_f32s(&mut also[first..first + group]).0.copy_from_slice(&x);
                }
                between.iter().for_each(|link| link.apply(simd, &mut x, first));
                function.group::<S>(bytemuck::cast_slice(&x), Scale::NONE, out);
            }
        }
    }
}

/// A sum or a product with one number, computed with the function: what is read is handed to it as it is.
#[derive(Clone, Copy)]
struct Scale {
    factor: f32,
    summand: f32,
}

impl Scale {
    const NONE: Scale = Scale { factor: 1.0, summand: -0.0 };

    /// x · factor + summand, one of which is exact.
    #[inline(always)]
    fn of(self, x: f32) -> f32 {
        x * self.factor + self.summand
    }
}

/// An operation before a function.
struct Step<'a, S: Simd> {
    operation: Operation,
    other: Values<'a, S>,
}

impl<S: Simd> Step<'_, S> {
    #[inline(always)]
    fn apply(&self, simd: S, x: &mut [S::f32s; VECTORS], first: usize) {
        if self.operation == Operation::Square {
            return x.iter_mut().for_each(|x| *x = simd.mul_f32s(*x, *x));
        }
        let y = self.other.vectors(first);
        for (x, y) in x.iter_mut().zip(y) {
            *x = match self.operation {
                Operation::Add => simd.add_f32s(*x, y),
                Operation::Sub => simd.sub_f32s(*x, y),
                Operation::SubFrom => simd.sub_f32s(y, *x),
                Operation::Mul | Operation::Square => simd.mul_f32s(*x, y),
            };
        }
    }
}

/// What groups read, of an operand that has as many elements as there are results, or one that stands for all.
struct Values<'a, S: Simd> {
    values: &'a [f32],
    one: S::f32s,
}

impl<S: Simd> Clone for Values<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd> Copy for Values<'_, S> {}

impl<'a, S: Simd> Values<'a, S> {
    #[inline(always)]
    fn new(simd: S, values: &'a [f32]) -> Values<'a, S> {
        Values { values, one: simd.splat_f32s(values[0]) }
    }

    /// What links come to if they are of these elements, and no more than a sum or a product with one number.
    fn scale(&self, links: &[Step<'_, S>]) -> Option<Scale> {
        let is_read = self.values.len() > 1;
        match links {
            [] => is_read.then_some(Scale::NONE),
            [Step { operation, other }] if is_read && other.values.len() == 1 => {
                let (factor, summand) = operation.by(other.values[0])?;
                Some(Scale { factor, summand })
            }
            _ => None,
        }
    }

    /// A group, from an element on.
    #[inline(always)]
    fn vectors(&self, first: usize) -> [S::f32s; VECTORS] {
        match self.values {
            [_] => [self.one; VECTORS],
            values => super::loops::vectors::<S, VECTORS>(values, first),
        }
    }
}

/// How a function is computed.
trait Function {
    /// The results of a group.
    fn group<S: Simd>(&self, x: &[f32], scale: Scale, out: &mut [f32]);
}

/// As the row of the op says.
struct Row<R>(PhantomData<R>);
impl<R: Unary> Function for Row<R> {
    #[inline(always)]
    fn group<S: Simd>(&self, x: &[f32], scale: Scale, out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = unary::<R, f32>(scale.of(x), fuses::<S>());
        }
    }
}

/// The error function on AVX-512.
#[cfg(target_arch = "x86_64")]
struct ErfByTable(V4);
#[cfg(target_arch = "x86_64")]
impl Function for ErfByTable {
    #[inline(always)]
    fn group<S: Simd>(&self, x: &[f32], scale: Scale, out: &mut [f32]) {
        let (x, out) = (x.as_chunks().0, out.as_chunks_mut().0);
        for (out, &x) in out.iter_mut().zip(x) {
            *out = erf(self.0, x.map(|x| scale.of(x)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Shown, Strided};
    use crate::slice::Slice;
    use gradus_ir::{Shape, View};

    /// The results, and what the chain has come to after so many operations.
    fn computed(op: UnaryOp, reads: &Reads<'_, '_>, after: Option<usize>, len: usize) -> [Vec<u32>; 2] {
        let (mut out, mut also) = (vec![f32::NAN; len], vec![0.0; len]);
        let also_after = after.map(|after| (after, &mut also[..]));
        FunctionLoop { reads, also: also_after, out: &mut out, ahead: &Ahead::default() }.run(op);
        [out, also].map(|values| values.into_iter().map(f32::to_bits).collect())
    }

    fn operand(values: &[f32]) -> Operand<'_> {
        Operand { values: Slice::F32(values), rows: None }
    }

    fn reads<'l, 'a>(operations: &'l [Operation], start: Operand<'a>, mut others: Vec<Operand<'a>>) -> Reads<'l, 'a> {
        let mut others = others.drain(..);
        let others = std::array::from_fn(|number| operations.get(number).and_then(|_| others.next()));
        Reads { operations, start, others }
    }

    fn apply(operation: Operation, x: f32, y: f32) -> f32 {
        match operation {
            Operation::Add => x + y,
            Operation::Sub => x - y,
            Operation::SubFrom => y - x,
            Operation::Mul => x * y,
            Operation::Square => x * x,
        }
    }

    #[test]
    fn operations_are_computed_with_functions() {
        use Operation::{Add, Mul, Square, Sub, SubFrom};
        let all: [&[Operation]; 9] = [
            &[],
            &[Square],
            &[Mul],
            &[Add],
            &[Sub],
            &[SubFrom],
            &[Mul, Add],
            &[Square, SubFrom, Mul],
            &[Sub, Mul, Add, Square],
        ];
        for ((len, ones), operations) in [1, 7, GROUP - 1, GROUP, GROUP + 1, 5 * GROUP - 1]
            .into_iter()
            .flat_map(|len| (0..8).map(move |ones| (len, ones)))
            .flat_map(|case| all.map(|operations| (case, operations)))
        {
            let arrays: [Vec<f32>; LONGEST + 1] = std::array::from_fn(|number| {
                let len = if ones >> number & 1 == 1 { 1 } else { len };
                (0..len).map(|i| 0.003 * i as f32 - 0.7 * number as f32 + 0.9).collect()
            });
            let at = |number: usize, i: usize| arrays[number][i.min(arrays[number].len() - 1)];
            let value = |count: usize, i: usize| {
                let with = |x, (number, &operation): (usize, &Operation)| apply(operation, x, at(number + 1, i));
                operations[..count].iter().enumerate().fold(at(0, i), with)
            };
            let values = |count: usize| -> Vec<f32> { (0..len).map(|i| value(count, i)).collect() };
            let of_chain = reads(operations, operand(&arrays[0]), arrays[1..].iter().map(|y| operand(y)).collect());
            for op in [UnaryOp::Exp, UnaryOp::Erf, UnaryOp::Sigmoid] {
                let linked = values(operations.len());
                let [want, _] = computed(op, &reads(&[], operand(&linked), vec![]), None, len);
                assert_eq!(computed(op, &of_chain, None, len)[0], want, "{op:?} {operations:?} {len} {ones:b}");
                for after in 0..=operations.len() {
                    let on_the_way: Vec<u32> = values(after).into_iter().map(f32::to_bits).collect();
                    let got = computed(op, &of_chain, Some(after), len);
                    assert_eq!(got, [want.clone(), on_the_way], "{op:?} {operations:?} {len} {ones:b} {after}");
                }
            }
        }
    }

    #[test]
    fn functions_are_what_their_rows_are() {
        let x: Vec<f32> = (0..3 * GROUP + 5).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        for (op, row) in [(UnaryOp::Exp, f64::exp as fn(f64) -> f64), (UnaryOp::Tanh, f64::tanh)] {
            let [got, _] = computed(op, &reads(&[], operand(&x), vec![]), None, x.len());
            for (got, &x) in got.iter().zip(&x) {
                let (got, want) = (f64::from(f32::from_bits(*got)), row(f64::from(x)));
                assert!((got - want).abs() <= 1e-6 * want.abs(), "{op:?} {x}: {got} {want}");
            }
        }
    }

    #[test]
    fn rows_begin_anew() {
        let (row, rows) = (9 * GROUP + 5, 4);
        let x: Vec<f32> = (0..row * rows).map(|i| (i as f32).sin()).collect();
        let (of_columns, of_rows) = (&x[..row], &x[..rows]);
        let shown = |strides: [isize; 2]| {
            let mut view = View::contiguous(&Shape::new(&[rows, row]));
            view.axes.iter_mut().zip(strides).for_each(|(axis, stride)| axis.stride = stride);
            match Strided::new(&view).shown(0, row * rows) {
                Shown::Rows(rows) => Some(rows),
                _ => panic!("rows"),
            }
        };
        let cases = [(of_columns, [0, 1]), (of_rows, [1, 0])];
        for (other, strides) in cases {
            let at = |i: usize| other[(i / row) * strides[0] as usize + (i % row) * strides[1] as usize];
            let product: Vec<f32> = (0..x.len()).map(|i| x[i] * at(i)).collect();
            let other = Operand { values: Slice::F32(other), rows: shown(strides) };
            let of_rows = reads(&[Operation::Mul], operand(&x), vec![other]);
            let [want, _] = computed(UnaryOp::Tanh, &reads(&[], operand(&product), vec![]), None, x.len());
            let on_the_way = product.iter().map(|x| x.to_bits()).collect();
            assert_eq!(computed(UnaryOp::Tanh, &of_rows, Some(1), x.len()), [want.clone(), on_the_way], "{strides:?}");
            assert_eq!(computed(UnaryOp::Tanh, &of_rows, None, x.len())[0], want, "{strides:?}");
        }
    }
}
