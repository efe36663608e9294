//! The loops of chains, one for each sequence of operations.

use crate::ahead::Ahead;
use crate::best::WIDEST;
use crate::chains::LONGEST;
use crate::loops::Operand;
use crate::slice::Slice;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Vectors that are computed side by side, so that none waits for another.
const VECTORS: usize = 4;

/// Groups of [`VECTORS`] that are summed up as f32 before their sums become f64.
const GROUPS: usize = 16;

/// An operation on what a chain has come to, and on another operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operation {
    Add,
    Sub,
    /// What the chain has come to is subtracted from the other.
    SubFrom,
    Mul,
    /// This one has no other operand.
    Square,
}

/// What a chain reads of a block.
pub(crate) struct Reads<'l, 'a> {
    pub(crate) operations: &'l [Operation],
    /// What it begins with, and the other operands of its operations.
    pub(crate) start: Operand<'a>,
    pub(crate) others: [Option<Operand<'a>>; LONGEST],
}

/// Computes a chain. Loops are told of what they do by reference, for the same reason as [`crate::loops::UnaryLoop`].
pub(crate) struct Run<'l, 'a> {
    reads: &'l Reads<'l, 'a>,
    piece: Piece<'a>,
    piece_len: usize,
    out: &'l mut [f32],
}

/// Sums up rows of a chain.
pub(crate) struct Sum<'l, 'a> {
    reads: &'l Reads<'l, 'a>,
    piece: Piece<'a>,
    /// A row is some pieces, or a piece some rows.
    piece_len: usize,
    /// The elements of a row, and of all.
    row: usize,
    len: usize,
    /// One for each row.
    sums: &'l mut [f64],
    /// What is asked for meanwhile.
    ahead: &'l Ahead,
}

impl<'l, 'a> Run<'l, 'a> {
    pub(crate) fn new(reads: &'l Reads<'l, 'a>, out: &'l mut [f32]) -> Run<'l, 'a> {
        let piece_len = reads.piece_len(out.len());
        Run { reads, piece: Piece::NOTHING, piece_len, out }
    }
}

impl<'l, 'a> Sum<'l, 'a> {
    /// Sums of rows of so many elements.
    pub(crate) fn new(reads: &'l Reads<'l, 'a>, row: usize, sums: &'l mut [f64], ahead: &'l Ahead) -> Sum<'l, 'a> {
        let len = row * sums.len();
        let piece_len = reads.piece_len(len);
        Sum { reads, piece: Piece::NOTHING, piece_len, row, len, sums, ahead }
    }
}

/// A piece of a block: elements that all operands have in neighbouring places. It lies in single fields, which are read as they
/// are written: reading by other widths seems to wait until all that was written before, the piece before, is in the cache.
struct Piece<'a> {
    start: &'a [f32],
    /// How many links there are: operations as a loop does them.
    count: usize,
    kinds: [Kind; LONGEST],
    operations: [Operation; LONGEST],
    /// What links read for each element.
    arrays: [&'a [f32]; LONGEST],
    /// With one number for all, a sum or a product is x · factor + summand. What is multiplied by 1 or -1 is exact, and so is
    /// what -0 is added to: these are the bits of the operation, whether both are done at once or one after the other.
    factors: [f32; LONGEST],
    summands: [f32; LONGEST],
    /// What all elements are, if no array is read.
    all: Option<f32>,
}

/// What a loop is compiled for.
#[derive(Clone, Copy)]
enum Kind {
    /// With one number for all elements.
    One,
    /// A sum or a difference with an array. Which of them, the loop asks for each group of vectors: so there are fewer loops.
    Add,
    Mul,
    Square,
}

impl Operation {
    /// The same of the two operands in the other order.
    fn turned(self) -> Operation {
        match self {
            Operation::Sub => Operation::SubFrom,
            Operation::SubFrom => Operation::Sub,
            other => other,
        }
    }
}

/// An operation on two numbers.
fn apply(operation: Operation, x: f32, other: f32) -> f32 {
    match operation {
        Operation::Add => x + other,
        Operation::Sub => x - other,
        Operation::SubFrom => other - x,
        Operation::Mul => x * other,
        Operation::Square => x * x,
    }
}

/// So many elements of an operand, which begin the piece with this number and place in the block, or one that stands for all.
#[inline(always)]
fn view<'a>(operand: &Operand<'a>, number: usize, place: usize, len: usize) -> Result<&'a [f32], f32> {
    let Slice::F32(values) = operand.values else { unreachable!("chains are of f32") };
    match operand.rows {
        Some(rows) if rows.is_one => Err(values[rows.start(number)]),
        Some(rows) => Ok(&values[rows.start(number)..][..len]),
        None if values.len() == 1 => Err(values[0]),
        None => Ok(&values[place..][..len]),
    }
}

impl<'a> Reads<'_, 'a> {
    /// How many elements a piece has, of a block of so many.
    fn piece_len(&self, len: usize) -> usize {
        let operands = std::iter::once(&self.start).chain(self.others.iter().flatten());
        let mut lens = operands.filter_map(|operand| operand.rows).map(|rows| rows.len);
        let piece = lens.next().unwrap_or(len).max(1);
        debug_assert!(lens.all(|len| len == piece), "a program has rows of one length");
        piece
    }

    /// Goes to a piece, the one with this number, place in the block and number of elements. All have links of the same kinds.
    fn go_to(&self, piece: &mut Piece<'a>, number: usize, place: usize, len: usize) {
        let mut next = 0;
        piece.count = 0;
        piece.all = None;
        match view(&self.start, number, place, len) {
            Ok(array) => piece.start = array,
            Err(one) => match self.first_array(one, number, place, len) {
                Err(all) => return piece.all = Some(all),
                Ok((link, one, array)) => {
                    // The one becomes the other operand of the first operation with an array.
                    piece.start = array;
                    piece.push_one(self.operations[link].turned(), one);
                    next = link + 1;
                }
            },
        }
        while next < self.operations.len() {
            let operation = self.operations[next];
            match &self.others[next] {
                None => piece.push_one(operation, 0.0),
                Some(other) => match view(other, number, place, len) {
                    Err(one) => piece.push_one(operation, one),
                    Ok(array) => piece.push_array(operation, array),
                },
            }
            next += 1;
        }
    }

    /// The first operation with an array, what a chain that begins with one number for all has come to before it, and the array;
    /// or what all elements are, if there is none.
    #[cold]
    fn first_array(
        &self,
        mut one: f32,
        number: usize,
        place: usize,
        len: usize,
    ) -> Result<(usize, f32, &'a [f32]), f32> {
        for (link, (&operation, other)) in self.operations.iter().zip(&self.others).enumerate() {
            match other.as_ref().map_or(Err(0.0), |other| view(other, number, place, len)) {
                Ok(array) => return Ok((link, one, array)),
                Err(other) => one = apply(operation, one, other),
            }
        }
        Err(one)
    }
}

/// An operation, known to the compiler.
trait Op {
    fn apply<S: Simd, const N: usize>(simd: S, x: &mut [S::f32s; N], link: &Loaded<'_, S>, first: usize);
}

/// A link, with its numbers in vectors.
struct Loaded<'a, S: Simd> {
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
struct Nothing;
impl Op for Nothing {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(_: S, _: &mut [S::f32s; N], _: &Loaded<'_, S>, _: usize) {}
}

/// What is done for a sequence of operations.
trait Visitor<S: Simd>: Sized {
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S);
}

/// Finds the loop of some operations.
#[inline(always)]
fn dispatch<S: Simd>(simd: S, kinds: [Option<Kind>; LONGEST], visitor: impl Visitor<S>) {
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
fn vectors<S: Simd, const N: usize>(array: &[f32], first: usize) -> [S::f32s; N] {
    let vectors = S::as_simd_f32s(&array[first..first + N * S::F32_LANES]).0;
    *vectors.first_chunk().expect("so many vectors")
}

impl<'a> Piece<'a> {
    const NOTHING: Piece<'static> = Piece {
        start: &[],
        count: 0,
        kinds: [Kind::Square; LONGEST],
        operations: [Operation::Square; LONGEST],
        arrays: [&[]; LONGEST],
        factors: [1.0; LONGEST],
        summands: [0.0; LONGEST],
        all: None,
    };

    /// An operation with one number.
    #[inline(always)]
    fn push_one(&mut self, operation: Operation, one: f32) {
        let link = self.count;
        (self.factors[link], self.summands[link]) = match operation {
            Operation::Add => (1.0, one),
            Operation::Sub => (1.0, -one),
            Operation::SubFrom => (-1.0, one),
            Operation::Mul => (one, -0.0),
            Operation::Square => (1.0, 0.0),
        };
        self.kinds[link] = if operation == Operation::Square { Kind::Square } else { Kind::One };
        self.count = link + 1;
    }

    /// An operation with an array.
    #[inline(always)]
    fn push_array(&mut self, operation: Operation, array: &'a [f32]) {
        let link = self.count;
        self.arrays[link] = array;
        self.operations[link] = operation;
        self.kinds[link] = if operation == Operation::Mul { Kind::Mul } else { Kind::Add };
        self.count = link + 1;
    }

    /// What the loops are compiled for.
    fn kinds(&self) -> [Option<Kind>; LONGEST] {
        let kind = |number: usize| (number < self.count).then(|| self.kinds[number]);
        [kind(0), kind(1), kind(2), kind(3)]
    }

    /// An element.
    fn element(&self, place: usize) -> f32 {
        (0..self.count).fold(self.start[place], |x, link| match self.kinds[link] {
            Kind::One => x * self.factors[link] + self.summands[link],
            Kind::Add | Kind::Mul => apply(self.operations[link], x, self.arrays[link][place]),
            Kind::Square => x * x,
        })
    }

    /// What a loop over so many elements needs.
    #[inline(always)]
    fn loaded<S: Simd>(&self, simd: S, len: usize) -> Values<'a, S> {
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
struct Values<'a, S: Simd> {
    start: &'a [f32],
    links: [Loaded<'a, S>; LONGEST],
}

impl<S: Simd> Values<'_, S> {
    /// Some vectors, from an element on.
    #[inline(always)]
    fn vectors<const N: usize, A: Op, B: Op, C: Op, D: Op>(&self, simd: S, first: usize) -> [S::f32s; N] {
        let mut x = vectors::<S, N>(self.start, first);
        A::apply(simd, &mut x, &self.links[0], first);
        B::apply(simd, &mut x, &self.links[1], first);
        C::apply(simd, &mut x, &self.links[2], first);
        D::apply(simd, &mut x, &self.links[3], first);
        x
    }

    /// The sum of some elements, at least a vector.
    #[inline(always)]
    fn sum<A: Op, B: Op, C: Op, D: Op>(&self, simd: S, first: usize, len: usize, ask: &mut impl FnMut()) -> f64 {
        let (group, end) = (VECTORS * S::F32_LANES, first + len);
        let zero = simd.splat_f32s(0.0);
        let (mut total, mut begin) = (0.0, first);
        while begin + group <= end {
            let mut sums = [zero; VECTORS];
            for _ in 0..GROUPS.min((end - begin) / group) {
                ask();
                let values = self.vectors::<VECTORS, A, B, C, D>(simd, begin);
                for i in 0..VECTORS {
                    sums[i] = simd.add_f32s(sums[i], values[i]);
                }
                begin += group;
            }
            let [a, b, c, d] = sums;
            total += sum(simd, simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        }
        if begin == end {
            return total;
        }
        let mut last = zero;
        while begin + S::F32_LANES <= end {
            let [values] = self.vectors::<1, A, B, C, D>(simd, begin);
            last = simd.add_f32s(last, values);
            begin += S::F32_LANES;
        }
        if begin < end {
            // The last vector, of which the first lanes were summed up before.
            let mut values = self.vectors::<1, A, B, C, D>(simd, end - S::F32_LANES);
            bytemuck::cast_slice_mut::<_, f32>(&mut values)[..S::F32_LANES - (end - begin)].fill(0.0);
            last = simd.add_f32s(last, values[0]);
        }
        total + sum(simd, last)
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

impl WithSimd for &mut Sum<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.reads.go_to(&mut self.piece, 0, 0, self.piece_len.min(self.len));
        match self.piece.all {
            Some(_) => self.multiply(),
            None if self.part() < S::F32_LANES => self.add_one_by_one(),
            // Where nothing is computed nor asked for, rows take no longer than it takes to read them.
            None if self.piece.count == 0 && self.ahead.is_empty() => {
                self.add_up::<S, Nothing, Nothing, Nothing, Nothing>(simd, &mut || {});
            }
            None => dispatch(simd, self.piece.kinds(), self),
        }
    }
}

impl Sum<'_, '_> {
    /// The elements of a row in a piece.
    fn part(&self) -> usize {
        self.piece_len.min(self.row)
    }

    /// Goes through pieces, of which `add` adds up the elements, so many at a time.
    #[inline(always)]
    fn each_piece(&mut self, mut add: impl FnMut(&Piece<'_>, Range<usize>, usize, &mut Totals<'_>)) {
        let part = self.part();
        let mut totals = Totals { sums: self.sums.iter_mut(), row: self.row, total: 0.0, left: self.row };
        for (number, place) in (0..self.len).step_by(self.piece_len).enumerate() {
            let len = self.piece_len.min(self.len - place);
            if number > 0 {
                self.reads.go_to(&mut self.piece, number, place, len);
            }
            add(&self.piece, 0..len, part, &mut totals);
        }
    }

    /// Sums of rows that are shorter than a vector.
    fn add_one_by_one(&mut self) {
        self.each_piece(|piece, places, part, totals| {
            for first in places.step_by(part) {
                totals.add((first..first + part).map(|place| f64::from(piece.element(place))).sum(), part);
            }
        });
    }

    /// Sums of pieces that are one number each.
    fn multiply(&mut self) {
        self.each_piece(|piece, places, part, totals| {
            let sum = f64::from(piece.all.unwrap_or_default()) * part as f64;
            places.step_by(part).for_each(|_| totals.add(sum, part));
        });
    }
}

/// Sums of rows, whose elements come part by part.
struct Totals<'l> {
    sums: std::slice::IterMut<'l, f64>,
    /// The elements of a row.
    row: usize,
    /// What the present row has come to, and how many of its elements are left.
    total: f64,
    left: usize,
}

impl Totals<'_> {
    /// Adds the sum of so many elements.
    #[inline(always)]
    fn add(&mut self, sum: f64, elements: usize) {
        self.total += sum;
        self.left -= elements;
        if self.left == 0 {
            self.sums.next().into_iter().for_each(|row| *row = self.total);
            (self.total, self.left) = (0.0, self.row);
        }
    }
}

impl<S: Simd> Visitor<S> for &mut Sum<'_, '_> {
    #[inline(always)]
    fn visit<A: Op, B: Op, C: Op, D: Op>(self, simd: S) {
        let mut ahead = self.ahead.parts(self.len / (VECTORS * S::F32_LANES));
        self.add_up::<S, A, B, C, D>(simd, &mut || ahead.ask());
    }
}

impl Sum<'_, '_> {
    /// Sums up vectors, and asks for what is used next meanwhile.
    #[inline(always)]
    fn add_up<S: Simd, A: Op, B: Op, C: Op, D: Op>(&mut self, simd: S, ask: &mut impl FnMut()) {
        self.each_piece(
            #[inline(always)]
            |piece, places, part, totals| {
                let values = piece.loaded(simd, places.end);
                for first in places.step_by(part) {
                    totals.add(values.sum::<A, B, C, D>(simd, first, part, ask), part);
                }
            },
        );
    }
}

/// The sum of the lanes of a vector. With vectors of f64 the compiler keeps to them; of single numbers it makes shorter ones.
#[inline(always)]
fn sum<S: Simd>(simd: S, vector: S::f32s) -> f64 {
    let mut lanes = [0.0; WIDEST];
    for (lane, &x) in lanes.iter_mut().zip(bytemuck::cast_slice::<_, f32>(&[vector])) {
        *lane = f64::from(x);
    }
    match S::as_simd_f64s(&lanes[..S::F32_LANES]).0 {
        &[a, b] => simd.reduce_sum_f64s(simd.add_f64s(a, b)),
        vectors => vectors.iter().map(|&vector| simd.reduce_sum_f64s(vector)).sum(),
    }
}
