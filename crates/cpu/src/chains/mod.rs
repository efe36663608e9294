//! Chains: sums, differences, products and squares of f32 that read each other, or one of them and a function of it. One loop
//! computes them all, and what is between stays in the processor. Here are the chains of a program.

#[cfg(target_arch = "x86_64")]
mod erf;
mod functions;
mod loops;
mod piece;
mod sums;

use crate::ahead::Ahead;
use crate::loops::{Operand, simd};
use functions::FunctionLoop;
pub(crate) use functions::is_function;
use gradus_ir::DType;
use gradus_ir::op::{BinaryOp, UnaryOp};
use gradus_ir::plan::{Instruction, Register};
use loops::Run;
use piece::{Operation, Reads};
use smallvec::SmallVec;
use sums::Sum;

/// The longest chain: there is a loop for each sequence of operations.
pub(crate) const LONGEST: usize = 4;

/// A register as a chain computes it: it begins with another one, to which operations are applied one after the other, and at the
/// end of some a function.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chain {
    start: Register,
    links: SmallVec<[Link; LONGEST]>,
    /// What the links are.
    operations: SmallVec<[Operation; LONGEST]>,
    function: Option<UnaryOp>,
}

/// A chain that ends in a function, and gives a register that it passes through, too.
#[derive(Debug)]
pub(crate) struct Joined {
    chain: Chain,
    /// That register, and after how many operations the chain has come to it.
    pub(crate) through: Register,
    after: usize,
}

/// What a chain may be extended by.
#[derive(Clone, Copy, Debug)]
enum Step {
    Link(Link),
    Function(UnaryOp),
}

/// An operation on what a chain has come to, and what else it reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    Add(Register),
    Sub(Register),
    /// What the chain has come to is subtracted from the other.
    SubFrom(Register),
    Mul(Register),
    /// This one is always the last.
    Square,
}

impl Link {
    fn operation(&self) -> Operation {
        match self {
            Link::Add(_) => Operation::Add,
            Link::Sub(_) => Operation::Sub,
            Link::SubFrom(_) => Operation::SubFrom,
            Link::Mul(_) => Operation::Mul,
            Link::Square => Operation::Square,
        }
    }

    fn other(self) -> Option<Register> {
        match self {
            Link::Add(other) | Link::Sub(other) | Link::SubFrom(other) | Link::Mul(other) => Some(other),
            Link::Square => None,
        }
    }
}

/// The registers that an instruction may extend, and by what.
fn extensions((instruction, dtype): &(Instruction, DType)) -> SmallVec<[(Register, Step); 2]> {
    if *dtype != DType::F32 {
        return SmallVec::new();
    }
    let one = |from: Register, step: Step| [(from, step)].into_iter().collect();
    let two = |(a, of_a), (b, of_b)| [(a, Step::Link(of_a)), (b, Step::Link(of_b))].into_iter().collect();
    match *instruction {
        Instruction::Unary(UnaryOp::Square, x) => one(x, Step::Link(Link::Square)),
        Instruction::Unary(op, x) if is_function(op) => one(x, Step::Function(op)),
        Instruction::Binary(BinaryOp::Mul, a, b) if a == b => one(a, Step::Link(Link::Square)),
        Instruction::Binary(_, a, b) if a == b => SmallVec::new(),
        Instruction::Binary(BinaryOp::Add, a, b) => two((a, Link::Add(b)), (b, Link::Add(a))),
        Instruction::Binary(BinaryOp::Sub, a, b) => two((a, Link::Sub(b)), (b, Link::SubFrom(a))),
        Instruction::Binary(BinaryOp::Mul, a, b) => two((a, Link::Mul(b)), (b, Link::Mul(a))),
        _ => SmallVec::new(),
    }
}

/// The extension of one that is passed through, if there is one.
fn extension(instruction: &(Instruction, DType), passed: &[bool]) -> Option<(Register, Step)> {
    let extensions = extensions(instruction);
    extensions.iter().find(|(from, _)| passed[*from]).or(extensions.first()).copied()
}

/// The chains of a program.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// For each register, the chain that it is computed by, if it is.
    of: Vec<Option<Chain>>,
    /// Registers that chains pass through. They are not evaluated.
    passed: Vec<bool>,
    /// For each register, the chain that computes it together with the one that its own begins with, if there is one.
    joined: Vec<Option<Joined>>,
    /// What is summed up, and the chains that end there.
    sums: Vec<(Register, Chain)>,
}

impl Chains {
    /// Finds chains. `is_needed` tells which registers must be evaluated, `is_still` which are one element for a whole row. Of those
    /// that are `summed` up, each element may be forgotten as soon as it is added.
    pub(crate) fn new(
        instructions: &[(Instruction, DType)],
        is_needed: impl Fn(Register) -> bool,
        is_still: impl Fn(Register) -> bool,
        summed: &[Register],
    ) -> Chains {
        let all = 0..instructions.len();
        let mut readers = vec![0; instructions.len()];
        for (instruction, _) in instructions {
            let mut operands = instruction.operands();
            operands.sort_unstable();
            operands.dedup();
            operands.iter().for_each(|&operand| readers[operand] += 1);
        }
        summed.iter().for_each(|&r| readers[r] += 1);
        // What takes no longer to compute than to read may be computed by each of its readers.
        let is_cheap = |r: Register| {
            let operands = instructions[r].0.operands();
            let is_load = |r: &Register| matches!(instructions[*r].0, Instruction::Load(_)) || is_still(*r);
            operands.iter().all(is_load) && operands.iter().filter(|&&operand| !is_still(operand)).count() <= 1
        };
        let is_link = |r: Register| matches!(extensions(&instructions[r])[..], [(_, Step::Link(_)), ..]);
        let may_pass = |r: Register| !is_needed(r) && is_link(r) && (readers[r] == 1 || is_cheap(r));
        let mut passed: Vec<bool> = all.clone().map(may_pass).collect();
        loop {
            let chains = chains(instructions, &passed);
            let mut extended = vec![0; instructions.len()];
            let steps = instructions.iter().filter_map(|instruction| extension(instruction, &passed));
            let takes = |(from, step): &(Register, Step)| chains[*from].as_ref().is_some_and(|chain| chain.takes(step));
            steps.filter(takes).for_each(|(from, _)| extended[from] += 1);
            // All that read it must extend it.
            let keeps = |&r: &Register| passed[r] && extended[r] + summed.contains(&r) as usize != readers[r];
            let kept: Vec<Register> = all.clone().filter(keeps).collect();
            if kept.is_empty() {
                let of = |r: Register| chains[r].as_ref().filter(|_| !passed[r]);
                let reads = |r: Register, other: Register| match of(r) {
                    Some(chain) => chain.operands().any(|operand| operand == other),
                    None => !passed[r] && instructions[r].0.operands().contains(&other),
                };
                let joined = |r: Register| {
                    let (chain, through) = (of(r)?, of(r)?.start);
                    // What reads it before has it computed before.
                    let is_read = (through + 1..r).any(|other| reads(other, through));
                    of(through).filter(|_| !is_read)?.joined(chain, through)
                };
                let joined = all.clone().map(joined).collect();
                let of = |r: Register| of(r).filter(|chain| chain.is_loop()).cloned();
                let sum = |&r: &Register| match &chains[r] {
                    Some(chain) if passed[r] => (r, chain.clone()),
                    _ => (r, Chain::beginning(r)),
                };
                let sums = summed.iter().map(sum).collect();
                return Chains { of: all.map(of).collect(), passed, joined, sums };
            }
            kept.into_iter().for_each(|r| passed[r] = false);
        }
    }

    /// The chain that computes a register, if one does.
    pub(crate) fn of(&self, register: Register) -> Option<&Chain> {
        self.of[register].as_ref()
    }

    /// The chain that computes a register together with the one that its own begins with, if there is one.
    pub(crate) fn joined(&self, register: Register) -> Option<&Joined> {
        self.joined[register].as_ref()
    }

    /// Whether a register is not evaluated, since all that want it compute it.
    pub(crate) fn is_passed(&self, register: Register) -> bool {
        self.passed[register]
    }

    /// The chain that ends in the sums of a register.
    pub(crate) fn sums(&self, register: Register) -> Option<&Chain> {
        self.sums.iter().find(|(r, _)| *r == register).map(|(_, chain)| chain)
    }
}

/// The chain of each register that may have one.
fn chains(instructions: &[(Instruction, DType)], passed: &[bool]) -> Vec<Option<Chain>> {
    let mut chains: Vec<Option<Chain>> = Vec::with_capacity(instructions.len());
    for instruction in instructions {
        let chain = extension(instruction, passed).map(|(from, step)| {
            let before = chains[from].as_ref().filter(|chain| passed[from] && chain.takes(&step));
            before.cloned().unwrap_or_else(|| Chain::beginning(from)).followed(step)
        });
        chains.push(chain);
    }
    chains
}

impl Chain {
    fn beginning(start: Register) -> Chain {
        Chain { start, links: SmallVec::new(), operations: SmallVec::new(), function: None }
    }

    /// Whether there is a loop for it: for a single operation, which goes through rows in its own way, there is another one.
    fn is_loop(&self) -> bool {
        self.links.len() > 1 || self.is_function()
    }

    /// Whether a step may follow.
    fn takes(&self, step: &Step) -> bool {
        match step {
            _ if self.is_function() => false,
            Step::Function(_) => true,
            Step::Link(_) => {
                self.links.len() < LONGEST && (self.links.len() <= 1 || self.links.last() != Some(&Link::Square))
            }
        }
    }

    fn followed(mut self, step: Step) -> Chain {
        match step {
            Step::Function(op) => self.function = Some(op),
            Step::Link(link) => {
                if self.links[..] == [Link::Square] {
                    self.links[0] = Link::Mul(self.start);
                }
                self.links.push(link);
                self.operations = self.links.iter().map(|link| link.operation()).collect();
            }
        }
        self
    }

    /// This one and one that begins with it, the register `through`, as one with a function at its end.
    fn joined(&self, next: &Chain, through: Register) -> Option<Joined> {
        let fits = self.function.is_none() && next.is_function() && self.links.len() + next.links.len() <= LONGEST;
        let mut chain = fits.then(|| self.clone())?;
        chain.links.extend_from_slice(&next.links);
        chain.operations.extend_from_slice(&next.operations);
        chain.function = next.function;
        Some(Joined { chain, through, after: self.links.len() })
    }

    /// Whether it ends in a function, which takes so long that memory may be asked for meanwhile.
    pub(crate) fn is_function(&self) -> bool {
        self.function.is_some()
    }

    /// The registers that it reads.
    pub(crate) fn operands(&self) -> impl Iterator<Item = Register> {
        std::iter::once(self.start).chain(self.links.iter().filter_map(|link| link.other()))
    }

    /// Computes `out`. Meanwhile a function asks for what is used next.
    pub(crate) fn run<'a>(&self, previous: impl Fn(Register) -> Operand<'a>, out: &mut [f32], ahead: &Ahead) {
        if let Some(op) = self.function {
            return self.function(op, previous, None, out, ahead);
        }
        simd(&mut Run::new(&self.reads(previous), out));
    }

    /// The sums of rows of so many elements, one for each row. Meanwhile this asks for what is used next.
    pub(crate) fn sums<'a>(
        &self,
        previous: impl Fn(Register) -> Operand<'a>,
        row: usize,
        sums: &mut [f64],
        ahead: &Ahead,
    ) {
        simd(&mut Sum::new(&self.reads(previous), row, sums, ahead));
    }

    fn function<'a>(
        &self,
        op: UnaryOp,
        previous: impl Fn(Register) -> Operand<'a>,
        also: Option<(usize, &mut [f32])>,
        out: &mut [f32],
        ahead: &Ahead,
    ) {
        FunctionLoop { reads: &self.reads(previous), also, out, ahead }.run(op);
    }

    fn reads<'a>(&self, previous: impl Fn(Register) -> Operand<'a>) -> Reads<'_, 'a> {
        let other = |number: usize| self.links.get(number).and_then(|link| link.other()).map(&previous);
        Reads {
            operations: &self.operations,
            start: previous(self.start),
            others: [other(0), other(1), other(2), other(3)],
        }
    }
}

impl Joined {
    /// The registers that it reads.
    pub(crate) fn operands(&self) -> impl Iterator<Item = Register> {
        self.chain.operands()
    }

    /// Computes `out`, and the register that the chain passes through. Meanwhile this asks for what is used next.
    pub(crate) fn run<'a>(
        &self,
        previous: impl Fn(Register) -> Operand<'a>,
        through: &mut [f32],
        out: &mut [f32],
        ahead: &Ahead,
    ) {
        let op = self.chain.function.expect("a function at its end");
        self.chain.function(op, previous, Some((self.after, through)), out, ahead);
    }
}

/// `out = op(x)`, of a function that has a loop here.
pub(crate) fn function<'a>(op: UnaryOp, x: Operand<'a>, out: &mut [f32]) {
    let reads = Reads { operations: &[], start: x, others: [const { None }; LONGEST] };
    FunctionLoop { reads: &reads, also: None, out, ahead: &Ahead::default() }.run(op);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Slice;

    const ARRAYS: usize = LONGEST + 1;

    /// The loads of some arrays, and then these instructions.
    fn instructions(list: &[Instruction]) -> Vec<(Instruction, DType)> {
        let loads = (0..ARRAYS).map(Instruction::Load);
        loads.chain(list.iter().cloned()).map(|instruction| (instruction, DType::F32)).collect()
    }

    /// Sequences of so many operations; each but the first reads the register before it and the next array.
    fn sequences(len: usize) -> impl Iterator<Item = Vec<Instruction>> {
        (0..5usize.pow(len as u32)).map(move |number| {
            let operation = |place: usize| {
                let before = if place == 0 { 0 } else { ARRAYS + place - 1 };
                match number / 5usize.pow(place as u32) % 5 {
                    0 => Instruction::Binary(BinaryOp::Add, before, place + 1),
                    1 => Instruction::Binary(BinaryOp::Sub, before, place + 1),
                    2 => Instruction::Binary(BinaryOp::Sub, place + 1, before),
                    3 => Instruction::Binary(BinaryOp::Mul, place + 1, before),
                    _ => Instruction::Unary(UnaryOp::Square, before),
                }
            };
            (0..len).map(operation).collect()
        })
    }

    /// What a register is, of the elements at a place.
    fn value(instructions: &[(Instruction, DType)], register: Register, at: &impl Fn(usize) -> f32) -> f32 {
        let value = |register: Register| value(instructions, register, at);
        match instructions[register].0 {
            Instruction::Load(array) => at(array),
            Instruction::Binary(BinaryOp::Add, a, b) => value(a) + value(b),
            Instruction::Binary(BinaryOp::Sub, a, b) => value(a) - value(b),
            Instruction::Binary(BinaryOp::Mul, a, b) => value(a) * value(b),
            Instruction::Unary(UnaryOp::Square, x) => value(x) * value(x),
            ref other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn every_chain_is_what_its_instructions_are() {
        for sequence in (1..=LONGEST).flat_map(sequences) {
            let instructions = instructions(&sequence);
            let last = instructions.len() - 1;
            let stored = Chains::new(&instructions, |r| r == last, |_| false, &[]);
            let summed = Chains::new(&instructions, |_| false, |_| false, &[last]);
            for (len, singles) in [1, 7, 63, 200].into_iter().flat_map(|len| [0, 1, 2, 13, 31].map(|s| (len, s))) {
                let arrays: [Vec<f32>; ARRAYS] = std::array::from_fn(|array| {
                    let len = if singles >> array & 1 == 1 { 1 } else { len };
                    (0..len).map(|i| 0.03 * i as f32 - 0.7 * array as f32 + 0.1).collect()
                });
                let at = |i: usize| {
                    let arrays = &arrays;
                    move |array: usize| arrays[array][i.min(arrays[array].len() - 1)]
                };
                let of = |chains: &Chains, register: Register| -> Vec<f32> {
                    let chain = chains.of(register).expect("a chain");
                    let operand = |r: Register| Operand { values: Slice::F32(&arrays[r]), rows: None };
                    // Wherever in a line of the cache it begins.
                    let mut out = vec![0.0; len + len % 5];
                    chain.run(operand, &mut out[len % 5..], &Ahead::default());
                    out.split_off(len % 5)
                };
                let is_one_chain = stored.of(last).is_some_and(|chain| chain.operands().all(|r| r < ARRAYS));
                if is_one_chain {
                    for (i, got) in of(&stored, last).into_iter().enumerate() {
                        let want = value(&instructions, last, &at(i));
                        assert_eq!(got.to_bits(), want.to_bits(), "{sequence:?} {singles:b} {len}: {i}");
                    }
                }
                let chain = summed.sums(last).expect("what is summed up");
                if chain.operands().all(|r| r < ARRAYS) {
                    let operand = |r: Register| Operand { values: Slice::F32(&arrays[r]), rows: None };
                    let values: Vec<f64> = (0..len).map(|i| f64::from(value(&instructions, last, &at(i)))).collect();
                    for row in [len, if len % 7 == 0 { 7 } else { 1 }] {
                        let mut sums = vec![f64::NAN; len / row];
                        chain.sums(operand, row, &mut sums, &Ahead::default());
                        for (got, values) in sums.iter().zip(values.chunks(row)) {
                            let (sum, size) = values.iter().fold((0.0, 0.0), |(s, n), x| (s + x, n + x.abs()));
                            assert!((got - sum).abs() <= 1e-6 * size, "{sequence:?} {singles:b} {row}: {got} {sum}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn squares_end_a_chain_unless_they_begin_it() {
        let chain = |sequence: &[Instruction], register: Register| {
            let instructions = instructions(sequence);
            let last = instructions.len() - 1;
            let chains = Chains::new(&instructions, |r| r == last, |_| false, &[]);
            chains.of(register).map(|chain| (chain.start, chain.links.to_vec()))
        };
        let square = |x| Instruction::Unary(UnaryOp::Square, x);
        let product = |a, b| Instruction::Binary(BinaryOp::Mul, a, b);
        let (first, second, third) = (ARRAYS, ARRAYS + 1, ARRAYS + 2);
        assert_eq!(chain(&[square(0), product(first, 1)], second), Some((0, vec![Link::Mul(0), Link::Mul(1)])));
        assert_eq!(chain(&[product(0, 1), square(first)], second), Some((0, vec![Link::Mul(1), Link::Square])));
        // The product with itself is the last of one chain, and alone in the next.
        let longer = [product(0, 1), product(first, first), product(second, 2)];
        assert_eq!(chain(&longer, second), Some((0, vec![Link::Mul(1), Link::Square])));
        assert_eq!(chain(&longer, third), None);
    }

    #[test]
    fn what_is_needed_otherwise_is_evaluated() {
        let sums = |count: usize| -> Vec<Instruction> {
            let before = |i: usize| if i == 0 { 0 } else { ARRAYS + i - 1 };
            (0..count).map(|i| Instruction::Binary(BinaryOp::Add, before(i), 1)).collect()
        };
        let passed = |list: &[(Instruction, DType)], needed: &[Register], still: &[Register], summed: &[Register]| {
            let chains = Chains::new(list, |r| needed.contains(&r), |r| still.contains(&r), summed);
            (ARRAYS..list.len()).map(|r| chains.is_passed(r)).collect::<Vec<_>>()
        };
        // No more than there is a loop for.
        let (list, last) = (instructions(&sums(6)), ARRAYS + 5);
        assert_eq!(passed(&list, &[last], &[], &[]), [true, true, true, false, true, false]);
        assert_eq!(passed(&list, &[ARRAYS + 1, last], &[], &[]), [true, false, true, true, true, false]);
        assert_eq!(passed(&list, &[], &[], &[last]), [true, true, true, false, true, true]);
        // What two read is computed twice if one of its operands is the same for a row.
        let twice = instructions(&[
            Instruction::Binary(BinaryOp::Sub, 0, 1),
            Instruction::Unary(UnaryOp::Square, ARRAYS),
            Instruction::Binary(BinaryOp::Mul, ARRAYS, 2),
        ]);
        let stored = [ARRAYS + 1, ARRAYS + 2];
        assert_eq!(passed(&twice, &stored, &[1], &[]), [true, false, false]);
        assert_eq!(passed(&twice, &stored, &[], &[]), [false, false, false]);
        assert_eq!(passed(&twice, &stored[1..], &[1], &stored[..1]), [true, true, false]);
        // Of two that could be passed through, one is.
        let product = instructions(&[
            Instruction::Binary(BinaryOp::Sub, 0, 1),
            Instruction::Binary(BinaryOp::Sub, 2, 3),
            Instruction::Binary(BinaryOp::Mul, ARRAYS, ARRAYS + 1),
        ]);
        assert_eq!(passed(&product, &[ARRAYS + 2], &[], &[]), [true, false, false]);
        // Before a function, too.
        let exp = |x| Instruction::Unary(UnaryOp::Exp, x);
        let function = instructions(&[Instruction::Binary(BinaryOp::Sub, 0, 1), exp(ARRAYS)]);
        assert_eq!(passed(&function, &[ARRAYS + 1], &[], &[]), [true, false]);
        assert_eq!(passed(&function, &[], &[], &[ARRAYS + 1]), [true, false]);
        let two = [sums(2), vec![exp(ARRAYS + 1), Instruction::Binary(BinaryOp::Mul, ARRAYS + 2, 1)]].concat();
        assert_eq!(passed(&instructions(&two), &[ARRAYS + 3], &[], &[]), [true, true, false, false]);
        let mut narrow = list;
        narrow.iter_mut().for_each(|(_, dtype)| *dtype = DType::F16);
        assert_eq!(passed(&narrow, &[last], &[], &[]), [false; 6]);
    }
    #[test]
    fn what_a_function_passes_through_is_given_with_it() {
        let joined = |list: &[Instruction], needed: &[Register], register: Register| {
            let chains = Chains::new(&instructions(list), |r| needed.contains(&r), |_| false, &[]);
            chains.joined(register).map(|joined| (joined.through, joined.after, joined.chain.links.to_vec()))
        };
        let product = |a, b| Instruction::Binary(BinaryOp::Mul, a, b);
        let sum = |a, b| Instruction::Binary(BinaryOp::Add, a, b);
        let exp = |x| Instruction::Unary(UnaryOp::Exp, x);
        let [a, b, c, d, e] = std::array::from_fn(|number| ARRAYS + number);
        // a = x w, b = a + y, c = b z, d = exp(c), e = d b.
        let both = [product(0, 1), sum(a, 2), product(b, 3), exp(c), product(d, b)];
        let links = vec![Link::Mul(1), Link::Add(2), Link::Mul(3)];
        assert_eq!(joined(&both, &[e], d), Some((b, 2, links)));
        // The register itself, without a link between.
        assert_eq!(joined(&[sum(0, 1), exp(a), product(b, a)], &[c], b), Some((a, 1, vec![Link::Add(1)])));
        // What nobody else reads is passed through; what a function gives begins no such chain.
        assert_eq!(joined(&[sum(0, 1), exp(a)], &[b], b), None);
        assert_eq!(joined(&[exp(0), exp(a), product(b, a)], &[c], b), None);
        // Another one reads it before.
        assert_eq!(joined(&[sum(0, 1), product(a, a), exp(a), product(c, b)], &[b, d], c), None);
        // More than there is a loop for.
        let long = [sum(0, 1), sum(a, 1), sum(b, 1), sum(c, 1), product(d, 1), exp(e), sum(d, ARRAYS + 5)];
        assert_eq!(joined(&long, &[ARRAYS + 6], ARRAYS + 5), None);
    }
}
