//! Where the registers of a program are held: as little memory as they need at once, so that it stays in the first-level
//! cache.

use crate::block::BLOCK_OF_ROWS;
use crate::registers::held_as;
use gradus_ir::DType;
use gradus_ir::plan::{Instruction, Register};

/// The memory that registers are held in: pieces of a block each.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    /// The home of each register that has one.
    of: Vec<Option<Home>>,
    /// What each piece of memory holds.
    pub(crate) pieces: Vec<DType>,
}

/// The place of a register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home {
    /// The piece of memory.
    pub(crate) piece: usize,
    /// The register's first element there.
    pub(crate) at: usize,
}

/// When the memory of a register is in use: from one moment to another, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// What a register needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// No memory.
    Nothing,
    /// One element, for good.
    Element,
    /// A block, for good.
    Block,
    /// A block while it lives.
    Shared,
}

impl Homes {
    /// Gives registers homes, by what each needs, and when it lives.
    pub(crate) fn new(instructions: &[(Instruction, DType)], needs: &[Need], lives: &[Option<Life>]) -> Homes {
        let mut homes = Homes { of: vec![None; instructions.len()], pieces: Vec::new() };
        let dtype = |r: Register| held_as(instructions[r].1);
        // The last piece of single elements of a dtype, and how many it has.
        let mut singles: Vec<(DType, Home)> = Vec::new();
        for (r, need) in needs.iter().enumerate() {
            homes.of[r] = match need {
                Need::Nothing | Need::Shared => None,
                Need::Block => Some(Home { piece: homes.piece(dtype(r)), at: 0 }),
                Need::Element => {
                    let known = singles.iter_mut().find(|(other, next)| *other == dtype(r) && next.at < BLOCK_OF_ROWS);
                    let home = match known {
                        Some((_, next)) => *next,
                        None => Home { piece: homes.piece(dtype(r)), at: 0 },
                    };
                    singles.retain(|(other, _)| *other != dtype(r));
                    singles.push((dtype(r), Home { at: home.at + 1, ..home }));
                    Some(home)
                }
            };
        }
        let mut shared: Vec<(Register, Life)> = (lives.iter().enumerate())
            .filter(|&(r, _)| needs[r] == Need::Shared)
            .filter_map(|(r, life)| Some((r, (*life)?)))
            .collect();
        shared.sort_by_key(|(_, life)| life.first);
        // Pieces that are shared, and the last moment at which each is in use.
        let mut pieces: Vec<(usize, usize)> = Vec::new();
        for (r, life) in shared {
            let is_free =
                |&&mut (piece, until): &&mut (usize, usize)| until < life.first && homes.pieces[piece] == dtype(r);
            // What was in use last is the likeliest to be in the cache.
            let piece = match pieces.iter_mut().filter(is_free).max_by_key(|(_, until)| *until) {
                Some((piece, until)) => {
                    *until = life.last;
                    *piece
                }
                None => {
                    let piece = homes.piece(dtype(r));
                    pieces.push((piece, life.last));
                    piece
                }
            };
            homes.of[r] = Some(Home { piece, at: 0 });
        }
        homes
    }

    /// A new piece.
    fn piece(&mut self, dtype: DType) -> usize {
        self.pieces.push(dtype);
        self.pieces.len() - 1
    }

    /// The home of a register that has one.
    pub(crate) fn of(&self, register: Register) -> Option<Home> {
        self.of[register]
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_OF_ROWS, Homes, Life, Need};
    use gradus_ir::plan::Instruction;
    use gradus_ir::{DType, Number};

    fn homes(registers: &[(DType, Need, usize, usize)]) -> Homes {
        let number = Instruction::Const(Number::Int(0));
        let instructions: Vec<_> = registers.iter().map(|&(dtype, ..)| (number.clone(), dtype)).collect();
        let needs: Vec<_> = registers.iter().map(|&(_, need, ..)| need).collect();
        let lives: Vec<_> = registers.iter().map(|&(_, _, first, last)| Some(Life { first, last })).collect();
        Homes::new(&instructions, &needs, &lives)
    }

    #[test]
    fn memory_is_shared_by_what_does_not_live_at_once() {
        // A chain: each is read by the next one alone, so two pieces do.
        let chain: Vec<_> = (0..10).map(|i| (DType::F32, Need::Shared, i, i + 1)).collect();
        let homes = homes(&chain);
        assert_eq!(homes.pieces.len(), 2);
        let pieces: Vec<usize> = (0..10).map(|r| homes.of(r).unwrap().piece).collect();
        assert!(pieces.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn dtypes_do_not_mix_but_for_f16_which_is_held_as_f32() {
        let homes = homes(&[
            (DType::F32, Need::Shared, 0, 1),
            (DType::I32, Need::Shared, 2, 3),
            (DType::F16, Need::Shared, 4, 5),
        ]);
        assert_eq!(homes.pieces, [DType::F32, DType::I32]);
        assert_eq!(homes.of(2).unwrap().piece, 0);
    }

    #[test]
    fn numbers_lie_side_by_side_for_good() {
        let numbers = BLOCK_OF_ROWS * 3 / 2;
        let mut registers = vec![(DType::F32, Need::Element, 0, 0); numbers];
        registers.extend([(DType::F32, Need::Block, 0, 0), (DType::F32, Need::Shared, 1, 2)]);
        let homes = homes(&registers);
        // Two for the numbers, one each for the others.
        assert_eq!(homes.pieces.len(), 4);
        let mut places: Vec<_> =
            (0..numbers + 2).map(|r| homes.of(r).map(|home| (home.piece, home.at)).unwrap()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), numbers + 2);
    }
}
