//! Expressions on their own: what a register of a group is made of, to be computed again elsewhere.

use crate::op::{BinaryOp, Op, UnaryOp};
use crate::plan::{Expression, Instruction, Load, Register};
use crate::{DType, Shape};

/// A space, what is read at each of its indices, and what is computed; the last register is the result.
#[derive(Clone)]
pub(super) struct Builder {
    pub(super) space: Shape,
    pub(super) loads: Vec<Load>,
    pub(super) expression: Expression,
}

impl Builder {
    pub(super) fn new(space: Shape) -> Builder {
        Builder { space, loads: Vec::new(), expression: Expression::default() }
    }

    /// A load as it is.
    pub(super) fn of_load(load: Load, dtype: DType) -> Builder {
        Builder { space: load.view.shape(), loads: vec![load], expression: Expression::of_load(0, dtype) }
    }

    /// One instruction that reads nothing.
    pub(super) fn of_source(source: Instruction, space: Shape, dtype: DType) -> Builder {
        Builder { space, loads: Vec::new(), expression: Expression { instructions: vec![(source, dtype)] } }
    }

    /// The position of a load, which may be there already.
    pub(super) fn load(&mut self, load: Load) -> usize {
        position_or_push(&mut self.loads, load)
    }

    /// The result in another dtype.
    pub(super) fn cast(mut self, dtype: DType) -> Builder {
        let last = self.expression.instructions.len() - 1;
        self.expression.push(Instruction::Cast(last), dtype);
        self
    }

    pub(super) fn has(&self, condition: impl Fn(&Instruction) -> bool) -> bool {
        self.expression.instructions.iter().any(|(instruction, _)| condition(instruction))
    }

    /// The same values seen through a view op, if every load can be.
    pub(super) fn through(&self, op: &Op, shape: &Shape) -> Option<Builder> {
        match op {
            // Padding is zero, not what the expression makes of zeros.
            Op::Pad(_) => return None,
            // Elements are seen many times over.
            Op::Window(_) if self.expression.instructions.len() > 1 => return None,
            _ => {}
        }
        // A gather counts axes, a random number positions, which a reshape keeps.
        let gathers = self.has(|i| matches!(i, Instruction::Gather { .. }));
        let draws = self.has(|i| matches!(i, Instruction::Random(_)));
        if gathers || (draws && !matches!(op, Op::Reshape)) {
            return None;
        }
        let repeats = shape.numel() > self.space.numel();
        if repeats && self.has(is_dear) {
            return None;
        }
        let seen = |load: &Load| Some(Load { view: load.view.through(op, shape)?, ..*load });
        let loads = self.loads.iter().map(seen).collect::<Option<Vec<_>>>()?;
        let mut expression = self.expression.clone();
        for (instruction, _) in &mut expression.instructions {
            if let Instruction::Iota(axis) = instruction {
                *axis = axis_through(op, *axis, &self.space, shape)?;
            }
        }
        Some(Builder { space: shape.clone(), loads, expression })
    }
}

/// The place of an item, at the end if it was not there.
pub(super) fn position_or_push<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|other| *other == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}

/// Appends instructions, whose loads are now elsewhere, to an expression; gives the place of each of them.
pub(super) fn append(to: &mut Expression, from: &Expression, loads: &[usize]) -> Vec<Register> {
    let mut places: Vec<Register> = Vec::with_capacity(from.instructions.len());
    for (instruction, dtype) in &from.instructions {
        places.push(to.push(instruction.renumbered(|load| loads[load], |r| places[r]), *dtype));
    }
    places
}

/// Where an axis lies after a view op, if an index along it still counts the same.
pub(super) fn axis_through(op: &Op, axis: usize, from: &Shape, to: &Shape) -> Option<usize> {
    match op {
        Op::Reshape => {
            let before = |shape: &Shape, axis: usize| shape[..axis].iter().product::<usize>();
            let outer = before(from, axis);
            (0..to.len()).find(|&other| to[other] == from[axis] && before(to, other) == outer)
        }
        Op::Permute(axes) => axes.iter().position(|&a| a == axis),
        Op::Expand => (from[axis] == to[axis]).then_some(axis),
        Op::Slice(slices) => (slices[axis].start == 0 && slices[axis].step == 1).then_some(axis),
        _ => None,
    }
}

/// Whether an instruction is worth a kernel of its own rather than being repeated.
pub(super) fn is_dear(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Unary(op, _) => !matches!(
            op,
            UnaryOp::Neg
                | UnaryOp::Abs
                | UnaryOp::Sign
                | UnaryOp::Square
                | UnaryOp::Recip
                | UnaryOp::Sqrt
                | UnaryOp::Rsqrt
                | UnaryOp::Relu
                | UnaryOp::Floor
                | UnaryOp::Ceil
                | UnaryOp::Round
                | UnaryOp::Trunc
                | UnaryOp::Not
        ),
        Instruction::Random(_) => true,
        other => loops(other),
    }
}

/// Whether an instruction loops on a GPU. A row program would count its turns many times over, and some adapters end what
/// takes 65,535 of them in all.
pub(super) fn loops(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Binary(BinaryOp::Pow | BinaryOp::Rem, ..))
}
