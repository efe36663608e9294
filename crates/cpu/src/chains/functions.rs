//! The loops of functions of f32 that are computed from polynomials. They take longer than it takes to read what they are of: so
//! a sum or a product before one is computed with it, and memory is asked for meanwhile.

use super::Link;
#[cfg(target_arch = "x86_64")]
use super::erf::erf;
use crate::ahead::Ahead;
#[cfg(target_arch = "x86_64")]
use crate::loops::arch;
use crate::loops::{Operand, Typed, unary, vectorised_reals};
use gradus_ir::op::UnaryOp;
use gradus_ir::op::row::{Unary, UnaryVisitor};
#[cfg(target_arch = "x86_64")]
use pulp::x86::{Arch, V4};
use std::marker::PhantomData;

/// Elements that are computed at once: some vectors.
const STEP: usize = 32;

/// Functions with a larger error than this are computed from polynomials.
const ROUNDED: f64 = 0.5;

/// Whether a function has a loop here.
pub(crate) fn is_function(op: UnaryOp) -> bool {
    op.ulps() > ROUNDED
}

/// `out = row(x)`, or of what a link makes of x.
pub(crate) struct FunctionLoop<'l, 'a> {
    pub(crate) x: &'l Operand<'a>,
    pub(crate) link: Option<&'l Link<Operand<'a>>>,
    pub(crate) out: &'l mut [f32],
    /// What is asked for meanwhile.
    pub(crate) ahead: &'l Ahead,
}

impl FunctionLoop<'_, '_> {
    /// Computes a function of f32 that has a loop here.
    pub(crate) fn run(self, op: UnaryOp) {
        #[cfg(target_arch = "x86_64")]
        if let (UnaryOp::Erf, Arch::V4(simd)) = (op, arch()) {
            return simd.vectorize(
                #[inline(always)]
                || self.map_linked(ErfByTable(simd)),
            );
        }
        op.dispatch(self);
    }
}

impl UnaryVisitor for FunctionLoop<'_, '_> {
    type Output = ();
    fn visit<R: Unary>(self) {
        if R::ULPS <= ROUNDED {
            unreachable!("{} has a loop elsewhere", R::NAME);
        }
        vectorised_reals(
            #[inline(always)]
            |fuses| self.map_linked(Row { row: PhantomData::<R>, fuses }),
        );
    }
}

impl FunctionLoop<'_, '_> {
    #[inline(always)]
    fn map_linked(self, function: impl Function) {
        match self.link {
            None => self.map(function, Nothing),
            Some(Link::Square) => self.map(function, Square),
            Some(Link::Mul(_)) => self.map(function, Mul),
            Some(Link::Add(_)) => self.map(function, Add { signs: [0, 0] }),
            Some(Link::Sub(_)) => self.map(function, Add { signs: [0, MINUS] }),
            Some(Link::SubFrom(_)) => self.map(function, Add { signs: [MINUS, 0] }),
        }
    }

    /// Goes through the rows.
    #[inline(always)]
    fn map(self, function: impl Function, before: impl Before) {
        let FunctionLoop { x, link, out, ahead } = self;
        let other = link.and_then(|link| link.as_ref().other());
        let row = x.rows.or(other.and_then(|other| other.rows)).map_or(out.len(), |rows| rows.len).max(1);
        let (x, other) = (Typed::of(x), other.map(Typed::of));
        let mut ahead = ahead.parts(out.len().div_ceil(row) * row.div_ceil(STEP));
        for (number, out) in out.chunks_mut(row).enumerate() {
            let x = x.row(number, row);
            let y = other.as_ref().map_or(x, |other| other.row(number, row));
            let (x, y) = (Values::new(x), Values::new(y));
            let (steps, rest) = out.as_chunks_mut::<STEP>();
            let mut first = 0;
            for out in steps {
                ahead.ask();
                *out = function.step(x.step(first), y.step(first), before);
                first += STEP;
            }
            if !rest.is_empty() {
                ahead.ask();
                rest.copy_from_slice(&function.step(x.last(first), y.last(first), before)[..rest.len()]);
            }
        }
    }
}

/// How a function is computed.
trait Function {
    /// Some results. They are no slice, of which the compiler would not know that it does not overlap with what is read.
    fn step(&self, x: [f32; STEP], y: [f32; STEP], before: impl Before) -> [f32; STEP];
}

/// As the row of the op says.
struct Row<R> {
    row: PhantomData<R>,
    fuses: bool,
}
impl<R: Unary> Function for Row<R> {
    #[inline(always)]
    fn step(&self, x: [f32; STEP], y: [f32; STEP], before: impl Before) -> [f32; STEP] {
        let mut results = [0.0; STEP];
        for i in 0..STEP {
            results[i] = unary::<R, f32>(before.of(x[i], y[i]), self.fuses);
        }
        results
    }
}

/// The error function on AVX-512.
#[cfg(target_arch = "x86_64")]
struct ErfByTable(V4);
#[cfg(target_arch = "x86_64")]
impl Function for ErfByTable {
    #[inline(always)]
    fn step(&self, x: [f32; STEP], y: [f32; STEP], before: impl Before) -> [f32; STEP] {
        let mut results = [0.0; STEP];
        for i in 0..STEP {
            results[i] = before.of(x[i], y[i]);
        }
        let (vectors, _) = results.as_chunks_mut();
        for vector in vectors {
            *vector = erf(self.0, *vector);
        }
        results
    }
}

/// What steps read, of an operand that has as many elements as there are results, or one that stands for all.
struct Values<'a> {
    values: &'a [f32],
    /// The one, for a step.
    one: [f32; STEP],
    /// What remains of a place.
    mask: usize,
}

impl<'a> Values<'a> {
    #[inline(always)]
    fn new(values: &'a [f32]) -> Values<'a> {
        match values {
            &[one] => Values { values, one: [one; STEP], mask: 0 },
            _ => Values { values, one: [0.0; STEP], mask: usize::MAX },
        }
    }

    #[inline(always)]
    fn all(&self) -> &[f32] {
        if self.mask == 0 { &self.one } else { self.values }
    }

    /// From a place on.
    #[inline(always)]
    fn step(&self, first: usize) -> [f32; STEP] {
        *self.all()[first & self.mask..].first_chunk().expect("a whole step")
    }

    /// The same where fewer are left: zeros follow.
    #[inline(always)]
    fn last(&self, first: usize) -> [f32; STEP] {
        let left = &self.all()[first & self.mask..];
        let mut step = [0.0; STEP];
        step[..left.len()].copy_from_slice(left);
        step
    }
}

/// What is computed of two elements before a function.
trait Before: Copy {
    fn of(self, x: f32, y: f32) -> f32;
}

#[derive(Clone, Copy)]
struct Nothing;
impl Before for Nothing {
    #[inline(always)]
    fn of(self, x: f32, _: f32) -> f32 {
        x
    }
}

#[derive(Clone, Copy)]
struct Square;
impl Before for Square {
    #[inline(always)]
    fn of(self, x: f32, _: f32) -> f32 {
        x * x
    }
}

#[derive(Clone, Copy)]
struct Mul;
impl Before for Mul {
    #[inline(always)]
    fn of(self, x: f32, y: f32) -> f32 {
        x * y
    }
}

/// The sign bit.
const MINUS: u32 = 1 << 31;

/// A sum of elements, of which these bits change.
#[derive(Clone, Copy)]
struct Add {
    signs: [u32; 2],
}
impl Before for Add {
    #[inline(always)]
    fn of(self, x: f32, y: f32) -> f32 {
        f32::from_bits(x.to_bits() ^ self.signs[0]) + f32::from_bits(y.to_bits() ^ self.signs[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Shown, Strided};
    use crate::slice::Slice;
    use gradus_ir::{Shape, View};

    fn computed(op: UnaryOp, x: &Operand<'_>, link: Option<&Link<Operand<'_>>>, len: usize) -> Vec<u32> {
        let mut out = vec![f32::NAN; len];
        FunctionLoop { x, link, out: &mut out, ahead: &Ahead::default() }.run(op);
        out.into_iter().map(f32::to_bits).collect()
    }

    type Linked = fn(f32, f32) -> f32;

    fn operand(values: &[f32]) -> Operand<'_> {
        Operand { values: Slice::F32(values), rows: None }
    }

    #[test]
    fn links_are_computed_with_functions() {
        for (len, ones) in
            [1, 7, STEP, STEP + 1, 5 * STEP - 1].into_iter().flat_map(|len| [(len, 0), (len, 1), (len, 2)])
        {
            let array = |number: usize| -> Vec<f32> {
                let len = if ones == number { 1 } else { len };
                (0..len).map(|i| 0.03 * i as f32 - 0.7 * number as f32).collect()
            };
            let (x, y) = (array(1), array(2));
            let at = |array: &[f32], i: usize| array[i.min(array.len() - 1)];
            let other = || operand(&y);
            let links: [(Link<Operand<'_>>, Linked); 5] = [
                (Link::Square, |x, _| x * x),
                (Link::Mul(other()), |x, y| x * y),
                (Link::Add(other()), |x, y| x + y),
                (Link::Sub(other()), |x, y| x - y),
                (Link::SubFrom(other()), |x, y| y - x),
            ];
            for (number, (link, f)) in links.iter().enumerate() {
                let linked: Vec<f32> = (0..len).map(|i| f(at(&x, i), at(&y, i))).collect();
                for op in [UnaryOp::Exp, UnaryOp::Erf, UnaryOp::Sigmoid] {
                    let want = computed(op, &operand(&linked), None, len);
                    assert_eq!(computed(op, &operand(&x), Some(link), len), want, "{op:?} {number} {len} {ones}");
                }
            }
        }
    }

    #[test]
    fn rows_begin_anew() {
        let (row, rows) = (9 * STEP + 5, 4);
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
            let link = Link::Mul(Operand { values: Slice::F32(other), rows: shown(strides) });
            let want = computed(UnaryOp::Tanh, &operand(&product), None, x.len());
            assert_eq!(computed(UnaryOp::Tanh, &operand(&x), Some(&link), x.len()), want, "{strides:?}");
        }
    }
}
