//! The loops of chains, one for each sequence of operations.

use crate::chains::{LONGEST, Link};
use crate::loops::Operand;
use crate::slice::Slice;
use pulp::{Simd, WithSimd};
use smallvec::SmallVec;

/// Vectors that are computed side by side, so that none waits for another.
const VECTORS: usize = 4;

/// Groups of [`VECTORS`] that are summed up as f32 before their sums become f64.
const GROUPS: usize = 16;

/// The operations of a chain, with what they read.
pub(crate) type Links<'a> = SmallVec<[Link<Operand<'a>>; LONGEST]>;

/// Computes a chain.
pub(crate) struct Run<'l, 'a> {
    pub(crate) start: &'l Operand<'a>,
    pub(crate) links: &'l Links<'a>,
    /// So many elements at a time are read from neighbouring places.
    pub(crate) piece: usize,
    pub(crate) out: &'l mut [f32],
}

/// Sums up rows of a chain.
pub(crate) struct Sum<'l, 'a> {
    pub(crate) start: &'l Operand<'a>,
    pub(crate) links: &'l Links<'a>,
    /// So many elements at a time are read from neighbouring places; a row is some of these, or they are some rows.
    pub(crate) piece: usize,
    /// The elements of a row, and of all.
    pub(crate) row: usize,
    pub(crate) len: usize,
    /// One for each row.
    pub(crate) sums: &'l mut [f64],
}

/// How many elements of a block all operands have in neighbouring places.
pub(crate) fn piece(start: &Operand<'_>, links: &Links<'_>, len: usize) -> usize {
    let operands = std::iter::once(start).chain(links.iter().filter_map(|link| link.as_ref().other()));
    let mut lens = operands.filter_map(|operand| operand.rows).map(|rows| rows.len);
    let piece = lens.next().unwrap_or(len).max(1);
    debug_assert!(lens.all(|len| len == piece), "a program has rows of one length");
    piece
}

/// An operation, known to the compiler.
trait Op {
    /// Whether it has a second operand.
    const READS: bool;
    fn apply<S: Simd>(simd: S, x: S::f32s, y: S::f32s, signs: Signs<S>) -> S::f32s;
}

/// The sign bits that a sum changes: of what a chain has come to, and of what is added.
type Signs<S> = [<S as Simd>::f32s; 2];

struct Add;
impl Op for Add {
    const READS: bool = true;
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: S::f32s, y: S::f32s, [minus, minus_other]: Signs<S>) -> S::f32s {
        simd.add_f32s(simd.xor_f32s(x, minus), simd.xor_f32s(y, minus_other))
    }
}

struct Mul;
impl Op for Mul {
    const READS: bool = true;
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: S::f32s, y: S::f32s, _: Signs<S>) -> S::f32s {
        simd.mul_f32s(x, y)
    }
}

struct Square;
impl Op for Square {
    const READS: bool = false;
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: S::f32s, _: S::f32s, _: Signs<S>) -> S::f32s {
        simd.mul_f32s(x, x)
    }
}

/// Stands for operations that a short chain lacks.
struct Nothing;
impl Op for Nothing {
    const READS: bool = false;
    #[inline(always)]
    fn apply<S: Simd>(_: S, x: S::f32s, _: S::f32s, _: Signs<S>) -> S::f32s {
        x
    }
}

/// What is done for a sequence of operations.
trait Visitor<S: Simd>: Sized {
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S);
}

/// Finds the operations of some links.
#[inline(always)]
fn dispatch<S: Simd, T>(simd: S, links: &[Link<T>], visitor: impl Visitor<S>) {
    #[inline(always)]
    fn second<S: Simd, T, A: Op>(simd: S, links: &[Link<T>], visitor: impl Visitor<S>) {
        match links.get(1) {
            None => visitor.visit::<A, Nothing, Nothing, Nothing>(simd),
            Some(Link::Add { .. }) => third::<S, T, A, Add>(simd, links, visitor),
            Some(Link::Mul(_)) => third::<S, T, A, Mul>(simd, links, visitor),
            Some(Link::Square) => visitor.visit::<A, Square, Nothing, Nothing>(simd),
        }
    }
    #[inline(always)]
    fn third<S: Simd, T, A: Op, B: Op>(simd: S, links: &[Link<T>], visitor: impl Visitor<S>) {
        match links.get(2) {
            None => visitor.visit::<A, B, Nothing, Nothing>(simd),
            Some(Link::Add { .. }) => fourth::<S, T, A, B, Add>(simd, links, visitor),
            Some(Link::Mul(_)) => fourth::<S, T, A, B, Mul>(simd, links, visitor),
            Some(Link::Square) => visitor.visit::<A, B, Square, Nothing>(simd),
        }
    }
    #[inline(always)]
    fn fourth<S: Simd, T, A: Op, B: Op, C: Op>(simd: S, links: &[Link<T>], visitor: impl Visitor<S>) {
        match links.get(3) {
            None => visitor.visit::<A, B, C, Nothing>(simd),
            Some(Link::Add { .. }) => visitor.visit::<A, B, C, Add>(simd),
            Some(Link::Mul(_)) => visitor.visit::<A, B, C, Mul>(simd),
            Some(Link::Square) => visitor.visit::<A, B, C, Square>(simd),
        }
    }
    match links.first() {
        None => visitor.visit::<Nothing, Nothing, Nothing, Nothing>(simd),
        Some(Link::Add { .. }) => second::<S, T, Add>(simd, links, visitor),
        Some(Link::Mul(_)) => second::<S, T, Mul>(simd, links, visitor),
        Some(Link::Square) => visitor.visit::<Square, Nothing, Nothing, Nothing>(simd),
    }
}

/// What is read of an operand for a piece.
#[derive(Clone, Copy)]
struct View<'a> {
    /// As many elements as the piece has, or one that stands for all.
    values: &'a [f32],
    is_one: bool,
}

impl<'a> View<'a> {
    const NOTHING: View<'static> = View { values: &[0.0], is_one: true };

    /// So many elements, which begin the piece with this number and place in the block.
    #[inline(always)]
    fn of(operand: &Operand<'a>, number: usize, place: usize, len: usize) -> View<'a> {
        let Slice::F32(values) = operand.values else { unreachable!("chains are of f32") };
        let (start, is_one) = match operand.rows {
            Some(rows) => (rows.start(number), rows.is_one),
            None if values.len() == 1 => (0, true),
            None => (place, false),
        };
        View { values: &values[start..][..if is_one { 1 } else { len }], is_one }
    }

    /// Vectors, from an element on.
    #[inline(always)]
    fn vectors<S: Simd, const N: usize>(self, simd: S, first: usize) -> [S::f32s; N] {
        match self.is_one {
            true => [simd.splat_f32s(self.values[0]); N],
            false => {
                let vectors = S::as_simd_f32s(&self.values[first..]).0;
                *vectors.first_chunk().expect("as many as there are results")
            }
        }
    }

    /// So many elements, fewer than a vector has, from one on.
    #[inline(always)]
    fn part<S: Simd>(self, simd: S, first: usize, len: usize) -> S::f32s {
        match self.is_one {
            true => simd.splat_f32s(self.values[0]),
            false => simd.partial_load_f32s(&self.values[first..first + len]),
        }
    }
}

/// A chain over a piece.
struct Piece<'a, S: Simd> {
    start: View<'a>,
    others: [View<'a>; LONGEST],
    signs: [Signs<S>; LONGEST],
}

impl<'a, S: Simd> Piece<'a, S> {
    #[inline(always)]
    fn new(simd: S, links: &[Link<Operand<'a>>]) -> Piece<'a, S> {
        let sign = |is_minus: bool| simd.splat_f32s(if is_minus { -0.0 } else { 0.0 });
        let mut signs = [[sign(false); 2]; LONGEST];
        for (signs, link) in signs.iter_mut().zip(links) {
            if let Link::Add { minus, minus_other, .. } = link {
                *signs = [sign(*minus), sign(*minus_other)];
            }
        }
        Piece { start: View::NOTHING, others: [View::NOTHING; LONGEST], signs }
    }

    /// Goes to so many elements, which begin the piece with this number and place in the block.
    #[inline(always)]
    fn go_to(&mut self, start: &Operand<'a>, links: &[Link<Operand<'a>>], (number, place): (usize, usize), len: usize) {
        self.start = View::of(start, number, place, len);
        for (view, link) in self.others.iter_mut().zip(links) {
            if let Some(operand) = link.as_ref().other() {
                *view = View::of(operand, number, place, len);
            }
        }
    }

    /// The values of some vectors, of which `read` finds what they are computed from.
    #[inline(always)]
    fn values<const N: usize, A: Op, B: Op, C: Op, D: Op>(
        &self,
        simd: S,
        read: impl Fn(View<'a>) -> [S::f32s; N],
    ) -> [S::f32s; N] {
        let mut x = read(self.start);
        self.apply::<N, A>(simd, &mut x, 0, &read);
        self.apply::<N, B>(simd, &mut x, 1, &read);
        self.apply::<N, C>(simd, &mut x, 2, &read);
        self.apply::<N, D>(simd, &mut x, 3, &read);
        x
    }

    #[inline(always)]
    fn apply<const N: usize, O: Op>(
        &self,
        simd: S,
        x: &mut [S::f32s; N],
        number: usize,
        read: &impl Fn(View<'a>) -> [S::f32s; N],
    ) {
        let y = if O::READS { read(self.others[number]) } else { *x };
        for i in 0..N {
            x[i] = O::apply(simd, x[i], y[i], self.signs[number]);
        }
    }

    #[inline(always)]
    fn vectors<const N: usize, A: Op, B: Op, C: Op, D: Op>(&self, simd: S, first: usize) -> [S::f32s; N] {
        self.values::<N, A, B, C, D>(
            simd,
            #[inline(always)]
            |view| view.vectors(simd, first),
        )
    }

    #[inline(always)]
    fn part<A: Op, B: Op, C: Op, D: Op>(&self, simd: S, first: usize, len: usize) -> S::f32s {
        let [part] = self.values::<1, A, B, C, D>(
            simd,
            #[inline(always)]
            |view| [view.part(simd, first, len)],
        );
        part
    }

    /// The sum of some elements.
    #[inline(always)]
    fn sum<A: Op, B: Op, C: Op, D: Op>(&self, simd: S, first: usize, len: usize) -> f64 {
        let group = VECTORS * S::F32_LANES;
        let (grouped, whole) = (first + len / group * group, first + len / S::F32_LANES * S::F32_LANES);
        let zero = simd.splat_f32s(0.0);
        let mut total = 0.0;
        for begin in (first..grouped).step_by(GROUPS * group) {
            let mut sums = [zero; VECTORS];
            for begin in (begin..grouped.min(begin + GROUPS * group)).step_by(group) {
                let values = self.vectors::<VECTORS, A, B, C, D>(simd, begin);
                for i in 0..VECTORS {
                    sums[i] = simd.add_f32s(sums[i], values[i]);
                }
            }
            let [a, b, c, d] = sums;
            total += sum(bytemuck::cast_slice(&[simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d))]));
        }
        let mut last = zero;
        for begin in (grouped..whole).step_by(S::F32_LANES) {
            let [values] = self.vectors::<1, A, B, C, D>(simd, begin);
            last = simd.add_f32s(last, values);
        }
        if grouped < whole {
            total += sum(bytemuck::cast_slice(&[last]));
        }
        if whole < first + len {
            let rest = first + len - whole;
            total += sum(&bytemuck::cast_slice(&[self.part::<A, B, C, D>(simd, whole, rest)])[..rest]);
        }
        total
    }
}

impl WithSimd for Run<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        dispatch(simd, self.links, self);
    }
}

impl<S: Simd> Visitor<S> for Run<'_, '_> {
    #[inline(always)]
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S) {
        let mut piece = Piece::new(simd, self.links);
        for (number, out) in self.out.chunks_mut(self.piece).enumerate() {
            piece.go_to(self.start, self.links, (number, number * self.piece), out.len());
            // What is stored across lines of the cache takes four times as long.
            let begin = out.as_ptr().align_offset(size_of::<S::f32s>()).min(out.len());
            let (before, out) = out.split_at_mut(begin);
            if begin > 0 {
                simd.partial_store_f32s(before, piece.part::<A, B, C, D>(simd, 0, begin));
            }
            let (vectors, rest) = S::as_mut_simd_f32s(out);
            let (groups, single) = vectors.as_chunks_mut::<VECTORS>();
            let mut first = begin;
            for group in groups {
                *group = piece.vectors::<VECTORS, A, B, C, D>(simd, first);
                first += VECTORS * S::F32_LANES;
            }
            for vector in single {
                [*vector] = piece.vectors::<1, A, B, C, D>(simd, first);
                first += S::F32_LANES;
            }
            if !rest.is_empty() {
                simd.partial_store_f32s(rest, piece.part::<A, B, C, D>(simd, first, rest.len()));
            }
        }
    }
}

impl WithSimd for Sum<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        dispatch(simd, self.links, self);
    }
}

impl<S: Simd> Visitor<S> for Sum<'_, '_> {
    #[inline(always)]
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S) {
        let mut piece = Piece::new(simd, self.links);
        // Pieces hold whole rows, or rows whole pieces.
        let part = self.piece.min(self.row);
        let (mut sums, mut total, mut left) = (self.sums.iter_mut(), 0.0, self.row);
        for (number, place) in (0..self.len).step_by(self.piece).enumerate() {
            let len = self.piece.min(self.len - place);
            piece.go_to(self.start, self.links, (number, place), len);
            for first in (0..len).step_by(part) {
                total += piece.sum::<A, B, C, D>(simd, first, part);
                left -= part;
                if left == 0 {
                    *sums.next().expect("one for each row") = total;
                    (total, left) = (0.0, self.row);
                }
            }
        }
    }
}

/// The sum of the lanes of a vector.
#[inline(always)]
fn sum(lanes: &[f32]) -> f64 {
    let (fours, rest) = lanes.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        sums.iter_mut().zip(four).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let [a, b, c, d] = sums;
    rest.iter().fold((a + b) + (c + d), |sum, &x| sum + f64::from(x))
}
