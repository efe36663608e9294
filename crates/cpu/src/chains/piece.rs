//! What chains read: pieces of blocks, in which all operands have neighbouring elements, or one for all.

use super::LONGEST;
use crate::loops::Operand;
use crate::slice::Slice;

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

/// A piece of a block: elements that all operands have in neighbouring places. It lies in single fields, which are read as they
/// are written: reading by other widths seems to wait until all that was written before, the piece before, is in the cache.
pub(super) struct Piece<'a> {
    pub(super) start: &'a [f32],
    /// How many links there are: operations as a loop does them.
    pub(super) count: usize,
    pub(super) kinds: [Kind; LONGEST],
    pub(super) operations: [Operation; LONGEST],
    /// What links read for each element.
    pub(super) arrays: [&'a [f32]; LONGEST],
    /// [`Operation::by`] one number.
    pub(super) factors: [f32; LONGEST],
    pub(super) summands: [f32; LONGEST],
    /// What all elements are, if no array is read.
    pub(super) all: Option<f32>,
}

/// What a loop is compiled for.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// With one number for all elements.
    One,
    /// A sum or a difference with an array. Which of them, the loop asks for each group of vectors: so there are fewer loops.
    Add,
    Mul,
    Square,
}

impl Operation {
    /// A factor and a summand: with one number for all, a sum or a product is x · factor + summand. What is multiplied by 1 or -1 is
    /// exact, and so is what -0 is added to: these are the bits of the operation, whether both are done at once or one after the other.
    #[inline(always)]
    pub(super) fn by(self, one: f32) -> Option<(f32, f32)> {
        match self {
            Operation::Add => Some((1.0, one)),
            Operation::Sub => Some((1.0, -one)),
            Operation::SubFrom => Some((-1.0, one)),
            Operation::Mul => Some((one, -0.0)),
            Operation::Square => None,
        }
    }

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
    pub(super) fn piece_len(&self, len: usize) -> usize {
        let operands = std::iter::once(&self.start).chain(self.others.iter().flatten());
        let mut lens = operands.filter_map(|operand| operand.rows).map(|rows| rows.len);
        let piece = lens.next().unwrap_or(len).max(1);
        debug_assert!(lens.all(|len| len == piece), "a program has rows of one length");
        piece
    }

    /// Goes to a piece, the one with this number, place in the block and number of elements. All have links of the same kinds.
    pub(super) fn go_to(&self, piece: &mut Piece<'a>, number: usize, place: usize, len: usize) {
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

impl<'a> Piece<'a> {
    pub(super) const NOTHING: Piece<'static> = Piece {
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
        (self.factors[link], self.summands[link]) = operation.by(one).unwrap_or((1.0, 0.0));
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
    pub(super) fn kinds(&self) -> [Option<Kind>; LONGEST] {
        let kind = |number: usize| (number < self.count).then(|| self.kinds[number]);
        [kind(0), kind(1), kind(2), kind(3)]
    }

    /// An element.
    pub(super) fn element(&self, place: usize) -> f32 {
        (0..self.count).fold(self.start[place], |x, link| match self.kinds[link] {
            Kind::One => x * self.factors[link] + self.summands[link],
            Kind::Add | Kind::Mul => apply(self.operations[link], x, self.arrays[link][place]),
            Kind::Square => x * x,
        })
    }
}
