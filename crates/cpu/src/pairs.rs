//! Pairs of instructions: where one of two sums, differences, products or squares is read by the other alone, one loop computes
//! both, and what is between them stays in the processor.

use crate::loops::{Operand, Typed, vectorised};
use crate::slice::Slice;
use gradus_ir::DType;
use gradus_ir::op::{BinaryOp, UnaryOp};
use gradus_ir::plan::{Instruction, Register};

/// `(a inner b) outer c`, with what is in brackets in another place, or in both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    inner: BinaryOp,
    outer: BinaryOp,
    /// The registers `a`, `b` and `c`.
    pub(crate) operands: [Register; 3],
    /// The register of `a inner b`, which is not evaluated.
    pub(crate) between: Register,
    place: Place,
}

/// The operand of an outer instruction that the inner one computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Second,
    /// Of a square; `c` has no meaning.
    Both,
}

/// For each register, the pair that it is computed by. `is_between` tells whether a register is read once and needed by nothing
/// else.
pub(crate) fn pairs(instructions: &[(Instruction, DType)], is_between: impl Fn(Register) -> bool) -> Vec<Option<Pair>> {
    let arithmetic = |register: Register| match instructions[register] {
        (Instruction::Binary(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul), a, b), DType::F32) => {
            Some((op, a, b))
        }
        (Instruction::Unary(UnaryOp::Square, x), DType::F32) => Some((BinaryOp::Mul, x, x)),
        _ => None,
    };
    let mut pairs: Vec<Option<Pair>> = vec![None; instructions.len()];
    for register in 0..instructions.len() {
        let Some((outer, first, second)) = arithmetic(register) else { continue };
        let pair = |between: Register, other: Register, place: Place| {
            let (inner, a, b) = arithmetic(between).filter(|_| is_between(between) && pairs[between].is_none())?;
            let other = if place == Place::Both { a } else { other };
            Some(Pair { inner, outer, operands: [a, b, other], between, place })
        };
        let before = if first == second { Place::Both } else { Place::First };
        pairs[register] = pair(first, second, before).or_else(|| pair(second, first, Place::Second));
    }
    pairs
}

impl Pair {
    /// `out = pair(a, b, c)`.
    pub(crate) fn run(&self, [a, b, c]: [&Operand<'_>; 3], out: &mut [f32]) {
        match self.inner {
            BinaryOp::Add => self.run_outer([a, b, c], out, |a, b| a + b),
            BinaryOp::Sub => self.run_outer([a, b, c], out, |a, b| a - b),
            _ => self.run_outer([a, b, c], out, |a, b| a * b),
        }
    }

    fn run_outer(&self, operands: [&Operand<'_>; 3], out: &mut [f32], inner: impl Fn(f32, f32) -> f32) {
        let square = |x: f32| x * x;
        match (self.outer, self.place) {
            (_, Place::Both) => map3(operands, out, |a, b, _| square(inner(a, b))),
            (BinaryOp::Add, _) => map3(operands, out, |a, b, c| inner(a, b) + c),
            (BinaryOp::Sub, Place::First) => map3(operands, out, |a, b, c| inner(a, b) - c),
            (BinaryOp::Sub, Place::Second) => map3(operands, out, |a, b, c| c - inner(a, b)),
            _ => map3(operands, out, |a, b, c| inner(a, b) * c),
        }
    }
}

/// Maps three operands row by row.
#[inline(always)]
fn map3(operands: [&Operand<'_>; 3], out: &mut [f32], f: impl Fn(f32, f32, f32) -> f32) {
    let [a, b, c] = operands;
    let row = a.rows.or(b.rows).or(c.rows).map_or(out.len(), |rows| rows.len);
    let (a, b, c) = (Typed::new(f32s(a), a), Typed::new(f32s(b), b), Typed::new(f32s(c), c));
    vectorised(
        #[inline(always)]
        || {
            for (number, out) in out.chunks_mut(row.max(1)).enumerate() {
                map(a.row(number, row), b.row(number, row), c.row(number, row), out, &f);
            }
        },
    );
}

/// Maps slices, each as long as `out` or of a single element that stands for all.
#[inline(always)]
fn map(a: &[f32], b: &[f32], c: &[f32], out: &mut [f32], f: impl Fn(f32, f32, f32) -> f32) {
    let is_one = |slice: &[f32]| slice.len() == 1 && out.len() > 1;
    match (is_one(a), is_one(b), is_one(c)) {
        (false, false, false) => {
            out.iter_mut().zip(a).zip(b).zip(c).for_each(|(((out, &a), &b), &c)| *out = f(a, b, c));
        }
        (true, false, false) => out.iter_mut().zip(b).zip(c).for_each(|((out, &b), &c)| *out = f(a[0], b, c)),
        (false, true, false) => out.iter_mut().zip(a).zip(c).for_each(|((out, &a), &c)| *out = f(a, b[0], c)),
        (false, false, true) => out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = f(a, b, c[0])),
        (true, true, false) => out.iter_mut().zip(c).for_each(|(out, &c)| *out = f(a[0], b[0], c)),
        (true, false, true) => out.iter_mut().zip(b).for_each(|(out, &b)| *out = f(a[0], b, c[0])),
        (false, true, true) => out.iter_mut().zip(a).for_each(|(out, &a)| *out = f(a, b[0], c[0])),
        (true, true, true) => out.fill(f(a[0], b[0], c[0])),
    }
}

fn f32s<'a>(operand: &Operand<'a>) -> &'a [f32] {
    match operand.values {
        Slice::F32(values) => values,
        _ => unreachable!("pairs are of f32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instructions(list: &[Instruction]) -> Vec<(Instruction, DType)> {
        list.iter().map(|instruction| (instruction.clone(), DType::F32)).collect()
    }

    #[test]
    fn every_pair_is_what_its_instructions_are() {
        let value = |op: BinaryOp, a: f32, b: f32| match op {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            _ => a * b,
        };
        let ops = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul];
        for (inner, outer) in ops.into_iter().flat_map(|inner| ops.map(|outer| (inner, outer))) {
            let kinds = [Place::First, Place::Second, Place::Both]
                .into_iter()
                .flat_map(|place| (0..8).map(move |s| (place, s)));
            for ((place, singles), len) in kinds.flat_map(|kind| [1, 7, 100].map(|len| (kind, len))) {
                let load = Instruction::Load(0);
                let between = Instruction::Binary(inner, 0, 1);
                let whole = match place {
                    Place::First => Instruction::Binary(outer, 3, 2),
                    Place::Second => Instruction::Binary(outer, 2, 3),
                    Place::Both => Instruction::Unary(UnaryOp::Square, 3),
                };
                let pair = pairs(&instructions(&[load.clone(), load.clone(), load, between, whole]), |r| r == 3)[4];
                let pair = pair.expect("two that depend on each other");
                assert_eq!((&pair.operands[..2], pair.between), (&[0, 1][..], 3));

                let arrays: [Vec<f32>; 3] = std::array::from_fn(|operand| {
                    let len = if singles >> operand & 1 == 1 { 1 } else { len };
                    (0..len).map(|i| 0.3 * i as f32 - 1.7 * operand as f32).collect()
                });
                let operand = |operand: usize| Operand { values: Slice::F32(&arrays[operand]), rows: None };
                let mut out = vec![0.0; len];
                pair.run([&operand(0), &operand(1), &operand(2)], &mut out);
                for (i, &got) in out.iter().enumerate() {
                    let [a, b, c] = [0, 1, 2].map(|operand| arrays[operand][i.min(arrays[operand].len() - 1)]);
                    let between = value(inner, a, b);
                    let want = match place {
                        Place::First => value(outer, between, c),
                        Place::Second => value(outer, c, between),
                        Place::Both => between * between,
                    };
                    assert_eq!(got.to_bits(), want.to_bits(), "{inner:?} {outer:?} {place:?} {singles:b} {len}: {i}");
                }
            }
        }
    }

    #[test]
    fn what_is_needed_otherwise_is_in_no_pair() {
        let chain = |count: usize| {
            let sum =
                |i: usize| if i == 0 { Instruction::Load(0) } else { Instruction::Binary(BinaryOp::Add, i - 1, 0) };
            instructions(&(0..count).map(sum).collect::<Vec<_>>())
        };
        let between = |pairs: &[Option<Pair>]| -> Vec<Option<Register>> {
            pairs.iter().map(|pair| pair.map(|pair| pair.between)).collect()
        };
        // Two by two.
        assert_eq!(between(&pairs(&chain(5), |r| r > 0)), [None, None, Some(1), None, Some(3)]);
        assert_eq!(between(&pairs(&chain(5), |r| r == 2)), [None, None, None, Some(2), None]);
        assert!(pairs(&chain(5), |_| false).iter().all(Option::is_none));
        let mut other = chain(3);
        other[1].1 = DType::F16;
        assert!(pairs(&other, |r| r > 0).iter().all(Option::is_none));
    }
}
