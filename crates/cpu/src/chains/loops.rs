//! The loops of chains, one for each sequence of operations.

use super::LONGEST;
use super::piece::{Kind, Operation, Piece, Reads};
use pulp::{Simd, WithSimd};

/// Vectors that are computed side by side, so that none waits for another.
pub(super) const VECTORS: usize = 4;

/// Computes a chain. Loops are told of what they do by reference, for the same reason as [`crate::loops::UnaryLoop`].
pub(crate) struct Run<'l, 'a> {
    reads: &'l Reads<'l, 'a>,
    piece: Piece<'a>,
    piece_len: usize,
    out: &'l mut [f32],
}

impl<'l, 'a> Run<'l, 'a> {
    pub(crate) fn new(reads: &'l Reads<'l, 'a>, out: &'l mut [f32]) -> Run<'l, 'a> {
        let piece_len = reads.piece_len(out.len());
        Run { reads, piece: Piece::NOTHING, piece_len, out }
    }
}

/// An operation, known to the compiler.
pub(super) trait Op {
    fn apply<S: Simd, const N: usize>(simd: S, x: &mut [S::f32s; N], link: &Loaded<'_, S>, first: usize);
}

/// A link, with its numbers in vectors.
pub(super) struct Loaded<'a, S: Simd> {
    array: &'a [f32],
    operation: Operation,
    factor: S::f32s,
    summand: S::f32s,
}

struct One;
impl Op for One {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(simd: S, x: &mut [S::f32s; N], link: &Loaded<'_, S>, _: usize) {
        for x in x {
            *x = simd.mul_add_e_f32s(*x, link.factor, link.summand);
        }
    }
}

struct Add;
impl Op for Add {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(simd: S, x: &mut [S::f32s; N], link: &Loaded<'_, S>, first: usize) {
        let y = vectors::<S, N>(link.array, first);
        match link.operation {
            Operation::Sub => {
                for i in 0..N {
                    x[i] = simd.sub_f32s(x[i], y[i]);
                }
            }
            Operation::SubFrom => {
                for i in 0..N {
                    x[i] = simd.sub_f32s(y[i], x[i]);
                }
            }
            _ => {
                for i in 0..N {
                    x[i] = simd.add_f32s(x[i], y[i]);
                }
            }
        }
    }
}

struct Mul;
impl Op for Mul {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(simd: S, x: &mut [S::f32s; N], link: &Loaded<'_, S>, first: usize) {
        let y = vectors::<S, N>(link.array, first);
        for i in 0..N {
            x[i] = simd.mul_f32s(x[i], y[i]);
        }
    }
}

struct Square;
impl Op for Square {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(simd: S, x: &mut [S::f32s; N], _: &Loaded<'_, S>, _: usize) {
        for x in x {
            *x = simd.mul_f32s(*x, *x);
        }
    }
}

/// Stands for operations that a short chain lacks.
pub(super) struct Nothing;
impl Op for Nothing {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(_: S, _: &mut [S::f32s; N], _: &Loaded<'_, S>, _: usize) {}
}

/// What is done for a sequence of operations.
pub(super) trait Visitor<S: Simd>: Sized {
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S);
}

/// Finds the loop of some operations.
#[inline(always)]
pub(super) fn dispatch<S: Simd>(simd: S, kinds: [Option<Kind>; LONGEST], visitor: impl Visitor<S>) {
    #[inline(always)]
    fn second<S: Simd, A: Op>(simd: S, kinds: [Option<Kind>; LONGEST], visitor: impl Visitor<S>) {
        match kinds[1] {
            None => visitor.visit::<A, Nothing, Nothing, Nothing>(simd),
            Some(Kind::One) => third::<S, A, One>(simd, kinds, visitor),
            Some(Kind::Add) => third::<S, A, Add>(simd, kinds, visitor),
            Some(Kind::Mul) => third::<S, A, Mul>(simd, kinds, visitor),
            Some(Kind::Square) => visitor.visit::<A, Square, Nothing, Nothing>(simd),
        }
    }
    #[inline(always)]
    fn third<S: Simd, A: Op, B: Op>(simd: S, kinds: [Option<Kind>; LONGEST], visitor: impl Visitor<S>) {
        match kinds[2] {
            None => visitor.visit::<A, B, Nothing, Nothing>(simd),
            Some(Kind::One) => fourth::<S, A, B, One>(simd, kinds, visitor),
            Some(Kind::Add) => fourth::<S, A, B, Add>(simd, kinds, visitor),
            Some(Kind::Mul) => fourth::<S, A, B, Mul>(simd, kinds, visitor),
            Some(Kind::Square) => visitor.visit::<A, B, Square, Nothing>(simd),
        }
    }
    #[inline(always)]
    fn fourth<S: Simd, A: Op, B: Op, C: Op>(simd: S, kinds: [Option<Kind>; LONGEST], visitor: impl Visitor<S>) {
        match kinds[3] {
            None => visitor.visit::<A, B, C, Nothing>(simd),
            Some(Kind::One) => visitor.visit::<A, B, C, One>(simd),
            Some(Kind::Add) => visitor.visit::<A, B, C, Add>(simd),
            Some(Kind::Mul) => visitor.visit::<A, B, C, Mul>(simd),
            Some(Kind::Square) => visitor.visit::<A, B, C, Square>(simd),
        }
    }
    match kinds[0] {
        None => visitor.visit::<Nothing, Nothing, Nothing, Nothing>(simd),
        Some(Kind::One) => second::<S, One>(simd, kinds, visitor),
        Some(Kind::Add) => second::<S, Add>(simd, kinds, visitor),
        Some(Kind::Mul) => second::<S, Mul>(simd, kinds, visitor),
        Some(Kind::Square) => visitor.visit::<Square, Nothing, Nothing, Nothing>(simd),
    }
}

/// Vectors of an array, from an element on.
#[inline(always)]
pub(super) fn vectors<S: Simd, const N: usize>(array: &[f32], first: usize) -> [S::f32s; N] {
    let vectors = S::as_simd_f32s(&array[first..first + N * S::F32_LANES]).0;
    *vectors.first_chunk().expect("so many vectors")
}

impl<'a> Piece<'a> {
    /// What a loop over so many elements needs.
    #[inline(always)]
    pub(super) fn loaded<S: Simd>(&self, simd: S, len: usize) -> Values<'a, S> {
        Values {
            start: &self.start[..len],
            links: [self.link(simd, 0, len), self.link(simd, 1, len), self.link(simd, 2, len), self.link(simd, 3, len)],
        }
    }

    #[inline(always)]
    fn link<S: Simd>(&self, simd: S, number: usize, len: usize) -> Loaded<'a, S> {
        // Of arrays of one length, the compiler knows what lies in all of them.
        let array = self.arrays[number].get(..len).unwrap_or(&[]);
        let (factor, summand) = (simd.splat_f32s(self.factors[number]), simd.splat_f32s(self.summands[number]));
        Loaded { array, operation: self.operations[number], factor, summand }
    }
}

/// A piece in a loop.
pub(super) struct Values<'a, S: Simd> {
    start: &'a [f32],
    links: [Loaded<'a, S>; LONGEST],
}

impl<S: Simd> Values<'_, S> {
    /// Some vectors, from an element on.
    #[inline(always)]
    pub(super) fn vectors<const N: usize, A: Op, B: Op, C: Op, D: Op>(&self, simd: S, first: usize) -> [S::f32s; N] {
        let mut x = vectors::<S, N>(self.start, first);
        A::apply(simd, &mut x, &self.links[0], first);
        B::apply(simd, &mut x, &self.links[1], first);
        C::apply(simd, &mut x, &self.links[2], first);
        D::apply(simd, &mut x, &self.links[3], first);
        x
    }
}

impl WithSimd for &mut Run<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.reads.go_to(&mut self.piece, 0, 0, self.piece_len.min(self.out.len()));
        match self.piece.all {
            Some(_) => self.fill(),
            None => dispatch(simd, self.piece.kinds(), self),
        }
    }
}

impl Run<'_, '_> {
    /// Fills pieces that are one number each.
    fn fill(&mut self) {
        for (number, out) in self.out.chunks_mut(self.piece_len).enumerate() {
            self.reads.go_to(&mut self.piece, number, number * self.piece_len, out.len());
            self.piece.all.iter().for_each(|&all| out.fill(all));
        }
    }
}

impl<S: Simd> Visitor<S> for &mut Run<'_, '_> {
    #[inline(always)]
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S) {
        let Run { reads, piece, piece_len, out } = self;
        for (number, out) in out.chunks_mut(*piece_len).enumerate() {
            if number > 0 {
                reads.go_to(piece, number, number * *piece_len, out.len());
            }
            let Some(last) = out.len().checked_sub(S::F32_LANES) else {
                out.iter_mut().enumerate().for_each(|(place, out)| *out = piece.element(place));
                continue;
            };
            let values = piece.loaded(simd, out.len());
            // What is stored across lines of the cache takes four times as long, so most vectors lie in lines. The first and the
            // last one overlap with their neighbours: parts of vectors would take longer.
            let begin = out.as_ptr().align_offset(size_of::<S::f32s>()).min(last);
            if begin > 0 {
                values.store::<A, B, C, D>(simd, out, 0);
            }
            let mut first = begin;
            while first + VECTORS * S::F32_LANES <= out.len() {
                let vectors = values.vectors::<VECTORS, A, B, C, D>(simd, first);
                let group = S::as_mut_simd_f32s(&mut out[first..first + VECTORS * S::F32_LANES]).0;
                group.copy_from_slice(&vectors);
                first += VECTORS * S::F32_LANES;
            }
            while first < out.len() {
                let at = first.min(last);
                values.store::<A, B, C, D>(simd, out, at);
                first = at + S::F32_LANES;
            }
        }
    }
}

impl<S: Simd> Values<'_, S> {
    /// Stores a vector where it belongs, wherever that lies in a line of the cache.
    #[inline(always)]
    fn store<A: Op, B: Op, C: Op, D: Op>(&self, simd: S, out: &mut [f32], first: usize) {
        let [vector] = self.vectors::<1, A, B, C, D>(simd, first);
        S::as_mut_simd_f32s(&mut out[first..first + S::F32_LANES]).0[0] = vector;
    }
}
